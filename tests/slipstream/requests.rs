//! What a query costs in requests to the store: object stores bill them, and each takes tens of
//! milliseconds.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Node, Site, Store};

/// Extents of the table; each holds the rows of one day.
const DAYS: u64 = 6;
const ROWS_A_DAY: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn statistics_answer_without_a_request_and_scans_neither_list_nor_head() -> Result<()> {
    Site::run(Store::Moto, async |site| {
        let leader = site.leader("leader").await?;
        let follower = follower_of_days(site, &leader).await?;
        for sql in [
            "SELECT count(*) FROM days",
            "SELECT min(n), max(n), min(at), max(at) FROM days",
            "SELECT count(*) AS rows, min(at) AS first FROM days",
            "SELECT count(word) FROM days",
        ] {
            let lines = requests_of(site, &follower, sql).await?;
            assert_eq!(extents(&lines), BTreeSet::new(), "{sql}: {lines:#?}");
            no_list_and_no_head(sql, &lines)?;
        }
        for sql in [
            "SELECT sum(n) FROM days",
            "SELECT * FROM days ORDER BY at",
            "SELECT word, count(*) FROM days GROUP BY word",
            "SELECT count(*) FROM days AS a JOIN days AS b ON a.n = b.n WHERE a.word = 'even'",
        ] {
            let lines = requests_of(site, &follower, sql).await?;
            no_list_and_no_head(sql, &lines)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_query_reads_only_the_extents_that_can_match() -> Result<()> {
    Site::run(Store::Moto, async |site| {
        let leader = site.leader("leader").await?;
        let follower = follower_of_days(site, &leader).await?;
        let everything = requests_of(site, &follower, "SELECT sum(n + 1) FROM days").await?;
        assert_eq!(extents(&everything).len() as u64, DAYS, "{everything:#?}");
        let sql = "SELECT sum(n + 2) FROM days \
            WHERE at >= '2024-01-03T00:00:00Z' AND at < '2024-01-05T00:00:00Z'";
        let two_days = requests_of(site, &follower, sql).await?;
        assert_eq!(extents(&two_days).len(), 2, "{two_days:#?}");
        let nothing = "SELECT sum(n) FROM days WHERE at > '2030-01-01T00:00:00Z'";
        let none = requests_of(site, &follower, nothing).await?;
        assert_eq!(extents(&none).len(), 0, "{none:#?}");
        // Footers are kept: the same query again makes fewer requests than the first time.
        let again = requests_of(site, &follower, "SELECT sum(n + 1) FROM days").await?;
        ensure!(
            again.len() < everything.len(),
            "{} requests, then {}",
            everything.len(),
            again.len()
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_counts_its_own_requests() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let follower = follower_of_days(site, &leader).await?;
        let count = async |operation: &str| {
            let label = format!("operation=\"{operation}\"");
            follower
                .metric("slipstream_store_requests_total", &label)
                .await
        };
        let before = (
            count("get").await?,
            count("head").await?,
            count("list").await?,
        );
        assert_eq!(follower.count("d", "SELECT count(*) FROM days").await?, 300);
        let counted = (
            count("get").await?,
            count("head").await?,
            count("list").await?,
        );
        assert_eq!(counted, before, "count(*) makes no request of any kind");
        follower.sql("d", "SELECT sum(n) FROM days").await?;
        let scanned = (
            count("get").await?,
            count("head").await?,
            count("list").await?,
        );
        ensure!(
            scanned.0 >= before.0 + DAYS,
            "a scan reads each extent: {scanned:?}"
        );
        assert_eq!(
            (scanned.1, scanned.2),
            (before.1, before.2),
            "no HEAD and no LIST"
        );
        for operation in ["put", "delete"] {
            assert_eq!(
                count(operation).await?,
                0,
                "a follower never asks for a {operation}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a66_an_answer_says_what_it_cost_of_each_table() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let follower = follower_of_days(site, &leader).await?;
        let ask = follower
            .ask("d", "SELECT sum(n + 3) AS total FROM days")
            .with("statistics", json!(true));
        let answer = ask.clone().body("application/json").await?;
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["rows"][0]["total"].as_i64() > Some(0), "{answer}");
        let cost = &answer["statistics"];
        assert_eq!(cost["rows"], 1, "{answer}");
        let of_table = &cost["tables"]["d.days"];
        assert_eq!(of_table["extentsScanned"], DAYS, "{answer}");
        ensure!(of_table["requests"].as_u64() >= Some(DAYS), "{answer}");
        ensure!(of_table["coldMissBytes"].as_u64() > Some(0), "{answer}");
        assert_eq!(of_table["hotHitBytes"], 0, "there is no cache: {answer}");
        assert_eq!(&cost["reads"], of_table, "nothing else was read");
        // Who asks for Arrow and does not read on has the rows as ever.
        let (_, batches) = ask.arrow().await?;
        assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
        // What it cost is what the next estimate is made of.
        let sql = "EXPLAIN SELECT sum(n + 3) AS total FROM days";
        let explained = follower.sql("d", sql).await?.text();
        ensure!(explained.contains("measured"), "{explained}");
        Ok(())
    })
    .await
}

/// A follower of a table with one extent a day.
async fn follower_of_days(site: &Site, leader: &Node) -> Result<Node> {
    leader.create_database("d").await?;
    let mut version = 0;
    for day in 1..=DAYS {
        let mut csv = String::from("at,n,word\n");
        for row in 0..ROWS_A_DAY {
            let n = day * 1000 + row;
            let word = if row % 2 == 0 { "even" } else { "NA" };
            writeln!(csv, "2024-01-{day:02}T12:{row:02}:00Z,{n},{word}")?;
        }
        let receipt = leader
            .ingest("d", "days", "format=csv&create=true", csv)
            .await?;
        version = receipt["version"].as_u64().unwrap_or_default();
    }
    let follower = site.follower("follower", leader).await?;
    follower.attach(leader, "d").await?;
    follower.wait_for_version("d", version).await?;
    Ok(follower)
}

/// What the store was asked while a query ran.
async fn requests_of(site: &Site, node: &Node, sql: &str) -> Result<Vec<String>> {
    let recorder = site.requests()?;
    recorder.clear();
    node.sql("d", sql).await?;
    Ok(recorder.lines())
}

/// The extents that were asked for.
fn extents(lines: &[String]) -> BTreeSet<String> {
    let paths = lines.iter().filter_map(|line| line.split(' ').nth(1));
    paths
        .filter(|path| path.contains("/extents/"))
        .map(str::to_owned)
        .collect()
}

fn no_list_and_no_head(sql: &str, lines: &[String]) -> Result<()> {
    for line in lines {
        ensure!(!line.starts_with("HEAD "), "{sql}: {line}");
        ensure!(!line.contains("list-type="), "{sql}: {line}");
    }
    Ok(())
}
