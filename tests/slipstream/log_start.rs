//! The beginning of a log goes when nobody can ask for what it leads to.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::{Node, Site, Store, eventually};
use crate::garbage;

/// More commits than leave together at least.
const COMMITS: u64 = 1_200;
/// Nothing more goes when nothing went for so long.
const DELETED_WITHIN: Duration = Duration::from_secs(1);
/// What the leader is started with: nothing is kept for its age.
const OPTIONS: [&str; 6] = [
    "--gc-grace",
    "0s",
    "--gc-interval",
    "1s",
    "--lease-ttl",
    "5s",
];

/// Makes so many commits; gives the newest version.
async fn commit(leader: &Node, commits: u64) -> Result<u64> {
    let mut version = 0;
    for number in 0..commits {
        let hot = format!(".alter table t policy caching hot = {}d", 1 + number % 30);
        leader.command("d", &hot).await?;
        version = leader.sql("d", "SELECT 1").await?.version()?;
    }
    Ok(version)
}

/// Numbers of the objects of a kind in the database's log.
fn objects(site: &Site, ending: &str) -> Result<Vec<u64>> {
    let folder = format!("{}/log", site.only_database_folder()?);
    let files = site.bucket_files(&folder)?.into_iter();
    let names = files.filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()));
    let mut numbers: Vec<u64> = names
        .filter_map(|name| name.strip_suffix(ending)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_loses_its_beginning_and_nobody_loses_a_version() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = garbage::leader(site, "north", &OPTIONS).await?;
        garbage::ingest(&leader, "t", "n\n1\n2\n").await?;
        let mut follower = site.follower("follower", &leader).await?;
        let away = site.follower("away", &leader).await?;
        for node in [&follower, &away] {
            node.attach(&leader, "d").await?;
        }
        let early = leader.sql("d", "SELECT 1").await?.version()?;
        leader
            .command("d", &format!(".pin database d version {early} as start"))
            .await?;
        away.wait_for_version("d", early).await?;
        // One is cut off for longer than its lease.
        away.signal("-STOP")?;
        let newest = commit(&leader, COMMITS).await?;
        tokio::time::sleep(Duration::from_secs(7)).await;
        ensure!(objects(site, ".start")?.is_empty(), "the pin keeps the log");

        leader.command("d", ".unpin database d start").await?;
        eventually("the log loses its beginning", async || {
            let before = objects(site, ".commit")?;
            tokio::time::sleep(DELETED_WITHIN).await;
            let kept = objects(site, ".commit")?;
            let is_cut = kept.get(1).is_some_and(|second| *second > COMMITS / 2);
            Ok(is_cut && kept == before)
        })
        .await?;
        ensure!(!objects(site, ".start")?.is_empty(), "it is said first");
        let kept = objects(site, ".commit")?;
        ensure!(kept[0] == 1, "the commit that opened the log stays");

        // Who was away reads on, and so does who comes new.
        away.signal("-CONT")?;
        follower.kill()?;
        follower.restart().await?;
        for node in [&away, &follower] {
            node.wait_for_version("d", newest).await?;
            assert_eq!(node.count("d", "SELECT sum(n) FROM t").await?, 3);
            let there = leader.sql("d", "SELECT 1").await?;
            eventually("they have the same", async || {
                let here = node.sql("d", "SELECT 1").await?;
                Ok(here.digest()? == there.digest()?)
            })
            .await?;
        }
        // Older versions end where the log begins.
        for node in [&leader, &away, &follower] {
            let gone = format!("SELECT sum(n) FROM t FOR VERSION AS OF {early}");
            let refused = node.refused("d", &gone).await?;
            assert_eq!(refused.code, "version_not_kept", "{refused}");
            ensure!(
                refused.message.contains("The oldest that can be read"),
                "{refused}"
            );
            let kept = format!("SELECT sum(n) FROM t FOR VERSION AS OF {}", kept[1]);
            assert_eq!(node.count("d", &kept).await?, 3);
        }
        // The next leader goes on at the end, with the checkpoint's hint or without.
        leader.kill()?;
        let hint = format!("{}/checkpoint/newest", site.only_database_folder()?);
        std::fs::remove_file(site.bucket_directory().join(hint))?;
        leader.restart().await?;
        leader.wait_ready().await?;
        garbage::ingest(&leader, "t", "n\n4\n").await?;
        let newest = leader.sql("d", "SELECT 1").await?.version()?;
        for node in [&away, &follower] {
            node.wait_for_version("d", newest).await?;
            assert_eq!(node.count("d", "SELECT sum(n) FROM t").await?, 7);
        }
        Ok(())
    })
    .await
}
