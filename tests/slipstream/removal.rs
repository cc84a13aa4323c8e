//! What leaves and what moves by command: extents, and rows of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{ApiError, Client, Node, Site, Store};

/// A database `d` on a leader, and on a follower. Nothing is merged there: extents are counted.
async fn pair(site: &Site) -> Result<(Node, Node)> {
    let leader = site.leader("north").await?;
    leader.create_database("d").await?;
    let off = r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;
    leader.command("d", off).await?;
    let follower = site.follower("south", &leader).await?;
    follower.attach(&leader, "d").await?;
    Ok((leader, follower))
}

/// The follower is where the leader is now.
async fn follow(leader: &Node, follower: &Node) -> Result<()> {
    let version = leader.sql("d", "SELECT 1").await?.version()?;
    follower.wait_for_version("d", version).await
}

async fn ingest(leader: &Node, table: &str, options: &str, rows: &str) -> Result<()> {
    let options = format!("format=csv&create=true{options}");
    leader.ingest("d", table, &options, rows.to_owned()).await?;
    Ok(())
}

/// The ids of a table's extents, oldest rows first.
async fn extents(node: &Node, table: &str) -> Result<Vec<String>> {
    let command = format!(".show table {table} extents");
    let mut rows = node.command("d", &command).await?;
    rows.sort_by_key(|row| row["MaxCreatedOn"].as_str().map(str::to_owned));
    rows.iter().map(|row| text(row, "ExtentId")).collect()
}

fn text(row: &Value, column: &str) -> Result<String> {
    let text = row[column].as_str();
    let text = text.with_context(|| format!("{column} of {row}"))?;
    Ok(text.to_owned())
}

async fn ids(node: &Node, command: &str, column: &str) -> Result<Vec<String>> {
    let rows = node
        .command("d", command)
        .await
        .context(command.to_owned())?;
    rows.iter().map(|row| text(row, column)).collect()
}

#[tokio::test]
async fn extents_are_dropped_by_id_age_size_tag_and_query() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        for year in 2018..2024 {
            let tag = if year % 2 == 0 {
                "&tag=drop-by:even"
            } else {
                ""
            };
            let options = format!("{tag}&creation_time={year}-06-01T00:00:00Z");
            ingest(&leader, "t", &options, "n\n1\n2\n").await?;
        }
        ingest(&leader, "u", "", "n\n1\n").await?;
        let all = extents(&leader, "t").await?;
        let drop = async |command: &str| ids(&leader, command, "ExtentId").await;
        let left = async || {
            follow(&leader, &follower).await?;
            let left = extents(&follower, "t").await?;
            ensure!(left == extents(&leader, "t").await?, "{left:?}");
            let rows = follower.count("d", "SELECT count(*) FROM t").await?;
            ensure!(rows == 2 * i64::try_from(left.len())?, "{rows} rows");
            Ok(left)
        };

        // What would go is said, and stays.
        for asked in [
            ".drop-pretend extents older 10 days from t",
            ".drop extents older 10 days from all tables with (whatif=true)",
            ".drop extents whatif <| .show table t extents",
        ] {
            let mut named = drop(asked).await?;
            named.sort_by_key(|id| all.iter().position(|known| known == id));
            assert_eq!(named, all, "{asked}");
        }
        assert_eq!(left().await?, all);

        let rows = leader
            .command("d", ".drop extents older 10 days from t limit 1")
            .await?;
        let columns: Vec<_> = rows[0]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, _)| k)
            .collect();
        assert_eq!(columns.len(), 3, "{columns:?}");
        assert_eq!(
            (&rows[0]["ExtentId"], &rows[0]["TableName"]),
            (&json!(all[0]), &json!("t"))
        );
        ensure!(
            text(&rows[0], "CreatedOn")?.starts_with("2018-06-01"),
            "{rows:?}"
        );
        assert_eq!(left().await?, all[1..]);

        let tagged = ".drop extents <| .show table t extents where tags has 'drop-by:even'";
        assert_eq!(drop(tagged).await?.len(), 2, "of 2020 and of 2022");
        assert_eq!(left().await?, [&all[1], &all[3], &all[5]].map(Clone::clone));

        let one = format!(".drop extent {} from t", all[3]);
        assert_eq!(drop(&one).await?, [all[3].clone()]);
        let again = leader.command_refused("d", &one).await?;
        assert_eq!(again.code, "extent_not_found", "{again}");
        let elsewhere = format!(".drop extents ({}, {}) from u", all[1], all[5]);
        let elsewhere = leader.command_refused("d", &elsewhere).await?;
        assert_eq!(elsewhere.code, "extent_not_found", "{elsewhere}");

        let by_query = ".drop extents <| SELECT extent_id FROM slipstream.extents \
             WHERE table_name = 't' ORDER BY max_created_on LIMIT 1";
        assert_eq!(drop(by_query).await?, [all[1].clone()]);
        assert_eq!(left().await?, [all[5].clone()]);
        for wrong in [
            ".drop extents <| SELECT extent_id FROM slipstream.extents; DROP TABLE t",
            ".drop extents <| WITH a AS (SELECT 1 AS n, 2 AS m) SELECT * FROM a",
            ".drop extents <| SELECT 'x'",
        ] {
            let refused = leader.command_refused("d", wrong).await?;
            assert_eq!(refused.status, 400, "{wrong}: {refused}");
        }

        // The oldest go until no more is left than may be.
        for year in 2010..2014 {
            let options = format!("&creation_time={year}-06-01T00:00:00Z");
            ingest(&leader, "t", &options, "n\n1\n2\n").await?;
        }
        let sizes = leader.command("d", ".show table t extents").await?;
        let size = sizes[0]["OriginalSize"].as_f64().context("a size")? as u64;
        let trim = format!(
            ".drop extents from t trim by datasize {} bytes",
            size * 3 + 1
        );
        assert_eq!(drop(&trim).await?.len(), 2, "of five extents of one size");
        assert_eq!(left().await?.len(), 3);
        assert_eq!(drop(".drop extents from tables (t, u)").await?.len(), 4);
        assert_eq!(left().await?.len(), 0);
        let refused = follower
            .command_refused("d", ".drop extents from t with (whatif=true)")
            .await?;
        assert_eq!(refused.code, "read_only_follower");
        Ok(())
    })
    .await
}

/// Counts and sums both tables until it is told to stop.
async fn read_both(client: Client, done: Arc<AtomicBool>) -> Result<u64> {
    const READ: &str = "SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b) AS n, \
        coalesce((SELECT sum(x) FROM a), 0) + coalesce((SELECT sum(x) FROM b), 0) AS total";
    let (mut versions, mut last) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let reply = client.sql("d", READ).await?;
        let version = reply.version()?;
        ensure!(version >= last, "from {last} back to {version}");
        ensure!(
            reply.rows[0]["n"] == 6 && reply.rows[0]["total"] == 21,
            "at version {version}: {}",
            reply.text()
        );
        versions += u64::from(version > last);
        last = version;
    }
    Ok(versions)
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_move_with_their_files_and_no_reader_sees_one_twice_or_never() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (mut leader, follower) = pair(site).await?;
        // The same columns, under other numbers.
        leader
            .sql(
                "d",
                "CREATE TABLE a (x BIGINT, y VARCHAR); CREATE TABLE b (y VARCHAR, x BIGINT)",
            )
            .await?;
        for rows in ["x,y\n1,a\n2,b\n", "x,y\n3,\n4,d\n", "x,y\n5,e\n6,f\n"] {
            ingest(&leader, "a", "&tag=kept", rows).await?;
        }
        follow(&leader, &follower).await?;
        let folder = format!("{}/extents", site.only_database_folder()?);
        let (before, files) = (extents(&leader, "a").await?, site.bucket_files(&folder)?);

        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = [&leader, &follower]
            .into_iter()
            .map(|node| tokio::spawn(read_both((**node).clone(), Arc::clone(&done))))
            .collect();
        for _ in 0..40 {
            let one = format!(".move extents ({}) from table a to table b", before[1]);
            let rows = leader.command("d", &one).await?;
            assert_eq!(rows.len(), 1);
            assert_eq!(text(&rows[0], "OriginalExtentId")?, before[1]);
            assert_eq!(text(&rows[0], "ResultExtentId")?, before[1]);
            assert_eq!(text(&rows[0], "Details")?, "");
            let rest = ".move extents all from table a to table b";
            assert_eq!(leader.command("d", rest).await?.len(), 2);
            let back = ".move extents to table a <| .show table b extents where tags has 'kept'";
            assert_eq!(leader.command("d", back).await?.len(), 3);
        }
        follow(&leader, &follower).await?;
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            let versions = reader.await??;
            ensure!(
                versions > 3,
                "{versions} versions were seen: nothing was tested"
            );
        }
        for node in [&leader, &follower] {
            let mut found = extents(node, "a").await?;
            found.sort_by_key(|id| before.iter().position(|known| known == id));
            assert_eq!(found, before);
            assert_eq!(extents(node, "b").await?.len(), 0);
        }
        let after = site.bucket_files(&folder)?;
        assert_eq!(after, files, "nothing is written or copied");

        // Columns are found by their names, also after a restart from a checkpoint.
        let all = ".move extents all from table a to table b";
        leader.command("d", all).await?;
        leader.terminate().await?;
        leader.restart().await?;
        leader.wait_ready().await?;
        follow(&leader, &follower).await?;
        for node in [&leader, &follower] {
            let filtered = "SELECT sum(x) FROM b WHERE y IS NULL OR y > 'd'";
            assert_eq!(node.count("d", filtered).await?, 14);
            assert_eq!(node.count("d", "SELECT max(x) FROM b").await?, 6);
            assert_eq!(node.count("d", "SELECT count(*) FROM a").await?, 0);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn tables_that_differ_take_no_extents_of_each_other() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, _) = pair(site).await?;
        ingest(&leader, "a", "", "x,y\n1,a\n").await?;
        leader
            .sql(
                "d",
                "CREATE TABLE narrow (x BIGINT); CREATE TABLE other (x VARCHAR, y VARCHAR); \
                 CREATE TABLE wide (z DOUBLE, y VARCHAR, x BIGINT)",
            )
            .await?;
        for (table, words) in [
            ("narrow", "no column 'y'"),
            ("other", "column 'x' is Int64"),
        ] {
            for properties in ["", " with (whatif=true)"] {
                let command =
                    format!(".move extents all from table a to table {table}{properties}");
                let refused = leader.command_refused("d", &command).await?;
                ensure!(refused.message.contains(words), "{command}: {refused}");
            }
        }
        let same = leader
            .command_refused("d", ".move extents all from table a to table a")
            .await?;
        ensure!(same.message.contains("already"), "{same}");
        let asked = ".move extents all from table a to table wide with (whatif=true)";
        assert_eq!(leader.command("d", asked).await?.len(), 1);
        assert_eq!(extents(&leader, "a").await?.len(), 1);
        let outside = ".move extents all from table a to table wide \
             with (extentCreatedOnTo=datetime(2001-01-01))";
        assert_eq!(leader.command("d", outside).await?.len(), 0);
        leader
            .command("d", ".move extents all from table a to table wide")
            .await?;
        let moved = "SELECT count(*) FROM wide WHERE x = 1 AND y = 'a' AND z IS NULL";
        assert_eq!(leader.count("d", moved).await?, 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn extents_are_replaced_in_one_commit() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        ingest(&leader, "b", "&tag=drop-by:old", "n\n1\n").await?;
        ingest(&leader, "b", "", "n\n10\n").await?;
        ingest(&leader, "staging", "", "n\n2\n").await?;
        let before = leader.sql("d", "SELECT 1").await?.version()?;
        let replace = |properties: &str| {
            format!(
                ".replace extents in table b{properties} <| \
                 {{ .show table b extents where tags has 'drop-by:old' }}, \
                 {{ SELECT extent_id FROM slipstream.extents WHERE table_name = 'staging' }}"
            )
        };
        let asked = leader.command("d", &replace(" with (whatif=true)")).await?;
        assert_eq!(asked.len(), 2);
        assert_eq!(leader.sql("d", "SELECT 1").await?.version()?, before);
        let done = leader.command("d", &replace("")).await?;
        assert_eq!(done, asked);
        assert_eq!(
            text(&done[0], "ResultExtentId")?,
            text(&done[0], "OriginalExtentId")?
        );
        assert_eq!(text(&done[1], "ResultExtentId")?, "", "it was dropped");
        assert_eq!(leader.sql("d", "SELECT 1").await?.version()?, before + 1);
        follow(&leader, &follower).await?;
        assert_eq!(follower.count("d", "SELECT sum(n) FROM b").await?, 12);
        assert_eq!(
            follower.count("d", "SELECT count(*) FROM staging").await?,
            0
        );
        let strangers = ".replace extents in table staging <| {.show table b extents}, \
             {.show table staging extents}";
        let refused = leader.command_refused("d", strangers).await?;
        ensure!(refused.message.contains("is in table 'b'"), "{refused}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn delete_rewrites_only_the_extents_that_hold_such_rows() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        for (year, rows) in [
            (2019, "n,s\n1,a\n2,\n3,c\n"),
            (2020, "n,s\n4,a\n5,a\n"),
            (2021, "n,s\n6,x\n7,y\n"),
        ] {
            let options = format!("&tag=y{year}&creation_time={year}-06-01T00:00:00Z");
            ingest(&leader, "t", &options, rows).await?;
        }
        let before = extents(&leader, "t").await?;
        let reply = leader.sql("d", "DELETE FROM t WHERE s = 'a'").await?;
        assert_eq!(reply.rows[0]["rows"], 3);
        let version = reply.version()?;
        follower.wait_for_version("d", version).await?;
        for node in [&leader, &follower] {
            assert_eq!(
                node.count("d", "SELECT sum(n) FROM t").await?,
                2 + 3 + 6 + 7
            );
            assert_eq!(
                node.count("d", "SELECT count(*) FROM t WHERE s IS NULL")
                    .await?,
                1
            );
            let rows = node.command("d", ".show table t extents").await?;
            assert_eq!(rows.len(), 2);
        }
        // The first was written anew, with its time and its tags; the second is gone; the third
        // was not touched.
        let rows = leader
            .command("d", ".show table t extents where tags has 'y2019'")
            .await?;
        ensure!(text(&rows[0], "ExtentId")? != before[0], "{rows:?}");
        ensure!(
            text(&rows[0], "MaxCreatedOn")?.starts_with("2019-06-01"),
            "{rows:?}"
        );
        ensure!(
            text(&rows[0], "MinCreatedOn")?.starts_with("2019-06-01"),
            "{rows:?}"
        );
        assert_eq!(rows[0]["RowCount"], 2);
        assert_eq!(extents(&leader, "t").await?[1], before[2]);

        // Nothing to delete is nothing to commit.
        let reply = leader.sql("d", "DELETE FROM t WHERE n > 100").await?;
        assert_eq!(
            (&reply.rows[0]["rows"], reply.version()?),
            (&json!(0), version)
        );
        // In one transaction with what puts something else in the place of the rows.
        let change = "DELETE FROM t WHERE n = (SELECT max(n) FROM t); \
            INSERT INTO t VALUES (70, 'y')";
        let reply = leader.sql("d", change).await?;
        assert_eq!(reply.version()?, version + 1);
        assert_eq!(leader.count("d", "SELECT max(n) FROM t").await?, 70);
        let bound = leader
            .ask("d", "DELETE FROM t WHERE n = $1")
            .with("parameters", json!([70]))
            .send()
            .await?;
        assert_eq!(bound.rows[0]["rows"], 1);
        let reply = leader.sql("d", "DELETE FROM t").await?;
        assert_eq!(reply.rows[0]["rows"], 3);
        follower.wait_for_version("d", reply.version()?).await?;
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 0);
        assert_eq!(extents(&follower, "t").await?.len(), 0);
        let missing = leader.refused("d", "DELETE FROM gone").await?;
        assert_eq!(missing.code, "table_not_found", "{missing}");
        Ok(())
    })
    .await
}

/// Deletes the rows of one writer, again whenever others were faster; gives how often they were.
async fn delete_until_done(client: Client, writer: u64) -> Result<u64> {
    /// One of those that meet is done, so nobody has to try for ever.
    const ATTEMPTS_MAX: u64 = 200;
    let mut conflicts = 0;
    for n in 0..10 {
        let sql = format!("DELETE FROM t WHERE writer = {writer} AND n = {n}");
        let mut attempts = 0;
        loop {
            attempts += 1;
            match client.ask("d", &sql).send().await {
                Ok(reply) => {
                    ensure!(reply.rows[0]["rows"] == 1, "{}", reply.text());
                    break;
                }
                Err(error) => {
                    let refused: ApiError = error.downcast()?;
                    ensure!(refused.code == "extents_changed", "{refused}");
                    ensure!(refused.status == 409, "{refused}");
                    ensure!(attempts < ATTEMPTS_MAX, "{sql} was refused every time");
                    conflicts += 1;
                }
            }
        }
    }
    Ok(conflicts)
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_that_meet_are_refused_or_done_and_rows_added_meanwhile_stay() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        let mut rows = String::from("writer,n\n");
        for n in 0..10 {
            for writer in 0..4 {
                rows.push_str(&format!("{writer},{n}\n"));
            }
        }
        ingest(&leader, "t", "", &rows).await?;
        let deleting: Vec<_> = (0..3)
            .map(|writer| tokio::spawn(delete_until_done((*leader).clone(), writer)))
            .collect();
        for _ in 0..10 {
            ingest(&leader, "t", "", "writer,n\n9,0\n").await?;
        }
        let mut conflicts = 0;
        for one in deleting {
            conflicts += one.await??;
        }
        ensure!(conflicts > 0, "they never met: nothing was tested");
        follow(&leader, &follower).await?;
        for (writer, expected) in [(0, 0), (1, 0), (2, 0), (3, 10), (9, 10)] {
            let sql = format!("SELECT count(*) FROM t WHERE writer = {writer}");
            assert_eq!(follower.count("d", &sql).await?, expected, "{writer}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_merge_policy_is_set_as_a_whole_or_in_part_and_followed() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        ingest(&leader, "t", "", "n\n1\n").await?;
        let policy = async |node: &Node, of: &str| {
            let command = format!(".show {of} policy merge");
            let rows = node.command("d", &command).await?;
            assert_eq!(rows[0]["PolicyName"], "ExtentsMergePolicy");
            Ok::<Value, anyhow::Error>(serde_json::from_str(&text(&rows[0], "Policy")?)?)
        };
        assert_eq!(policy(&leader, "table t").await?, Value::Null);
        assert_eq!(policy(&leader, "database d").await?["AllowMerge"], false);
        let set =
            r#".alter table t policy merge '{"MaxRangeInHours": 8, "LoopPeriod": "01:00:00"}'"#;
        leader.command("d", set).await?;
        let part = r#".alter-merge table t policy merge '{"Lookback": {"Kind": "All"}}'"#;
        leader.command("d", part).await?;
        follow(&leader, &follower).await?;
        for node in [&leader, &follower] {
            let policy = policy(node, "table t").await?;
            assert_eq!(policy["MaxRangeInHours"], 8);
            assert_eq!(policy["Lookback"]["Kind"], "All");
            assert_eq!(policy["RowCountUpperBoundForMerge"], 16_000_000);
            assert_eq!(policy["OriginalSizeMBUpperBoundForMerge"], 30_000);
            let details = node.command("d", ".show table t details").await?;
            ensure!(
                text(&details[0], "MergePolicy")?.contains("MaxRangeInHours"),
                "{details:?}"
            );
        }
        for wrong in [
            "[]",
            "{",
            r#"{"MaxRange": 8}"#,
            r#"{"MaxRangeInHours": "x"}"#,
        ] {
            let command = format!(".alter table t policy merge '{wrong}'");
            let refused = leader.command_refused("d", &command).await?;
            assert_eq!(refused.status, 400, "{wrong}: {refused}");
        }
        leader.command("d", ".delete table t policy merge").await?;
        assert_eq!(policy(&leader, "table t").await?, Value::Null);
        Ok(())
    })
    .await
}
