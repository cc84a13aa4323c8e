//! The example of *Use follower database feature to share databases*: thirty days at the leader,
//! for monthly analytics, and three days on a follower, for troubles of late.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use slipstream_kusto::parse_datetime;

use super::{cache_becomes, cache_of, cached_follower, extents_on_disk, extents_since, hot_files};
use crate::cluster::{Node, Site, Store};

/// Ages of the extents, in days: within three, within thirty, and older.
const AGES: [i64; 5] = [1, 2, 5, 20, 40];
/// Rows of each.
const ROWS: i64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a23_a55_a58_a66_thirty_days_at_the_leader_and_three_on_the_follower() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        thirty_days_and_three(site).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_an_object_store_where_others_count_the_requests() -> Result<()> {
    Site::run(Store::Moto, async |site| thirty_days_and_three(site).await).await
}

async fn thirty_days_and_three(site: &Site) -> Result<()> {
    let leader = site.leader("north").await?;
    leader.create_database("d").await?;
    for age in AGES {
        let at = days_ago(age)?;
        let rows: String = (0..ROWS).map(|n| format!("{at},{age},{n}\n")).collect();
        let options = format!("format=csv&create=true&creation_time={at}");
        leader
            .ingest("d", "visits", &options, format!("at,age,n\n{rows}"))
            .await?;
    }
    leader
        .command("d", ".alter database d policy caching hot = 30d")
        .await?;
    let follower = cached_follower(site, &leader).await?;
    // Until it has a policy of its own, the leader's holds.
    cache_becomes(&follower, "thirty days are here", |cache| {
        cache["EncodedExtents"] == 4
    })
    .await?;
    numbers_and_files_say(&follower, 30).await?;

    follower
        .command("d", ".alter follower database d policy caching hot = 3d")
        .await?;
    cache_becomes(&follower, "three days are here", |cache| {
        cache["ResidentExtents"] == 2
    })
    .await?;
    numbers_and_files_say(&follower, 3).await?;
    policies_say(&leader, &follower).await?;
    queries_ask_the_bucket_for_what_is_old_alone(site, &follower).await?;

    follower
        .command("d", ".delete follower database d policy caching")
        .await?;
    cache_becomes(&follower, "thirty days are here again", |cache| {
        cache["EncodedExtents"] == 4
    })
    .await?;
    numbers_and_files_say(&follower, 30).await
}

/// A moment so many days ago, in whole seconds, as RFC 3339 has it.
fn days_ago(days: i64) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let then = now - u64::try_from(days)? * 86_400;
    let epoch = parse_datetime("1970-01-01").context("a moment")?;
    Ok(epoch.plus(Duration::from_secs(then)).to_string())
}

/// `.show cache`, the files on the disk and a policy of so many days agree.
async fn numbers_and_files_say(follower: &Node, days: i64) -> Result<()> {
    let hot = extents_since(follower, "d", "visits", &days_ago(days)?).await?;
    assert_eq!(extents_on_disk(follower)?, hot, "{days} days");
    let mut bytes = 0;
    for file in hot_files(follower)? {
        bytes += std::fs::metadata(file)?.len();
    }
    let shown = cache_of(follower, "visits").await?;
    for (column, expected) in [
        ("HotExtents", hot.len() as u64),
        ("ResidentExtents", hot.len() as u64),
        ("HotBytes", bytes),
        ("ResidentBytes", bytes),
    ] {
        assert_eq!(shown[column], expected, "{column}, {days} days: {shown}");
    }
    Ok(())
}

/// Each side has its own policy, and the leader has nothing of the other's, nor a cache.
async fn policies_say(leader: &Node, follower: &Node) -> Result<()> {
    let hot = ".show table visits extents hot";
    assert_eq!(leader.command("d", hot).await?.len(), 4);
    assert_eq!(follower.command("d", hot).await?.len(), 2);
    let of_leader = leader
        .command("d", ".show database d policy caching")
        .await?;
    let has = |value: &Value, span: &str| {
        let span = format!("\"DataHotSpan\":\"{span}\"");
        value.as_str().is_some_and(|text| text.contains(&span))
    };
    ensure!(has(&of_leader[0]["Policy"], "30.00:00:00"), "{of_leader:?}");
    assert_eq!(leader.command("d", ".show cache").await?.len(), 0);
    ensure!(!leader.data_directory().join("cache").exists());

    let here = follower
        .command("d", ".show effective policy caching table visits")
        .await?;
    let here = here.first().context("a row")?;
    assert_eq!(here["Source"], "DatabaseOverride");
    ensure!(has(&here["EffectivePolicy"], "3.00:00:00"), "{here}");
    ensure!(has(&here["LeaderDatabasePolicy"], "30.00:00:00"), "{here}");
    Ok(())
}

async fn queries_ask_the_bucket_for_what_is_old_alone(site: &Site, follower: &Node) -> Result<()> {
    let since = days_ago(3)?;
    let all = "SELECT sum(age + n) AS s FROM visits";
    let recent = format!("{all} WHERE at >= '{since}'");
    let old = format!("{all} WHERE at < '{since}'");

    let asked = ask(site, follower, &recent).await?;
    assert_eq!(asked.answer, sum(&AGES[..2]));
    assert_eq!(asked.requests, 0, "{asked:?}");
    assert_eq!(asked.recorded.unwrap_or(0), 0, "{asked:?}");
    assert_eq!(asked.told("requests"), Some(0), "{asked:?}");
    assert_eq!(asked.told("extentsScanned"), Some(2), "{asked:?}");
    ensure!(asked.told("hotHitBytes") > Some(0), "{asked:?}");
    for column in ["hotMissBytes", "coldHitBytes", "coldMissBytes"] {
        assert_eq!(asked.told(column), Some(0), "{column}: {asked:?}");
    }

    let asked = ask(site, follower, &old).await?;
    assert_eq!(asked.answer, sum(&AGES[2..]));
    // Of each of the three extents at least one.
    ensure!(asked.requests >= 3, "{asked:?}");
    ensure!(asked.told("requests") >= Some(3), "{asked:?}");
    ensure!(
        asked.recorded.is_none() || asked.recorded == asked.told("requests"),
        "what it says that it asked for is what it asked for: {asked:?}"
    );
    assert_eq!(asked.told("extentsScanned"), Some(3), "{asked:?}");
    ensure!(asked.told("coldMissBytes") > Some(0), "{asked:?}");
    for column in ["hotHitBytes", "hotMissBytes"] {
        assert_eq!(asked.told(column), Some(0), "{column}: {asked:?}");
    }

    assert_eq!(ask(site, follower, all).await?.answer, sum(&AGES));
    let near = follower
        .ask("d", all)
        .with("query_datascope", json!("hotcache"));
    assert_eq!(near.send().await?.count()?, sum(&AGES[..2]));
    Ok(())
}

/// The sum of `age + n` over the extents of those ages.
fn sum(ages: &[i64]) -> i64 {
    let of_rows = ROWS * (ROWS - 1) / 2;
    ages.iter().map(|age| ROWS * age + of_rows).sum()
}

/// A query's answer, and what it asked of the bucket.
#[derive(Debug)]
struct Asked {
    answer: i64,
    /// By the node's own meter.
    requests: u64,
    /// By who stands between node and store, when somebody does: requests for extents.
    recorded: Option<u64>,
    /// By the answer itself.
    statistics: Value,
}

impl Asked {
    /// What the answer says of its table.
    fn told(&self, column: &str) -> Option<u64> {
        self.statistics["tables"]["d.visits"][column].as_u64()
    }
}

async fn ask(site: &Site, follower: &Node, sql: &str) -> Result<Asked> {
    let gets = async || {
        let label = "operation=\"get\"";
        follower
            .metric("slipstream_store_requests_total", label)
            .await
    };
    // Only a store that is asked over the network has somebody in between.
    let recorder = site.requests().ok();
    if let Some(recorder) = recorder {
        recorder.clear();
    }
    let before = gets().await?;
    let request = json!({"database": "d", "sql": sql, "statistics": true});
    let (status, mut answer) = follower.post_json("/v1/sql", &request).await?;
    ensure!(status == 200, "{sql}: {status} {answer}");
    let requests = gets().await? - before;
    let recorded = recorder.map(|recorder| {
        let lines = recorder.lines();
        let of_extents = lines.iter().filter(|line| line.contains("/extents/"));
        of_extents.count() as u64
    });
    let sum = answer["rows"][0]["s"].as_i64();
    Ok(Asked {
        answer: sum.with_context(|| format!("no sum: {answer}"))?,
        requests,
        recorded,
        statistics: answer["statistics"].take(),
    })
}
