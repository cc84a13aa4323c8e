//! What a follower that has attached shows, through schema changes, restarts and a leader that is away.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{create, databases, is_named_below, put, tables};
use crate::cluster::{Site, Store};

#[tokio::test]
async fn a05_a06_a31_many_followers_each_for_itself_see_schema_changes() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        let mut followers = Vec::new();
        for name in ["east", "south", "west"] {
            let follower = site.follower(name, &leader).await?;
            assert!(
                databases(&follower).await?.is_empty(),
                "nothing is created beforehand"
            );
            put(&follower, &json!({"leader": "north", "database": "d"})).await?;
            followers.push(follower);
        }
        // One leaves, one dies; the third goes on.
        followers[0].detach("d").await?;
        followers[1].kill()?;
        for sql in [
            "CREATE TABLE u (a INT)",
            "ALTER TABLE t ADD COLUMN b DOUBLE",
            "DROP TABLE u",
            "CREATE TABLE v (a INT); INSERT INTO v VALUES (1)",
        ] {
            leader.sql("d", sql).await?;
        }
        let there = leader.sql("d", "SELECT * FROM t CROSS JOIN v").await?;
        let here = followers[2]
            .ask("d", "SELECT * FROM t CROSS JOIN v")
            .min_version(there.version()?)
            .send()
            .await?;
        assert_eq!(here.text(), there.text());
        assert_eq!(tables(&followers[2], "d").await?, ["t", "v"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a30_what_is_attached_survives_a_restart_of_either_side() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = site.leader("north").await?;
        create(&leader, "d", &["a", "b"]).await?;
        let mut follower = site.follower("south", &leader).await?;
        let narrow = json!({"leader": "north", "database": "d", "name": "some",
            "database_name_override": "d_here",
            "default_principals_modification_kind": "Replace",
            "sharing": {"tablesToInclude": ["a"]}});
        put(&follower, &narrow).await?;
        let (_, before) = follower.get_json("/v1/attachments").await?;
        follower.terminate().await?;
        leader.terminate().await?;
        follower.restart().await?;
        leader.restart().await?;
        leader.wait_ready().await?;
        follower.wait_ready().await?;
        let (_, mut after) = follower.get_json("/v1/attachments").await?;
        let version = before[0]["databases"][0]["version"].as_u64();
        ensure!(
            after[0]["databases"][0]["version"].as_u64() >= version,
            "{after}"
        );
        after[0]["databases"][0]["version"] = json!(version);
        assert_eq!(before, after);
        assert_eq!(tables(&follower, "d_here").await?, ["a"]);
        // The leader knows its follower again, and what it may see.
        leader.sql("d", "CREATE TABLE a2 (x INT)").await?;
        let receipt = leader.ingest("d", "a", "format=csv", "word\nnew\n").await?;
        let version = receipt["version"].as_u64().context("a version")?;
        follower.wait_for_version("d_here", version).await?;
        assert_eq!(follower.count("d_here", "SELECT count(*) FROM a").await?, 2);
        assert_eq!(tables(&follower, "d_here").await?, ["a"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a01_a42_a50_a51_a52_a64_a65_an_attached_database_is_read_only_and_known_on_both_sides()
-> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        let before = site.bucket_files(&format!("{}/extents", site.only_database_folder()?))?;
        let follower = site.follower("south", &leader).await?;
        let request = json!({"leader": "north", "database": "d", "name": "adc",
            "sharing": {"tablesToInclude": ["t*"]}});
        let attached = put(&follower, &request).await?;
        assert_eq!(attached["provisioning_state"], "Succeeded");
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 1);
        let refused_write = follower.refused("d", "DELETE FROM t").await?;
        assert_eq!(refused_write.code, "read_only_follower");

        // No data is copied: neither in the bucket nor into the follower's directory.
        let after = site.bucket_files(&format!("{}/extents", site.only_database_folder()?))?;
        assert_eq!(before, after);
        ensure!(
            !is_named_below(follower.data_directory(), "PAR1")?,
            "a Parquet file was copied"
        );

        // The leader knows who follows, with which filters and by which right.
        let (_, followers) = leader.get_json("/v1/followers").await?;
        assert_eq!(followers[0]["cluster"], "south");
        assert_eq!(followers[0]["configuration"], "adc");
        assert_eq!(followers[0]["sharing"]["tablesToInclude"], json!(["t*"]));
        assert_eq!(followers[0]["origin"], "Direct");
        let dropped = leader.ask_node("DROP DATABASE d").refused().await?;
        assert_eq!(dropped.code, "database_followed");
        ensure!(dropped.message.contains("south"), "{dropped}");

        // The follower knows whom it follows, and how far behind it is.
        let sql = "SELECT leader, configuration, version, lag_ms, versions_behind \
                   FROM slipstream.databases WHERE database_name = 'd'";
        let row = follower.ask_node(sql).send().await?.rows.remove(0);
        assert_eq!(
            (&row["leader"], &row["configuration"]),
            (&json!("north"), &json!("adc"))
        );
        assert_eq!(row["versions_behind"], 0);
        ensure!(
            row["lag_ms"].as_i64().is_some_and(|lag| lag < 60_000),
            "{row:?}"
        );
        let (_, metrics) = follower.get("/metrics").await?;
        for name in [
            "slipstream_follower_latency_ms ",
            "slipstream_database_lag_ms{database=\"d\"} ",
            "slipstream_database_versions_behind{database=\"d\"} ",
        ] {
            ensure!(metrics.contains(name), "{name} in {metrics}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a32_a33_a34_a_query_ends_though_the_leader_drops_what_it_reads() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let fill = "CREATE TABLE t AS SELECT value AS n FROM generate_series(1, 300000)";
        leader.sql("d", fill).await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        let slow = "SELECT count(*), sum(a.n % 7 + b.n) FROM t a, t b WHERE b.n <= 60";
        let slow = follower.ask("d", slow);
        let dropping = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let dropped = leader.sql("d", "DROP TABLE t").await?;
            let version = dropped.version()?;
            follower.wait_for_version("d", version).await
        };
        let (answer, dropped) = tokio::join!(slow.send(), dropping);
        dropped?;
        let answer = answer?;
        ensure!(answer.text().contains("18000000"), "{}", answer.text());
        // The next query sees the next version, whole.
        let gone = follower.refused("d", "SELECT * FROM t").await?;
        assert_eq!(gone.code, "table_not_found");
        // What was dropped is not deleted: somebody may still read it.
        let folder = format!("{}/extents", site.only_database_folder()?);
        ensure!(
            !site.bucket_files(&folder)?.is_empty(),
            "the extents are gone"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a69_the_newest_rows_come_from_the_leader_and_the_rest_from_here() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        leader
            .sql(
                "d",
                "CREATE TABLE t AS SELECT value AS n FROM generate_series(1, 1000)",
            )
            .await?;
        let follower = site.follower("south", &leader).await?;
        let request = json!({"leader": "north", "database": "d", "database_name_override": "here"});
        put(&follower, &request).await?;
        let united = "SELECT count(*), sum(n) FROM (
            SELECT n FROM t WHERE n <= 900
            UNION ALL SELECT n FROM at_leader('SELECT n FROM t WHERE n > 900'))";
        let answer = follower.sql("here", united).await?.text();
        ensure!(
            answer.contains("1000") && answer.contains("500500"),
            "{answer}"
        );
        // Committed there and asked here in one breath: the leader's part is never behind.
        leader.sql("d", "INSERT INTO t VALUES (1001)").await?;
        let newest = "SELECT max(n) FROM at_leader($$SELECT n FROM t WHERE n > 900$$)";
        assert_eq!(follower.count("here", newest).await?, 1001);
        let (schema, _) = follower
            .ask(
                "here",
                "SELECT * FROM at_leader('SELECT 1 AS a, ''x'' AS b')",
            )
            .arrow()
            .await?;
        assert_eq!(schema.fields().len(), 2);

        for (sql, phrase) in [
            (
                "SELECT * FROM at_leader('SELECT * FROM gone')",
                "leader 'north': there is no table",
            ),
            ("SELECT * FROM at_leader(1)", "takes one text"),
            ("SELECT * FROM at_leader('DROP TABLE t')", "takes one query"),
            (
                "SELECT * FROM at_leader('SELECT 1; DROP TABLE t')",
                "takes one query",
            ),
            (
                "SELECT * FROM at_leader('SELECT * INTO u FROM t')",
                "queries can run",
            ),
        ] {
            let refused = follower.refused("here", sql).await?;
            ensure!(refused.message.contains(phrase), "{sql}: {refused}");
        }
        assert_eq!(leader.count("d", "SELECT count(*) FROM t").await?, 1001);
        let owned = leader
            .refused("d", "SELECT * FROM at_leader('SELECT 1')")
            .await?;
        ensure!(owned.message.contains("followed databases"), "{owned}");
        drop(leader);
        let silent = follower.refused("here", newest).await?;
        assert_eq!(
            (silent.status, silent.code.as_str()),
            (503, "storage_unavailable")
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a45_a46_a_follower_outlives_its_leader_and_knows_it_again() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        leader.kill()?;
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 1);
        let (status, readiness) = follower.readiness_of("d").await?;
        assert_eq!((status, &readiness["ready"]), (200, &json!(true)));
        leader.restart().await?;
        leader.wait_ready().await?;
        let receipt = leader.ingest("d", "t", "format=csv", "word\nnew\n").await?;
        let version = receipt["version"].as_u64().context("a version")?;
        follower.wait_for_version("d", version).await?;
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 2);
        Ok(())
    })
    .await
}
