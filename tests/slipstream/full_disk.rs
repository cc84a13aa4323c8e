//! The disk that the bucket stands on is full.

use std::fmt::Write;

use anyhow::{Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Disk, Site, Store};

/// Size of the disk, and of the file that fills most of it.
const DISK_MEBIBYTES: usize = 8;
const FILLER_MEBIBYTES: usize = 6;
/// Rows of two random numbers: several mebibytes that do not compress.
const ROWS: usize = 200_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_the_ingest_and_loses_nothing() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let bucket = site.bucket_directory();
        std::fs::create_dir(&bucket)?;
        let Some(_disk) = Disk::small(&bucket, DISK_MEBIBYTES)? else {
            return Ok(());
        };
        let mut leader = site.leader("leader").await?;
        leader.create_database("d").await?;
        leader
            .sql("d", "CREATE TABLE t (a BIGINT, b BIGINT)")
            .await?;
        leader.ingest("d", "t", "format=csv", "a,b\n1,2\n").await?;
        let filler = bucket.join("filler");
        std::fs::write(&filler, vec![0; FILLER_MEBIBYTES << 20])?;

        let refused = leader
            .ingest_refused("d", "t", "format=csv", random_rows()?)
            .await?;
        ensure!(refused.status >= 500, "{refused}");
        ensure!(
            refused.message.contains("space"),
            "says what is missing: {refused}"
        );
        leader.ensure_alive()?;
        assert_eq!(leader.count("d", "SELECT count(*) FROM t").await?, 1);

        std::fs::remove_file(&filler)?;
        leader.ingest("d", "t", "format=csv", "a,b\n3,4\n").await?;
        leader.kill()?;
        leader.restart().await?;
        leader.wait_ready().await?;
        assert_eq!(leader.count("d", "SELECT sum(a) FROM t").await?, 4);
        leader.kill()
    })
    .await
}

fn random_rows() -> Result<String> {
    let mut random = SmallRng::seed_from_u64(8);
    let mut csv = String::from("a,b\n");
    for _ in 0..ROWS {
        writeln!(csv, "{},{}", random.random::<i64>(), random.random::<i64>())?;
    }
    Ok(csv)
}
