//! How following ends, from either side, and invitations that are taken back.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{create, databases, put, refused, tables};
use crate::cluster::{Node, Site, Store, eventually};

#[tokio::test]
async fn a40_a44_a_detached_database_goes_and_can_be_attached_again() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        for _ in 0..2 {
            put(&follower, &json!({"leader": "north", "database": "d"})).await?;
            assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 1);
            follower.detach("d").await?;
            let gone = follower.refused("d", "SELECT 1").await?;
            assert_eq!(gone.code, "database_not_found");
            assert_eq!(leader.count("d", "SELECT count(*) FROM t").await?, 1);
        }
        // Nobody follows it any more.
        leader.ask_node("DROP DATABASE d").send().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a41_a_database_that_the_leader_detached_goes_from_the_follower() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        create(&leader, "e", &["t"]).await?;
        let mut follower = site.follower("south", &leader).await?;
        put(&follower, &json!({"leader": "north", "database": "d"})).await?;
        put(&follower, &json!({"leader": "north", "database": "e"})).await?;
        detach_at(&leader, "south", "d").await?;
        eventually("the follower lets go", async || {
            Ok(databases(&follower).await? == ["e"])
        })
        .await?;
        assert_eq!(
            follower.refused("d", "SELECT 1").await?.code,
            "database_not_found"
        );
        leader.ask_node("DROP DATABASE d").send().await?;

        // Told while it was not there, it lets go when it starts, whether the leader lives or not.
        follower.terminate().await?;
        detach_at(&leader, "south", "e").await?;
        drop(leader);
        follower.restart().await?;
        eventually("the follower lets go of the other", async || {
            Ok(databases(&follower).await?.is_empty())
        })
        .await
    })
    .await
}

/// Detaches a configuration from the leader's side.
async fn detach_at(leader: &Node, cluster: &str, configuration: &str) -> Result<()> {
    use slipstream_proto::sync::DetachFollowerRequest;
    use slipstream_proto::sync::admin_client::AdminClient;

    let channel = tonic::transport::Endpoint::from_shared(leader.grpc_url())?;
    let request = DetachFollowerRequest {
        follower_cluster: cluster.to_owned(),
        configuration: configuration.to_owned(),
    };
    let mut client = AdminClient::new(channel.connect().await?);
    client.detach_follower(request).await?;
    Ok(())
}

#[tokio::test]
async fn a49_an_invitation_grants_what_it_says_until_it_is_taken_back() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t", "u"]).await?;
        create(&leader, "e", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        let invite = json!({"database": "d", "sharing": {"tablesToInclude": ["t"]}});
        let (status, invitation) = leader.post_json("/v1/invitations", &invite).await?;
        ensure!(status == 200, "{invitation}");
        let with = |database: &str, sharing: Value| {
            json!({"leader": "north", "database": database, "sharing": sharing,
                "invitation": invitation["token"]})
        };
        let none = (409, "invitation_refused".to_owned());
        assert_eq!(refused(&follower, &with("e", json!({}))).await?, none);
        let wider = json!({"tablesToInclude": ["t", "u"]});
        assert_eq!(refused(&follower, &with("d", wider)).await?, none);
        put(&follower, &with("d", json!({}))).await?;
        assert_eq!(tables(&follower, "d").await?, ["t"]);
        let (_, followers) = leader.get_json("/v1/followers").await?;
        assert_eq!(followers[0]["origin"], "Other");

        // Taken back: it lets nobody in any more, and whoever came by it stays.
        let path = format!(
            "/v1/invitations/{}",
            invitation["id"].as_str().unwrap_or_default()
        );
        let (status, _) = leader.send("DELETE", &path, None).await?;
        assert_eq!(status, 204);
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 1);
        follower.detach("d").await?;
        assert_eq!(refused(&follower, &with("d", json!({}))).await?, none);
        let short = json!({"database": "d", "expires_in": "1ms"});
        let (_, expiring) = leader.post_json("/v1/invitations", &short).await?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let late = json!({"leader": "north", "database": "d", "invitation": expiring["token"]});
        assert_eq!(refused(&follower, &late).await?, none);
        Ok(())
    })
    .await
}
