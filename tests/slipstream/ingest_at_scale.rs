//! Many writers, and writers that try again: each ingest is there once, and small ones share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use futures::stream;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use crate::cluster::{Client, Node, Site, Store, eventually, program};
use crate::types::small_batch;

/// Clients that send the same, or small, ingests at one time.
const WRITERS: i64 = 20;
/// Small ingests of all of them.
const INGESTS: i64 = 200;
/// How often the leader is killed when `SLIPSTREAM_CRASH_ROUNDS` does not say.
const ROUNDS: u64 = 6;
/// Longest time between the start of a round's ingests and the kill.
const ROUND_MILLISECONDS_MAX: u64 = 400;

/// What turns merging off, so that extents are counted as they were written.
const OFF: &str =
    r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;

/// A leader with a database `d` and an empty table `t`.
async fn leader(site: &Site) -> Result<Node> {
    let leader = site.leader("leader").await?;
    leader.create_database("d").await?;
    leader.command("d", OFF).await?;
    let create = "CREATE TABLE t (writer BIGINT NOT NULL, n BIGINT)";
    leader.sql("d", create).await?;
    Ok(leader)
}

fn number(value: &Value, field: &str) -> Result<u64> {
    let number = value[field].as_u64();
    number.with_context(|| format!("{field} of {value}"))
}

async fn extents(node: &Client) -> Result<usize> {
    Ok(node.command("d", ".show table t extents").await?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a63_ingests_that_race_with_one_tag_are_committed_once() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        for round in 0..5_i64 {
            let mut racing = JoinSet::new();
            for writer in 0..WRITERS {
                let client = (*leader).clone();
                let options = format!(
                    "format=csv&tag=ingest-by:r{round}&tag=drop-by:r&ingest_if_not_exists=r{round}"
                );
                let rows = format!("writer,n\n{writer},{round}\n");
                racing.spawn(async move { client.ingest("d", "t", &options, rows).await });
            }
            let (mut winners, mut skipped) = (Vec::new(), Vec::new());
            while let Some(receipt) = racing.join_next().await {
                let receipt = receipt??;
                if receipt["skipped"].is_null() {
                    winners.push(receipt);
                } else {
                    skipped.push(receipt);
                }
            }
            let [winner] = winners.as_slice() else {
                anyhow::bail!("{} ingests were committed: {winners:?}", winners.len());
            };
            assert_eq!(winner["rows"], 1);
            for receipt in &skipped {
                assert_eq!(receipt["skipped"], "tag_exists");
                assert_eq!(receipt["rows"], 0);
                // At the version that is answered, the rows are there.
                ensure!(number(receipt, "version")? >= number(winner, "version")?);
            }
        }
        assert_eq!(leader.count("d", "SELECT count(n) FROM t").await?, 5);

        // One known tag of several is enough, another one is none, and one that left is none.
        let sent = async |options: &str| {
            let options = format!("format=csv&{options}");
            leader.ingest("d", "t", &options, "writer,n\n0,100\n").await
        };
        let both = "ingest_if_not_exists=new&ingest_if_not_exists=r1";
        assert_eq!(sent(both).await?["skipped"], "tag_exists");
        assert!(sent("ingest_if_not_exists=new").await?["skipped"].is_null());
        let drop = ".drop extents <| .show table t extents where tags has 'ingest-by:r1'";
        leader.command("d", drop).await?;
        let again = sent("tag=ingest-by:r1&ingest_if_not_exists=r1").await?;
        assert!(again["skipped"].is_null(), "{again}");
        assert_eq!(sent(both).await?["skipped"], "tag_exists");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a63_every_door_takes_ingest_by_tags_and_ids() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        let policy = r#"{"MaximumBatchingTimeSpan": "00:00:01"}"#;
        let alter = format!(".alter database d policy ingestionbatching '{policy}'");
        leader.command("d", &alter).await?;

        // Kusto's REST.
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("{}/v1/rest/ingest/d/t", leader.http_url());
        for (skipped, rows) in [(Value::Null, 1), ("tag_exists".into(), 0)] {
            let query = [
                ("streamFormat", "Csv"),
                ("tags", r#"["ingest-by:k", "x"]"#),
                ("ingestIfNotExists", r#"["k"]"#),
            ];
            let request = http.post(&url).query(&query).body("1,1\n");
            let answer: Value = request.send().await?.error_for_status()?.json().await?;
            let row = &answer["Tables"][0]["Rows"][0];
            assert_eq!(row[2], rows, "{answer}");
            assert_eq!(row[3], skipped, "{answer}");
        }

        let blob = http
            .post(&url)
            .query(&[("sourceKind", "uri")])
            .body("1,1\n");
        assert_eq!(blob.send().await?.status(), 400);
        // Kusto's clients take 404 for streaming that is not enabled.
        let missing = http.post(url.replace("/d/t", "/d/misspelt")).body("1,1\n");
        let missing = missing.send().await?;
        assert_eq!(missing.status(), 400);
        let missing: Value = missing.json().await?;
        assert_eq!(missing["error"]["code"], "table_not_found", "{missing}");
        // What means null in other files is a text here.
        leader
            .sql("d", "CREATE TABLE codes (code TEXT, name TEXT)")
            .await?;
        let codes = http
            .post(url.replace("/d/t", "/d/codes"))
            .body("NA,Namibia\n,\n");
        codes.send().await?.error_for_status()?;
        let known = "SELECT count(*) FROM codes WHERE code = 'NA'";
        assert_eq!(leader.count("d", known).await?, 1);
        assert_eq!(leader.count("d", "SELECT count(code) FROM codes").await?, 1);

        // Flight.
        let channel = Endpoint::from_shared(leader.grpc_url())?.connect().await?;
        let mut flight = FlightSqlServiceClient::new(channel);
        flight.set_header("database", "d");
        flight.set_header("slipstream-tag", "ingest-by:f");
        flight.set_header("slipstream-ingest-if-not-exists", "f");
        let batch = small_batch(10)?;
        // The second is the first once more; the third is another one, with the same tag.
        for (id, rows) in [("first", 10), ("first", 10), ("other", 0)] {
            flight.set_header("slipstream-ingest-id", id);
            let command = CommandStatementIngest {
                table_definition_options: Some(TableDefinitionOptions {
                    if_not_exist: TableNotExistOption::Create.into(),
                    if_exists: TableExistsOption::Append.into(),
                }),
                table: "item".to_owned(),
                ..Default::default()
            };
            let batches = stream::iter(vec![Ok(batch.clone())]);
            assert_eq!(flight.execute_ingest(command, batches).await?, rows, "{id}");
        }
        assert_eq!(leader.count("d", "SELECT count(*) FROM item").await?, 10);

        // The command line.
        let file = site.path().join("rows.csv");
        std::fs::write(&file, "writer,n\n7,7\n")?;
        let run = |options: &[&str]| -> Result<Value> {
            let output = program()
                .args(["ingest", "--url", &leader.http_url()])
                .args(["-d", "d", "-t", "t", "--json"])
                .args(options)
                .arg(&file)
                .output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{options:?}: {errors}");
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        let once = ["--tag", "ingest-by:c", "--ingest-if-not-exists", "c"];
        assert!(run(&once)?["skipped"].is_null());
        assert_eq!(run(&once)?["skipped"], "tag_exists");
        let named = ["--ingest-id", "mine"];
        let first = run(&named)?;
        // Without a name, each call is an ingest of its own.
        run(&[])?;
        let second = run(&named)?;
        assert_eq!(second["skipped"], "ingested_before");
        assert_eq!(first["version"], second["version"]);
        assert_eq!(first["digest"], second["digest"]);
        run(&["--queued"])?;
        let sevens = "SELECT count(*) FROM t WHERE writer = 7";
        assert_eq!(leader.count("d", sevens).await?, 4);

        let refused = leader.ingest_refused("d", "t", "format=csv&ingest_id=a%20b", "writer\n1\n");
        assert_eq!(refused.await?.code, "invalid_argument");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_is_sent_again_after_a_kill_is_committed_once() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let rounds = match std::env::var("SLIPSTREAM_CRASH_ROUNDS") {
            Ok(text) => text.parse().context("SLIPSTREAM_CRASH_ROUNDS")?,
            Err(_) => ROUNDS,
        };
        let mut leader = leader(site).await?;
        let mut random = SmallRng::seed_from_u64(20_131_226);
        let mut sent = BTreeSet::new();
        let mut repeated = 0;
        for round in 0..i64::try_from(rounds)? {
            let mut writers = JoinSet::new();
            let acknowledged = Arc::<AtomicU64>::default();
            for writer in 0..WRITERS {
                let acknowledged = Arc::clone(&acknowledged);
                let client = (*leader).clone();
                writers.spawn(send_until_it_fails(client, writer, round, acknowledged));
            }
            // Every second round has answers, however slow the machine is.
            if round % 2 == 1 {
                eventually("an ingest is acknowledged", async || {
                    Ok(acknowledged.load(Ordering::SeqCst) > 0)
                })
                .await?;
            }
            let moment = random.random_range(0..ROUND_MILLISECONDS_MAX);
            tokio::time::sleep(Duration::from_millis(moment)).await;
            leader.kill()?;
            let mut answers = BTreeMap::new();
            while let Some(outcome) = writers.join_next().await {
                for (id, version) in outcome? {
                    answers.insert(id, version);
                }
            }
            leader.restart().await?;
            leader.wait_ready().await?;
            // Those that had an answer have the same again; the others have one now.
            for (id, version) in answers {
                let receipt = send(&leader, &id).await?;
                let again = number(&receipt, "version")?;
                ensure!(
                    version.is_none_or(|version| version == again),
                    "{id} was acknowledged at {version:?}, and then at {again}"
                );
                if version.is_some() {
                    assert_eq!(receipt["skipped"], "ingested_before", "{id}");
                    repeated += 1;
                }
                assert_eq!(receipt["rows"], 1, "{id}");
                ensure!(sent.insert(id), "each id is used once");
            }
        }
        ensure!(repeated > 0, "nothing was acknowledged before a kill");
        let whole = "SELECT count(*) * 1000000 + count(DISTINCT n) FROM t";
        let rows = i64::try_from(sent.len())?;
        assert_eq!(leader.count("d", whole).await?, rows * 1_000_001);
        Ok(())
    })
    .await
}

/// Sends ingests one after another; gives their ids, with versions where there was an answer.
async fn send_until_it_fails(
    client: Client,
    writer: i64,
    round: i64,
    acknowledged: Arc<AtomicU64>,
) -> Vec<(String, Option<u64>)> {
    let mut sent = Vec::new();
    for number in 0.. {
        let id = (round * WRITERS + writer) * 10_000 + number;
        let id = id.to_string();
        let receipt = send(&client, &id).await.ok();
        let version = receipt.and_then(|receipt| receipt["version"].as_u64());
        sent.push((id, version));
        if version.is_none() {
            break;
        }
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    sent
}

/// One row, which has the id as its number.
async fn send(client: &Client, id: &str) -> Result<Value> {
    let options = format!("format=csv&ingest_id={id}");
    client
        .ingest("d", "t", &options, format!("writer,n\n0,{id}\n"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn small_queued_ingests_share_extents_and_a_bad_one_fails_alone() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        let policy = r#"{"MaximumBatchingTimeSpan": "00:00:02", "MaximumNumberOfItems": 20}"#;
        let alter = format!(".alter table t policy ingestionbatching '{policy}'");
        leader.command("d", &alter).await?;
        let before = leader.sql("d", "SELECT 1").await?.version()?;

        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let client = (*leader).clone();
            writers.spawn(async move {
                for round in 0..INGESTS / WRITERS {
                    if writer == 3 && round == 4 {
                        // It waits with others, or does not fit the table: both are its own fault.
                        for bad in ["writer,n\n3,soon\n", "n\n77\n"] {
                            let options = "format=csv&queued=true";
                            let refused = client.ingest_refused("d", "t", options, bad).await?;
                            ensure!(refused.status == 400, "{refused:?}");
                        }
                    }
                    let n = round * WRITERS + writer;
                    let options = format!("format=csv&queued=true&ingest_id=q{n}");
                    let rows = format!("writer,n\n{writer},{n}\n");
                    let receipt = client.ingest("d", "t", &options, rows).await?;
                    ensure!(
                        receipt["rows"] == 1 && receipt["bad_rows"] == 0,
                        "{receipt}"
                    );
                    // Acknowledged means there.
                    let own = format!("SELECT count(*) FROM t WHERE n = {n}");
                    ensure!(client.count("d", &own).await? == 1, "{n} is not there");
                }
                anyhow::Ok(())
            });
        }
        while let Some(written) = writers.join_next().await {
            written??;
        }

        let whole = "SELECT count(*) * 1000000 + count(DISTINCT n) FROM t";
        assert_eq!(leader.count("d", whole).await?, INGESTS * 1_000_001);
        let commits = leader.sql("d", "SELECT 1").await?.version()? - before;
        let extents = extents(&leader).await?;
        ensure!(
            commits <= 40 && extents <= 40,
            "{commits} commits, {extents} extents"
        );
        let queued = leader.metric("slipstream_queued_ingests_total", "").await?;
        assert_eq!(i64::try_from(queued)?, INGESTS);

        // What is sent again is known, in the queue too.
        let options = "format=csv&queued=true&ingest_id=q7";
        let again = leader.ingest("d", "t", options, "writer,n\n7,7\n").await?;
        assert_eq!(again["skipped"], "ingested_before");
        assert_eq!(again["rows"], 1);
        eprintln!("{INGESTS} queued ingests: {commits} commits, {extents} extents");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_queue_is_written_when_the_leader_stops() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site).await?;
        let policy = r#"{"MaximumBatchingTimeSpan": "00:20:00"}"#;
        let alter = format!(".alter database d policy ingestionbatching '{policy}'");
        leader.command("d", &alter).await?;
        let mut writers = JoinSet::new();
        for writer in 0..3_i64 {
            let client = (*leader).clone();
            // The second and the third are one, sent twice while it waits.
            let options = format!("format=csv&queued=true&ingest_id=w{}", writer.min(1));
            let rows = format!("writer,n\n{writer},1\n");
            writers.spawn(async move { client.ingest("d", "t", &options, rows).await });
        }
        eventually("they wait", async || {
            let queued = leader.metric("slipstream_queued_ingests_total", "").await;
            Ok(queued.is_ok_and(|queued| queued == 3))
        })
        .await?;
        assert_eq!(leader.count("d", "SELECT count(*) FROM t").await?, 0);
        // A direct ingest does not wait for them.
        let direct = leader.ingest("d", "t", "format=csv", "writer,n\n9,10\n");
        direct.await?;

        let began = Instant::now();
        ensure!(leader.terminate().await?.success(), "it stops well");
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "it does not wait"
        );
        let mut versions = BTreeSet::new();
        while let Some(receipt) = writers.join_next().await {
            versions.insert(number(&receipt??, "version")?);
        }
        assert_eq!(versions.len(), 1, "one commit for all");
        leader.restart().await?;
        leader.wait_ready().await?;
        let rows = "SELECT count(*) * 100 + sum(n) FROM t";
        assert_eq!(leader.count("d", rows).await?, 312);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_batching_policy_is_set_as_a_whole_or_in_part_and_followed() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        let follower = site.follower("follower", &leader).await?;
        follower.attach(&leader, "d").await?;
        let shown = async |node: &Node, of: &str| -> Result<Value> {
            let command = format!(".show {of} policy ingestionbatching");
            let rows = node.command("d", &command).await?;
            assert_eq!(rows[0]["PolicyName"], "IngestionBatchingPolicy");
            let policy = rows[0]["Policy"].as_str().context("a policy")?;
            Ok(serde_json::from_str(policy)?)
        };
        assert_eq!(shown(&leader, "table t").await?, Value::Null);
        for command in [
            r#".alter table t policy ingestionbatching '{"MaximumBatchingTimeSpan": "00:00:30"}'"#,
            r#".alter-merge table t policy ingestionbatching '{"MaximumNumberOfItems": 9}'"#,
            r#".alter database d policy ingestionbatching '{"MaximumRawDataSizeMB": 300}'"#,
        ] {
            leader.command("d", command).await?;
        }
        let version = leader.sql("d", "SELECT 1").await?.version()?;
        follower.wait_for_version("d", version).await?;
        for node in [&leader, &follower] {
            let table = shown(node, "table t").await?;
            assert_eq!(table["MaximumBatchingTimeSpan"], "00:00:30");
            assert_eq!(table["MaximumNumberOfItems"], 9);
            assert_eq!(table["MaximumRawDataSizeMB"], 1_024);
            let database = shown(node, "database d").await?;
            assert_eq!(database["MaximumBatchingTimeSpan"], "00:00:10");
            assert_eq!(database["MaximumRawDataSizeMB"], 300);
        }
        for wrong in [
            r#"{"MaximumBatchingTimeSpan": "01:00:00"}"#,
            r#"{"MaximumNumberOfItems": 0}"#,
            r#"{"MaximumItems": 5}"#,
            "[]",
        ] {
            let command = format!(".alter table t policy ingestionbatching '{wrong}'");
            let refused = leader.command_refused("d", &command).await?;
            assert_eq!(refused.status, 400, "{wrong}: {refused:?}");
        }
        let delete = ".delete table t policy ingestionbatching";
        leader.command("d", delete).await?;
        assert_eq!(shown(&leader, "table t").await?, Value::Null);
        Ok(())
    })
    .await
}
