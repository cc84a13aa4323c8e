//! Streamed rows: durable and visible with their commit, and moved into files later.

use anyhow::{Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Client, Node, Site, Store, eventually};

/// Of one long text.
const LETTERS: usize = 3_600;

/// A leader with a database `d` and an empty table `t` that rows may be streamed into.
async fn leader(site: &Site) -> Result<Node> {
    let leader = site.leader("leader").await?;
    leader.create_database("d").await?;
    leader.sql("d", "CREATE TABLE t (n BIGINT)").await?;
    let enable = ".alter table t policy streamingingestion enable";
    leader.command("d", enable).await?;
    Ok(leader)
}

/// Streams one row, and gives the version that has it.
async fn stream(leader: &Client, n: i64, options: &str) -> Result<u64> {
    let options = format!("format=csv&streaming=true{options}");
    let receipt = leader
        .ingest("d", "t", &options, format!("n\n{n}\n"))
        .await?;
    Ok(receipt["version"].as_u64().unwrap_or_default())
}

fn files(site: &Site) -> Result<usize> {
    let folder = format!("{}/extents", site.only_database_folder()?);
    // The folder comes with the first file.
    Ok(site.bucket_files(&folder).map_or(0, |files| files.len()))
}

async fn moved(site: &Site) -> Result<()> {
    eventually("streamed rows are moved", async || Ok(files(site)? > 0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a39_streamed_rows_are_there_once_at_every_version() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site).await?;
        let follower = site.follower("follower", &leader).await?;
        follower.attach(&leader, "d").await?;
        let mut newest = 0;
        for n in 1..=20 {
            newest = stream(&leader, n, "").await?;
        }
        // Durable by the commit alone.
        leader.kill()?;
        leader.restart().await?;
        leader.wait_ready().await?;
        follower.wait_for_version("d", newest).await?;
        let sum = "SELECT sum(n) FROM t";
        for node in [&leader, &follower] {
            assert_eq!(node.count("d", sum).await?, 210);
            assert_eq!(node.count("d", "SELECT count(*) FROM t").await?, 20);
        }
        moved(site).await?;
        for node in [&leader, &follower] {
            for _ in 0..20 {
                assert_eq!(node.count("d", sum).await?, 210);
            }
            let older = format!("SELECT sum(n) FROM t FOR VERSION AS OF {newest}");
            assert_eq!(node.count("d", &older).await?, 210, "from the log");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a39_a_follower_without_streaming_sees_rows_when_they_are_in_files() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        let address = format!("{}={}", leader.cluster(), leader.grpc_url());
        let options = ["--leader", &address, "--streaming-ingestion=false"];
        let mut follower = site.start("follower", "south", "south", &options).await?;
        follower.wait_ready().await?;
        follower.attach(&leader, "d").await?;
        stream(&leader, 1, "").await?;
        let streamed = stream(&leader, 2, "").await?;
        follower.wait_for_version("d", streamed).await?;
        // The leader may have moved them by now: at their own version they stand in the log.
        let then = format!("SELECT count(*) FROM t FOR VERSION AS OF {streamed}");
        assert_eq!(leader.count("d", &then).await?, 2);
        assert_eq!(follower.count("d", &then).await?, 0);
        let sum = "SELECT coalesce(sum(n), 0) FROM t";
        eventually("the rows are moved", async || {
            Ok(follower.count("d", sum).await? == 3)
        })
        .await?;
        ensure!(files(site)? > 0, "there is a file");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a39_a_streamed_ingest_happens_once_and_needs_the_policy() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        let first = stream(&leader, 1, "&ingest_id=one").await?;
        ensure!(stream(&leader, 1, "&ingest_id=one").await? >= first);
        stream(&leader, 2, "&tag=ingest-by:two&ingest_if_not_exists=two").await?;
        stream(&leader, 2, "&tag=ingest-by:two&ingest_if_not_exists=two").await?;
        assert_eq!(leader.count("d", "SELECT sum(n) FROM t").await?, 3);

        // What is large is written as a file, whoever asks.
        let rows: String = (0..1_000_000).map(|_| "0\n").collect();
        let options = "format=csv&streaming=true";
        leader
            .ingest("d", "t", options, format!("n\n{rows}"))
            .await?;
        ensure!(files(site)? > 0, "there is a file");

        let disable = ".alter table t policy streamingingestion disable";
        leader.command("d", disable).await?;
        let refused = leader.ingest_refused("d", "t", options, "n\n5\n").await?;
        assert_eq!(refused.code, "streaming_disabled", "{refused}");
        ensure!(
            refused
                .to_string()
                .contains("policy streamingingestion enable")
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a39_what_finds_no_room_among_streamed_rows_is_written_as_a_file() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        leader
            .sql("d", "CREATE TABLE wide (n BIGINT, s VARCHAR)")
            .await?;
        let enable = ".alter table wide policy streamingingestion enable";
        leader.command("d", enable).await?;
        // Texts that do not compress, so that all ingests together are more than a table may have in
        // its log. All are asked for before the first is committed, so that each finds room when it
        // looks.
        let (ingests, rows) = (16_u64, 1_000_u64);
        let mut random = SmallRng::seed_from_u64(39);
        let text = |_| {
            let letters = (0..LETTERS).map(|_| char::from(b'0' + random.random_range(0..64_u8)));
            letters.collect::<String>()
        };
        let texts: Vec<String> = (0..rows).map(text).collect();
        let body = |ingest: u64| {
            let lines = texts.iter().map(|text| format!("{ingest},{text}\n"));
            format!("n,s\n{}", lines.collect::<String>())
        };
        let options = "format=csv&streaming=true";
        let bodies: Vec<String> = (0..ingests).map(body).collect();
        let requests = bodies
            .into_iter()
            .map(|body| leader.ingest("d", "wide", options, body));
        for receipt in futures::future::try_join_all(requests).await? {
            assert_eq!(receipt["rows"].as_u64(), Some(rows), "{receipt}");
        }
        let all = i64::try_from(ingests * rows)?;
        assert_eq!(leader.count("d", "SELECT count(*) FROM wide").await?, all);
        let numbers = "SELECT count(DISTINCT n) FROM wide";
        assert_eq!(leader.count("d", numbers).await?, i64::try_from(ingests)?);
        ensure!(files(site)? > 0, "there is a file");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a39_streamed_rows_come_back_with_a_dropped_table() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        stream(&leader, 7, "").await?;
        let dropped = leader.sql("d", "DROP TABLE t").await?.version()?;
        let undo = format!(".undo drop table t version={dropped}");
        leader.command("d", &undo).await?;
        assert_eq!(leader.count("d", "SELECT sum(n) FROM t").await?, 7);
        leader.sql("d", "DELETE FROM t WHERE n = 7").await?;
        assert_eq!(leader.count("d", "SELECT count(*) FROM t").await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a39_streamed_rows_are_moved_and_replaced_as_others_are() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        leader.sql("d", "CREATE TABLE u (n BIGINT)").await?;
        let follower = site.follower("follower", &leader).await?;
        follower.attach(&leader, "d").await?;
        let mut sums = Vec::new();
        let note = async |sum: i64| {
            let version = leader.sql("d", "SELECT 1").await?.version()?;
            Ok::<_, anyhow::Error>((version, sum))
        };
        stream(&leader, 1, "").await?;
        stream(&leader, 2, "").await?;
        sums.push(note(3_000).await?);
        leader
            .command("d", ".move extents all from table t to table u")
            .await?;
        sums.push(note(3).await?);
        stream(&leader, 4, "").await?;
        sums.push(note(4_003).await?);
        let replace = ".replace extents in table u <| \
             {.show table u extents}, {.show table t extents}";
        leader.command("d", replace).await?;
        sums.push(note(4).await?);
        moved(site).await?;
        sums.push(note(4).await?);
        for (version, sum) in sums {
            follower.wait_for_version("d", version).await?;
            let then = format!(
                "SELECT (SELECT coalesce(sum(n), 0) FROM t FOR VERSION AS OF {version}) * 1000 \
                 + (SELECT coalesce(sum(n), 0) FROM u FOR VERSION AS OF {version})"
            );
            for node in [&leader, &follower] {
                assert_eq!(node.count("d", &then).await?, sum, "at version {version}");
            }
        }
        Ok(())
    })
    .await
}
