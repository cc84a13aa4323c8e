//! Two leaders at once.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use slipstream_catalog::Commit;

use crate::cluster::{ApiError, Client, Node, Site, Store, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn the_older_of_two_leaders_is_fenced_and_no_version_is_written_twice() -> Result<()> {
    Site::run(Store::Directory, two_leaders).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_of_two_leaders_is_fenced_on_s3() -> Result<()> {
    Site::run(Store::Moto, two_leaders).await
}

async fn two_leaders(site: &Site) -> Result<()> {
    let mut older = site.leader("leader").await?;
    older.create_database("d").await?;
    older
        .sql("d", "CREATE TABLE t (writer VARCHAR, n BIGINT)")
        .await?;
    let follower = site.follower("follower", &older).await?;
    follower.attach(&older, "d").await?;

    // The older one is writing while the newer one opens the database.
    let writing = tokio::spawn(insert_until_refused((*older).clone(), "older"));
    let first_seen = older.sql("d", "SELECT 1").await?.version()?;
    eventually("the older leader writes", async || {
        Ok(older.sql("d", "SELECT 1").await?.version()? > first_seen + 3)
    })
    .await?;
    let mut newer = site.start("leader", "leader", "newer", &[]).await?;
    newer.wait_ready().await?;
    let (refusal, mut versions) = writing.await??;
    assert_eq!(refusal.code, "fenced", "{refusal}");
    assert!(
        !versions.is_empty(),
        "the older leader wrote nothing: nothing was tested"
    );

    for n in 0..20 {
        let reply = newer
            .sql("d", &format!("INSERT INTO t VALUES ('newer', {n})"))
            .await?;
        let twice = versions.insert(reply.version()?, ("newer".to_owned(), n));
        assert_eq!(
            twice,
            None,
            "version {} was acknowledged twice",
            reply.version()?
        );
    }
    let refused = older
        .refused("d", "INSERT INTO t VALUES ('older', -1)")
        .await?;
    assert_eq!(refused.code, "fenced", "it stays fenced: {refused}");
    older.ensure_alive()?;
    everything_acknowledged_is_there(&newer, &versions).await?;

    // The follower knows only the older one's address; the bucket tells it the rest.
    let newest = newer.sql("d", "SELECT 1").await?;
    follower.wait_for_version("d", newest.version()?).await?;
    everything_acknowledged_is_there(&follower, &versions).await?;
    assert_eq!(
        follower.sql("d", "SELECT 1").await?.digest()?,
        newest.digest()?
    );
    newer.ensure_alive()?;
    if site.bucket().starts_with("file://") {
        the_log_is_one_chain(site)?;
    }
    Ok(())
}

/// Inserts one row after the other; gives the refusal, and what each acknowledged version holds.
async fn insert_until_refused(
    client: Client,
    writer: &str,
) -> Result<(ApiError, BTreeMap<u64, (String, i64)>)> {
    let mut versions = BTreeMap::new();
    for n in 0..100_000 {
        let sql = format!("INSERT INTO t VALUES ('{writer}', {n})");
        match client.ask("d", &sql).send().await {
            Ok(reply) => {
                let twice = versions.insert(reply.version()?, (writer.to_owned(), n));
                ensure!(
                    twice.is_none(),
                    "version {} was given twice",
                    reply.version()?
                );
            }
            Err(error) => return Ok((error.downcast()?, versions)),
        }
    }
    bail!("{writer} was never refused");
}

async fn everything_acknowledged_is_there(
    node: &Node,
    versions: &BTreeMap<u64, (String, i64)>,
) -> Result<()> {
    let reply = node
        .sql(
            "d",
            "SELECT writer, n, count(*) AS c FROM t GROUP BY writer, n",
        )
        .await?;
    let mut found = BTreeMap::new();
    for row in &reply.rows {
        let writer = row["writer"].as_str().context("writer")?.to_owned();
        ensure!(row["c"] == 1, "a row is there twice: {row:?}");
        found.insert((writer, row["n"].as_i64().context("n")?), ());
    }
    for row in versions.values() {
        ensure!(
            found.contains_key(row),
            "{row:?} was acknowledged and is not there"
        );
    }
    Ok(())
}

/// Numbers follow each other, epochs never go back.
fn the_log_is_one_chain(site: &Site) -> Result<()> {
    let log = site.bucket_files(&format!("{}/log", site.only_database_folder()?))?;
    let mut epoch = None;
    for (expected, path) in (1_u64..).zip(&log) {
        let name = path
            .file_name()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        assert_eq!(
            name,
            format!("{expected:020}.commit"),
            "the log has no hole"
        );
        let commit = Commit::decode(&std::fs::read(path)?.into())?;
        assert_eq!(commit.version().to_string(), expected.to_string());
        ensure!(
            epoch <= Some(commit.epoch()),
            "the epoch went back at version {expected}"
        );
        epoch = Some(commit.epoch());
    }
    Ok(())
}
