//! What comes back and what changes without being written anew: dropped tables, tags of extents.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Node, Site, Store, eventually};

/// What turns merging off: extents are counted.
const OFF: &str =
    r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;
/// A table's policies, as every node shows them.
const POLICIES: [&str; 6] = [
    ".show table t policy caching",
    ".show table t policy retention",
    ".show table t policy merge",
    ".show table t policy row_level_security",
    ".show table t policy ingestionbatching",
    ".show table t policy streamingingestion",
];

async fn leader(site: &Site, options: &[&str]) -> Result<Node> {
    let mut leader = site.start("leader", "north", "north", options).await?;
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    leader.command("d", OFF).await?;
    Ok(leader)
}

async fn ingest(leader: &Node, table: &str, options: &str, rows: &str) -> Result<()> {
    let options = format!("format=csv&create=true{options}");
    leader.ingest("d", table, &options, rows.to_owned()).await?;
    Ok(())
}

/// The version and digest that both nodes have, once the follower is where the leader is.
async fn follow(leader: &Node, follower: &Node) -> Result<u64> {
    let now = leader.sql("d", "SELECT 1").await?;
    follower.wait_for_version("d", now.version()?).await?;
    let there = follower.sql("d", "SELECT 1").await?;
    ensure!(there.version()? == now.version()?, "{there:?}");
    ensure!(there.digest()? == now.digest()?, "{there:?}");
    now.version()
}

async fn drop_table(leader: &Node, table: &str) -> Result<u64> {
    let rows = leader.command("d", &format!(".drop table {table}")).await?;
    rows[0]["Version"].as_u64().context("a version")
}

/// What nodes show of the table's policies, beside whose they are.
async fn policies(node: &Node) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for command in POLICIES {
        let rows = node.command("d", command).await?;
        all.push(rows[0]["Policy"].clone());
    }
    Ok(all)
}

#[tokio::test]
async fn a_dropped_table_comes_back_with_its_rows_and_policies_everywhere() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site, &["--gc-interval", "100ms", "--lease-ttl", "5s"]).await?;
        ingest(&leader, "t", "&tag=drop-by:x", "n,owner\n1,north\n2,south\n").await?;
        ingest(&leader, "t", "", "n,owner\n3,north\n").await?;
        for change in [
            ".alter table t policy caching hot = 3d",
            ".alter-merge table t policy retention softdelete = 999d",
            r#".alter table t policy merge '{"AllowRebuild": false, "AllowMerge": false, "MaxRangeInHours": 12}'"#,
            r#".alter table t policy ingestionbatching '{"MaximumBatchingTimeSpan": "00:00:07"}'"#,
            ".alter table t policy streamingingestion enable",
            ".alter table t policy row_level_security enable \
             \"owner = current_cluster_endpoint()\"",
        ] {
            leader.command("d", change).await?;
        }
        leader.sql("d", "ALTER TABLE t ADD COLUMN gone INT").await?;
        leader
            .sql("d", "INSERT INTO t VALUES (4, 'south', 40)")
            .await?;
        leader.sql("d", "ALTER TABLE t DROP COLUMN gone").await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        follow(&leader, &follower).await?;
        let (before, extents) = (
            policies(&leader).await?,
            leader.command("d", ".show table t extents").await?,
        );
        let rows = "SELECT coalesce(sum(n), 0) FROM t";
        assert_eq!(leader.count("d", rows).await?, 4, "its own rows: 1 and 3");
        assert_eq!(follower.count("d", rows).await?, 6, "its own rows: 2 and 4");

        let dropped = drop_table(&leader, "t").await?;
        follow(&leader, &follower).await?;
        // Garbage is collected meanwhile, and the next leader knows no less.
        leader.restart().await?;
        leader.wait_ready().await?;

        let undo = format!(".undo drop table t version={dropped}");
        let refused = follower.command_refused("d", &undo).await?;
        assert_eq!(refused.code, "read_only_follower", "{refused}");
        let recovered = leader.command("d", &undo).await?;
        assert_eq!(recovered.len(), extents.len());
        for row in &recovered {
            ensure!(row["Status"] == "Recovered", "{row}");
        }
        let version = follow(&leader, &follower).await?;
        let opened_again = 1;
        assert_eq!(version, dropped + opened_again + 1, "one commit");
        for node in [&leader, &follower] {
            assert_eq!(policies(node).await?, before);
            let sums = node.command("d", ".show table t extents").await?;
            let ids = |rows: &[Value]| -> Vec<Value> {
                let mut ids: Vec<_> = rows.iter().map(|row| row["ExtentId"].clone()).collect();
                ids.sort_by_key(ToString::to_string);
                ids
            };
            assert_eq!(ids(&sums), ids(&extents));
        }
        // Whoever could not see a row before does not see it now.
        assert_eq!(leader.count("d", rows).await?, 4);
        assert_eq!(follower.count("d", rows).await?, 6);
        let gone = leader.refused("d", "SELECT gone FROM t").await?;
        ensure!(gone.status == 400, "{gone}");

        // It goes on as any table.
        leader.sql("d", "INSERT INTO t VALUES (10, 'north')").await?;
        assert_eq!(leader.count("d", rows).await?, 14);

        // The same drop cannot be undone twice: no row stands in two tables.
        let exists = leader.command_refused("d", &undo).await?;
        assert_eq!(exists.code, "table_exists", "{exists}");
        let again = format!(".undo drop table t as u version={dropped}");
        let twice = leader.command_refused("d", &again).await?;
        assert_eq!(twice.code, "extent_in_use", "{twice}");
        let unknown = leader
            .command_refused("d", ".undo drop table other version=2")
            .await?;
        assert_eq!(unknown.code, "table_not_found", "{unknown}");

        // Under another name, named by the version before the drop, as Kusto's journal does.
        let dropped = drop_table(&leader, "t").await?;
        let renamed = format!(".undo drop table t as u version=v{}.0", dropped - 1);
        leader.command("d", &renamed).await?;
        follow(&leader, &follower).await?;
        let rows = rows.replace(" t", " u");
        assert_eq!(leader.count("d", &rows).await?, 14);
        assert_eq!(follower.count("d", &rows).await?, 6);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_gone_or_may_not_come_back_is_refused() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let options = ["--gc-interval", "0", "--gc-grace", "10s"];
        let options = [&options[..], &["--lease-ttl", "5s"]].concat();
        let leader = leader(site, &options).await?;
        ingest(&leader, "t", "", "n\n1\n").await?;
        ingest(&leader, "private", "", "n\n1\n").await?;
        let unrecoverable = r#".alter table private policy retention '{"SoftDeletePeriod": "99.00:00:00", "Recoverability": "Disabled"}'"#;
        leader.command("d", unrecoverable).await?;

        let dropped = drop_table(&leader, "private").await?;
        let undo = format!(".undo drop table private version={dropped}");
        let refused = leader.command_refused("d", &undo).await?;
        assert_eq!(refused.code, "not_recoverable", "{refused}");
        ensure!(refused.message.contains("retention policy"), "{refused}");

        // A file that is missing is noticed, whatever the leader remembers.
        let dropped = drop_table(&leader, "t").await?;
        let folder = format!("{}/extents", site.only_database_folder()?);
        let undo = format!(".undo drop table t version={dropped}");
        for file in site.bucket_files(&folder)? {
            std::fs::rename(&file, file.with_extension("away"))?;
        }
        let refused = leader.command_refused("d", &undo).await?;
        assert_eq!(refused.code, "not_recoverable", "{refused}");
        ensure!(refused.message.contains("was deleted"), "{refused}");
        for file in site.bucket_files(&folder)? {
            std::fs::rename(&file, file.with_extension("parquet"))?;
        }

        eventually("the grace period is over", async || {
            let rows = leader.command("d", ".show gc blockers").await?;
            let is_due = |row: &Value| row["Reason"] == "Due" && row["Extents"] == 2;
            Ok(rows.iter().any(is_due))
        })
        .await?;
        eventually("both files go", async || {
            leader.command("d", ".gc database d").await?;
            let folder = site.bucket_directory().join(&folder);
            Ok(!folder.exists() || std::fs::read_dir(folder)?.next().is_none())
        })
        .await?;
        let refused = leader.command_refused("d", &undo).await?;
        assert_eq!(refused.code, "not_recoverable", "{refused}");
        ensure!(refused.message.contains("is kept for 10s"), "{refused}");
        let missing = leader.refused("d", "SELECT * FROM t").await?;
        assert_eq!(missing.code, "table_not_found", "{missing}");
        Ok(())
    })
    .await
}

/// The tags of a table's extents, by extent.
async fn tags(node: &Node) -> Result<Vec<(String, String)>> {
    let rows = node.command("d", ".show table t extents").await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut tags: Vec<_> = rows
        .iter()
        .map(|row| (text(&row["MinCreatedOn"]), text(&row["Tags"])))
        .collect();
    tags.sort();
    Ok(tags)
}

#[tokio::test]
async fn tags_change_in_one_commit_and_followers_see_it() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site, &[]).await?;
        for (year, tag) in [(2018, "a"), (2019, "b"), (2020, "a")] {
            let options = format!("&tag={tag}&creation_time={year}-06-01T00:00:00Z");
            ingest(&leader, "t", &options, "n\n1\n2\n").await?;
        }
        ingest(&leader, "u", "", "n\n1\n").await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        let mut version = follow(&leader, &follower).await?;
        let files = site.bucket_files(&format!("{}/extents", site.only_database_folder()?))?;

        for (command, rows, expected) in [
            (
                ".alter-merge extent tags ('c', 'a') <| .show table t extents where tags has 'b'",
                1,
                ["a", "a\r\nb\r\nc", "a"],
            ),
            (
                ".alter extent tags ('only') <| SELECT extent_id FROM slipstream.extents \
                 WHERE table_name = 't' ORDER BY max_created_on LIMIT 1",
                1,
                ["only", "a\r\nb\r\nc", "a"],
            ),
            (
                ".drop extent tags from table t ('a', 'never')",
                3,
                ["only", "b\r\nc", ""],
            ),
            (
                ".drop extent tags ('b') <| .show table t extents where tags has 'c'",
                1,
                ["only", "c", ""],
            ),
            (
                ".drop table t extent tags <| .show table t extents where tags has 'only'",
                1,
                ["", "c", ""],
            ),
        ] {
            let answer = leader.command("d", command).await?;
            assert_eq!(answer.len(), rows, "{command}: {answer:?}");
            ensure!(
                answer[0]["OriginalExtentId"] == answer[0]["ResultExtentId"],
                "{answer:?}"
            );
            let now = follow(&leader, &follower).await?;
            assert_eq!(now, version + 1, "{command}");
            version = now;
            for node in [&leader, &follower] {
                let found = tags(node).await?;
                let found: Vec<_> = found.iter().map(|(_, tags)| tags.as_str()).collect();
                assert_eq!(found, expected, "{command}");
                assert_eq!(node.count("d", "SELECT count(*) FROM t").await?, 6);
            }
        }

        // Nothing was removed, so nothing is garbage; and the files are the same ones.
        ensure!(leader.command("d", ".show gc blockers").await?.is_empty());
        let now = site.bucket_files(&format!("{}/extents", site.only_database_folder()?))?;
        assert_eq!(now, files);

        let asked = ".alter extent tags ('x') with (whatif=true) <| .show table t extents";
        let answer = leader.command("d", asked).await?;
        ensure!(answer[0]["ResultExtentTags"] == "x", "{answer:?}");
        assert_eq!(follow(&leader, &follower).await?, version);
        let strangers = ".alter table t extent tags ('x') <| .show table u extents";
        let refused = leader.command_refused("d", strangers).await?;
        ensure!(refused.message.contains("is in table 'u'"), "{refused}");
        let refused = follower
            .command_refused("d", ".drop extent tags from table t ('c')")
            .await?;
        assert_eq!(refused.code, "read_only_follower", "{refused}");
        Ok(())
    })
    .await
}
