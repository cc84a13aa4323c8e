//! Money moves between two tables; readers must never see it on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Client, Site, Store};

/// What both tables hold together, always.
const TOTAL: i64 = 1_000_000;
/// Transfers of each teller.
const TRANSFERS: u64 = 60;
/// Tellers that write at the same time, so that transfers share commits.
const TELLERS: u64 = 3;

/// Both tables in one query; and the rows, to see that each transfer has two.
const READ: &str = "SELECT (SELECT sum(amount) FROM checking) + (SELECT sum(amount) FROM savings) \
    AS total, (SELECT count(*) FROM checking) - (SELECT count(*) FROM savings) AS difference";

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_sees_a_transfer_half_done_or_a_version_go_back() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        leader.create_database("bank").await?;
        let open = "CREATE TABLE checking (amount BIGINT); CREATE TABLE savings (amount BIGINT); \
            INSERT INTO checking VALUES (600000); INSERT INTO savings VALUES (400000)";
        leader.sql("bank", open).await?;
        let first = site.follower("first", &leader).await?;
        let second = site.follower("second", &leader).await?;
        first.attach(&leader, "bank").await?;
        second.attach(&leader, "bank").await?;

        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = [&leader, &first, &second]
            .into_iter()
            .map(|node| tokio::spawn(read_until((**node).clone(), Arc::clone(&done))))
            .collect();
        let tellers: Vec<_> = (0..TELLERS)
            .map(|seed| tokio::spawn(transfer((*leader).clone(), seed)))
            .collect();
        for teller in tellers {
            teller.await??;
        }
        let last = leader.sql("bank", "SELECT 1").await?.version()?;
        first.wait_for_version("bank", last).await?;
        second.wait_for_version("bank", last).await?;
        done.store(true, Ordering::Relaxed);
        for (name, reader) in ["the leader", "the first", "the second"]
            .iter()
            .zip(readers)
        {
            let (reads, versions) = reader.await?.context(*name)?;
            eprintln!("{name}: {reads} reads over {versions} versions");
            ensure!(
                versions > 3,
                "{name} saw {versions} versions: nothing was tested"
            );
        }
        let rows = format!("SELECT count(*) FROM checking WHERE amount <> {TOTAL}");
        let expected = i64::try_from(TELLERS * TRANSFERS)? + 1;
        assert_eq!(first.count("bank", &rows).await?, expected);
        Ok(())
    })
    .await
}

async fn transfer(client: Client, seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..TRANSFERS {
        let amount = random.random_range(-500..500);
        let sql = format!(
            "INSERT INTO checking VALUES ({amount}); INSERT INTO savings VALUES ({})",
            -amount
        );
        client.sql("bank", &sql).await?;
    }
    Ok(())
}

/// Reads in a loop; gives how often, and how many versions it saw.
async fn read_until(client: Client, done: Arc<AtomicBool>) -> Result<(u64, u64)> {
    let (mut reads, mut versions, mut last) = (0, 0, 0);
    while !done.load(Ordering::Relaxed) {
        let reply = client.sql("bank", READ).await?;
        let version = reply.version()?;
        let [row] = reply.rows.as_slice() else {
            anyhow::bail!("expected one row: {}", reply.text());
        };
        ensure!(
            row["total"] == TOTAL,
            "wrong sum at version {version}: {row:?}"
        );
        ensure!(
            row["difference"] == 0,
            "half a transfer at version {version}: {row:?}"
        );
        ensure!(
            version >= last,
            "the version went from {last} back to {version}"
        );
        versions += u64::from(version > last);
        last = version;
        reads += 1;
    }
    Ok((reads, versions))
}
