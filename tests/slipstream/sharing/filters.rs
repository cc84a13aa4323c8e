//! What a configuration lets a follower see of a database, and how that changes.

use anyhow::{Context, Result};
use serde_json::json;

use super::{create, databases, put, refused, tables};
use crate::cluster::{Site, Store, eventually};

#[tokio::test]
async fn a09_a10_a15_a_follower_sees_the_tables_that_its_filters_name() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        let version = create(&leader, "d", &["logs_a", "logs_b", "other"]).await?;
        let mut follower = site.follower("south", &leader).await?;
        let request = json!({"leader": "north", "database": "d",
            "sharing": {"tablesToInclude": ["logs*"], "tablesToExclude": ["*_b", "missing"]}});
        put(&follower, &request).await?;
        assert_eq!(tables(&follower, "d").await?, ["logs_a"]);

        // Filtered or not, the digest is the same: what is left out is still accounted for.
        let here = follower
            .ask("d", "SELECT * FROM logs_a")
            .min_version(version)
            .send()
            .await?;
        let there = leader.sql("d", "SELECT * FROM logs_a").await?;
        assert_eq!(here.digest()?, there.digest()?);
        let hidden = follower.refused("d", "SELECT * FROM logs_b").await?;
        assert_eq!(
            (hidden.status, hidden.code.as_str()),
            (404, "table_not_found")
        );

        // A table that is created later and matches appears; one that does not match does not.
        leader
            .ingest("d", "others", "format=csv&create=true", "x\n1\n")
            .await?;
        let receipt = leader
            .ingest("d", "logs_c", "format=csv&create=true", "x\n1\n")
            .await?;
        let version = receipt["version"].as_u64().context("a version")?;
        follower.wait_for_version("d", version).await?;
        assert_eq!(tables(&follower, "d").await?, ["logs_a", "logs_c"]);

        // The filters are those of the configuration, after a restart and without the leader too.
        follower.terminate().await?;
        drop(leader);
        follower.restart().await?;
        eventually("the follower answers from the bucket alone", async || {
            Ok(tables(&follower, "d").await? == ["logs_a", "logs_c"])
        })
        .await
    })
    .await
}

/// There are no materialized views yet: what can be held is that their filters are taken, checked
/// and shown like the others.
#[tokio::test]
async fn a12_filters_of_materialized_views_are_checked_and_kept() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        let include = json!({"leader": "north", "database": "d",
            "sharing": {"materializedViewsToInclude": ["v*"]}});
        let (status, code) = refused(&follower, &include).await?;
        assert_eq!((status, code.as_str()), (404, "filter_matches_nothing"));
        let exclude = json!({"leader": "north", "database": "d",
            "sharing": {"materializedViewsToExclude": ["v*"]}});
        let attached = put(&follower, &exclude).await?;
        assert_eq!(attached["sharing"], exclude["sharing"]);
        assert_eq!(tables(&follower, "d").await?, ["t"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a53_a_configuration_can_be_put_again_and_its_filters_changed() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = site.leader("north").await?;
        create(&leader, "d", &["a", "b"]).await?;
        let follower = site.follower("south", &leader).await?;
        let all = json!({"leader": "north", "database": "d"});
        let narrow = json!({"leader": "north", "database": "d",
            "sharing": {"tablesToInclude": ["a"]}});
        let first = put(&follower, &all).await?;
        assert_eq!(
            put(&follower, &all).await?,
            first,
            "the same again changes nothing"
        );
        put(&follower, &narrow).await?;
        assert_eq!(tables(&follower, "d").await?, ["a"]);
        put(&follower, &all).await?;
        assert_eq!(tables(&follower, "d").await?, ["a", "b"]);

        // What cannot be agreed with the leader is not changed here either.
        leader.kill()?;
        let (status, code) = refused(&follower, &narrow).await?;
        assert_eq!((status, code.as_str()), (503, "leader_unreachable"));
        assert_eq!(tables(&follower, "d").await?, ["a", "b"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a14_a47_a_configuration_that_makes_no_sense_is_refused_with_a_code() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        create(&leader, "e", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        put(&follower, &json!({"leader": "north", "database": "d"})).await?;
        let many: Vec<_> = (0..101).map(|number| format!("t{number}")).collect();
        for (body, status, code) in [
            (json!({"leader": "north", "database": "*", "sharing": {"tablesToInclude": ["t"]}}), 400, "invalid_sharing"),
            (json!({"leader": "north", "database": "e", "sharing": {"tablesToInclude": many}}), 400, "invalid_sharing"),
            (json!({"leader": "north", "database": "e", "sharing": {"tablesToInclude": ["u*"]}}), 404, "filter_matches_nothing"),
            (json!({"leader": "north", "database": "e", "sharing": {"tables": ["t"]}}), 400, "invalid_argument"),
            (json!({"leader": "north", "database": "missing"}), 404, "database_not_found"),
            (json!({"leader": "elsewhere", "database": "d"}), 404, "leader_not_found"),
            (json!({"leader": "north", "database": "e", "name": "d"}), 409, "already_attached"),
            (json!({"leader": "north", "database": "d", "name": "again"}), 409, "already_attached"),
            (json!({"leader": "north", "database": "e", "location": "Mars"}), 409, "location_mismatch"),
            (json!({"leader": "north", "database": "e", "invitation": "forged"}), 409, "invitation_refused"),
            (json!({"leader": "north", "database": "e", "default_principals_modification_kind": "Both"}), 400, "invalid_argument"),
        ] {
            let refusal = refused(&follower, &body).await?;
            assert_eq!(refusal, (status, code.to_owned()), "{body}");
        }
        assert_eq!(databases(&follower).await?, ["d"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a18_a_kind_that_was_altered_here_outlives_a_changed_configuration() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["a", "b"]).await?;
        let follower = site.follower("south", &leader).await?;
        let wanted = |kind: &str, tables: &[&str]| {
            json!({"leader": "north", "database": "d",
                "default_principals_modification_kind": kind,
                "sharing": {"tablesToInclude": tables}})
        };
        let kind = async || {
            let shown = follower.command("d", ".show follower database d").await?;
            Ok::<_, anyhow::Error>(shown[0]["AuthorizedPrincipalsModificationKind"].clone())
        };
        put(&follower, &wanted("Union", &["a"])).await?;
        let alter = ".alter follower database d principals-modification-kind = none";
        follower.command("d", alter).await?;
        put(&follower, &wanted("Union", &["a", "b"])).await?;
        assert_eq!(
            kind().await?,
            "None",
            "the filters changed, and nothing else"
        );
        put(&follower, &wanted("Replace", &["a", "b"])).await?;
        assert_eq!(kind().await?, "Replace", "the default itself changed");

        // One change, not two: nobody sees the role without anybody in between.
        for (set, expected) in [
            (".set database d viewers ('aaduser=ada', 'aaduser=bob')", 2),
            (".set database d viewers ('aaduser=eve')", 1),
            (".set database d viewers none", 0),
        ] {
            let shown = follower.command("d", set).await?;
            assert_eq!(shown.len(), expected, "{set}: {shown:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a13_a37_functions_and_row_level_security_are_followed_and_filtered() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        for sql in [
            "CREATE TABLE n (a INT, owner VARCHAR); INSERT INTO n VALUES (1, 'north'), (2, 'south')",
            "CREATE FUNCTION above(low INT, more INT DEFAULT 0) AS $$ SELECT a FROM n WHERE a > $low + $more $$",
            "CREATE FUNCTION hidden_one() AS 'SELECT 1 AS one'",
            "CREATE POLICY mine ON n USING (owner = current_cluster_endpoint()); \
             ALTER TABLE n ENABLE ROW LEVEL SECURITY",
        ] {
            leader.sql("d", sql).await?;
        }
        let follower = site.follower("south", &leader).await?;
        let request = json!({"leader": "north", "database": "d",
            "sharing": {"functionsToExclude": ["hidden*"]}});
        put(&follower, &request).await?;

        // The same policy shows each cluster its own rows; the same function sees no more.
        assert_eq!(leader.count("d", "SELECT a FROM n").await?, 1);
        assert_eq!(follower.count("d", "SELECT a FROM n").await?, 2);
        assert_eq!(follower.count("d", "SELECT a FROM above(0)").await?, 2);
        assert_eq!(follower.count("d", "SELECT count(*) FROM above(0, 5)").await?, 0);
        assert_eq!(leader.count("d", "SELECT * FROM hidden_one()").await?, 1);
        let hidden = follower.refused("d", "SELECT * FROM hidden_one()").await?;
        assert!((400..500).contains(&hidden.status), "{hidden}");
        let elsewhere = leader.refused("d", "SELECT * FROM other.above(0)").await?;
        assert_eq!(elsewhere.code, "unsupported");

        // The leader's policy cannot be changed here.
        for sql in [
            "ALTER TABLE n DISABLE ROW LEVEL SECURITY",
            "DROP POLICY mine ON n",
            "CREATE FUNCTION f() AS 'SELECT 1'",
        ] {
            assert_eq!(follower.refused("d", sql).await?.code, "read_only_follower", "{sql}");
        }

        // What makes no sense is refused by name.
        for (sql, code) in [
            ("CREATE FUNCTION above() AS 'SELECT 1'", "function_exists"),
            ("DROP FUNCTION missing", "function_not_found"),
            ("CREATE FUNCTION g() AS 'DROP TABLE n'", "invalid_query"),
            ("CREATE POLICY p ON t USING (nothing = 1)", "invalid_query"),
            ("CREATE POLICY p ON n USING (a = 1)", "invalid_argument"),
        ] {
            let refusal = leader.refused("d", sql).await?;
            assert_eq!(refusal.code, code, "{sql}: {refusal}");
        }

        let changed = leader
            .sql("d", "ALTER TABLE n DISABLE ROW LEVEL SECURITY; DROP FUNCTION above")
            .await?;
        follower.wait_for_version("d", changed.version()?).await?;
        assert_eq!(follower.count("d", "SELECT count(*) FROM n").await?, 2);
        assert!(follower.refused("d", "SELECT * FROM above(0)").await.is_ok());
        Ok(())
    })
    .await
}
