//! What an operator looks at.

use anyhow::{Result, ensure};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::{Node, Site, Store, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn both_programs_tell_how_they_are() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let follower = site.follower("follower", &leader).await?;
        leader.create_database("d").await?;
        leader.sql("d", "CREATE TABLE t AS SELECT 1 AS n").await?;
        follower.attach(&leader, "d").await?;
        for node in [&leader, &follower] {
            let (status, _) = node.get("/healthz").await?;
            assert_eq!(status, 200, "{node}");
            let (status, ready) = node.get_json("/readyz").await?;
            assert_eq!(
                (status, &ready["ready"]),
                (200, &true.into()),
                "{node}: {ready}"
            );
            let (_, entry) = node.readiness_of("d").await?;
            assert_eq!(entry["ready"], true, "{node}");
            assert!(entry["version"].is_u64(), "{node}: {entry}");
            assert_eq!(serving(node).await?, ServingStatus::Serving, "{node}");
            node.sql("d", "SELECT sum(n) FROM t").await?;
            metrics_are_well_formed(node).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_ready_only_after_its_first_synchronisation() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = site.leader("leader").await?;
        let mut follower = site.follower("follower", &leader).await?;
        leader.create_database("d").await?;
        leader.sql("d", "CREATE TABLE t AS SELECT 1 AS n").await?;
        follower.attach(&leader, "d").await?;
        follower.kill()?;
        leader.kill()?;
        // Neither the leader nor the bucket answers.
        let (here, away) = (site.bucket_directory(), site.path().join("away"));
        std::fs::rename(&here, &away)?;
        follower.restart().await?;
        let (status, ready) = follower.get_json("/readyz").await?;
        assert_eq!(status, 503, "{ready}");
        let (_, entry) = follower.readiness_of("d").await?;
        assert_eq!(entry["ready"], false, "{ready}");
        assert_eq!(follower.get("/healthz").await?.0, 200, "it lives");
        assert_eq!(serving(&follower).await?, ServingStatus::NotServing);
        let refused = follower.refused("d", "SELECT 1").await?;
        assert_eq!(refused.status, 503, "{refused}");

        std::fs::rename(&away, &here)?;
        follower.wait_ready().await?;
        assert_eq!(follower.count("d", "SELECT sum(n) FROM t").await?, 1);
        eventually("gRPC health follows", async || {
            Ok(serving(&follower).await? == ServingStatus::Serving)
        })
        .await
    })
    .await
}

async fn serving(node: &Node) -> Result<ServingStatus> {
    let channel = Endpoint::from_shared(node.grpc_url())?.connect().await?;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let response = HealthClient::new(channel).check(request).await?;
    Ok(response.into_inner().status())
}

/// Each line is a comment, or a name, labels and a number; and ours are among them.
async fn metrics_are_well_formed(node: &Node) -> Result<()> {
    let (status, text) = node.get("/metrics").await?;
    assert_eq!(status, 200, "{node}");
    let mut ours = 0;
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, value) = line.rsplit_once(' ').unwrap_or_default();
        ensure!(value.parse::<f64>().is_ok(), "{node}: {line}");
        ours += u32::from(name.starts_with("slipstream_"));
    }
    ensure!(ours >= 5, "{node} tells {ours} values of its own:\n{text}");
    Ok(())
}
