//! Versions that are pinned: what they hold is kept, and goes once nobody needs it.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::{Node, Site, Store, eventually};

/// A lease this short is over soon after a leader began.
const SHORT_LEASE: &str = "5s";

async fn leader(site: &Site, lease: &str) -> Result<Node> {
    let options = ["--gc-interval", "100ms", "--gc-grace", "0s"];
    let options = [&options[..], &["--lease-ttl", lease]].concat();
    let mut leader = site.start("leader", "north", "north", &options).await?;
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    // Files are counted: nothing is merged.
    let off = r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;
    leader.command("d", off).await?;
    Ok(leader)
}

/// Fills a table; gives the version that has its rows.
async fn filled(leader: &Node) -> Result<u64> {
    leader
        .ingest("d", "t", "format=csv&create=true", "n\n1\n2\n")
        .await?;
    leader.sql("d", "SELECT 1").await?.version()
}

fn files(site: &Site) -> Result<usize> {
    let folder = format!("{}/extents", site.only_database_folder()?);
    // The store takes an empty folder away with its last file.
    if !site.bucket_directory().join(&folder).exists() {
        return Ok(0);
    }
    Ok(site.bucket_files(&folder)?.len())
}

/// Waits until something keeps extents for a reason; gives who it is.
async fn kept_by(leader: &Node, reason: &str) -> Result<String> {
    let mut holder = None;
    eventually(&format!("files are kept: {reason}"), async || {
        let rows = leader.command("d", ".show gc blockers").await?;
        let row = rows.iter().find(|row| row["Reason"] == reason);
        holder = row.map(|row| row["Holder"].as_str().unwrap_or_default().to_owned());
        Ok(holder.is_some())
    })
    .await?;
    Ok(holder.unwrap_or_default())
}

async fn pins(node: &Node) -> Result<Vec<(Value, Value, Value)>> {
    let rows = node.command("d", ".show database d pins").await?;
    let pins = rows.into_iter().map(|row| {
        (
            row["PinName"].clone(),
            row["Version"].clone(),
            row["PinnedAt"].clone(),
        )
    });
    Ok(pins.collect())
}

fn pin_of(name: &str, version: u64, cluster: &str) -> (Value, Value, Value) {
    (name.into(), version.into(), cluster.into())
}

fn sum_at(version: u64) -> String {
    format!("SELECT sum(n) FROM t FOR VERSION AS OF {version}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_keeps_files_past_the_grace_period_until_it_is_taken_away() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site, SHORT_LEASE).await?;
        let version = filled(&leader).await?;
        let pin = format!(".pin database d version {version} as report");
        let shown = leader.command("d", &pin).await?;
        ensure!(shown[0]["PinName"] == "report", "{shown:?}");
        leader.sql("d", "DELETE FROM t").await?;
        let holder = kept_by(&leader, "Pin").await?;
        ensure!(holder.contains("'report'"), "{holder}");
        ensure!(holder.contains(&format!("version {version} ")), "{holder}");

        // It stands in the log: the next leader knows it, from a checkpoint too.
        leader.terminate().await?;
        leader.restart().await?;
        leader.wait_ready().await?;
        kept_by(&leader, "Pin").await?;
        assert_eq!(files(site)?, 1);
        assert_eq!(leader.count("d", &sum_at(version)).await?, 3);
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        let newest = leader.sql("d", "SELECT 1").await?.version()?;
        follower.wait_for_version("d", newest).await?;
        for node in [&leader, &follower] {
            assert_eq!(pins(node).await?, [pin_of("report", version, "north")]);
        }

        let taken = format!(".pin database d version {} as report", version + 1);
        let refused = leader.command_refused("d", &taken).await?;
        assert_eq!(refused.code, "pin_exists", "{refused}");
        let future = leader
            .command_refused("d", ".pin database d version 9999 as later")
            .await?;
        assert_eq!(future.code, "version_not_found", "{future}");
        let unknown = leader
            .command_refused("d", ".unpin database d other")
            .await?;
        assert_eq!(unknown.code, "pin_not_found", "{unknown}");

        leader.command("d", ".unpin database d report").await?;
        let newest = leader.sql("d", "SELECT 1").await?.version()?;
        follower.wait_for_version("d", newest).await?;
        eventually("the file goes", async || Ok(files(site)? == 0)).await?;
        // What is gone cannot be kept.
        let refused = leader.command_refused("d", &pin).await?;
        assert_eq!(refused.code, "version_not_kept", "{refused}");
        let refused = follower.command_refused("d", &pin).await?;
        assert_eq!(refused.code, "version_not_kept", "{refused}");
        ensure!(pins(&follower).await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_keeps_a_version_by_its_lease_also_over_a_restart() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        // Longer than a follower takes to start again.
        let leader = leader(site, "15s").await?;
        let version = filled(&leader).await?;
        let mut follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        follower.wait_for_version("d", version).await?;
        let pin = format!(".pin database d version {version} as mine");
        follower.command("d", &pin).await?;
        // Again is as good as once.
        follower.command("d", &pin).await?;
        let emptied = leader.sql("d", "DELETE FROM t").await?.version()?;
        follower.wait_for_version("d", emptied).await?;
        let holder = kept_by(&leader, "Lease").await?;
        ensure!(holder.starts_with("south/d node "), "{holder}");
        ensure!(pins(&leader).await?.is_empty(), "the leader has none");

        follower.restart().await?;
        follower.wait_ready().await?;
        follower.wait_for_version("d", emptied).await?;
        assert_eq!(pins(&follower).await?, [pin_of("mine", version, "south")]);
        // The lease of the process that is gone is over by then.
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        assert_eq!(files(site)?, 1);
        assert_eq!(follower.count("d", &sum_at(version)).await?, 3);

        follower.command("d", ".unpin database d mine").await?;
        let again = follower
            .command_refused("d", ".unpin database d mine")
            .await?;
        assert_eq!(again.code, "pin_not_found", "{again}");
        eventually("the file goes", async || Ok(files(site)? == 0)).await
    })
    .await
}
