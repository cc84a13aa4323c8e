//! Who may do what, on every door: tokens, roles, principals that combine, and what nobody sees
//! who has no role.

mod call;
mod coverage;
mod matrix;
mod names;
mod operations;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Client, Node, Site, Store, eventually, program};

const CLUSTER: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/clusters/north";

/// A leader with a database `d` that has a table, whose callers need tokens; and the token of its
/// operator.
async fn guarded(site: &Site) -> Result<(Node, Client)> {
    let operator = site.token("north", "aaduser=operator", &["AllDatabasesAdmin"])?;
    let mut leader = site.start("leader", "north", "north", &[]).await?;
    leader.set_token(&operator);
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    leader
        .ingest("d", "t", "format=csv&create=true", "word\nx\n")
        .await?;
    leader
        .sql("d", "CREATE FUNCTION known() AS $$ SELECT 1 $$")
        .await?;
    let elsewhere = ".create external table elsewhere (a:long) kind=storage dataformat=csv \
                     ('s3://b/x.csv')";
    leader.command("d", elsewhere).await?;
    let client = leader.as_caller(Some(&operator));
    Ok((leader, client))
}

/// A leader and a follower whose callers need tokens, with `d` attached.
async fn guarded_pair(site: &Site) -> Result<(Node, Node)> {
    let (leader, _) = guarded(site).await?;
    let node = site.token("north", "aadapp=south", &["Contributor"])?;
    let operator = site.token("south", "aaduser=operator", &["AllDatabasesAdmin"])?;
    let address = format!("north={}", leader.grpc_url());
    let arguments = ["--leader", &address, "--leader-token", &node];
    let mut follower = site.start("follower", "south", "south", &arguments).await?;
    follower.set_token(&operator);
    follower.wait_ready().await?;
    eventually("the leader knows the follower's token", async || {
        Ok(follower.attach(&leader, "d").await.is_ok())
    })
    .await?;
    Ok((leader, follower))
}

#[tokio::test]
async fn what_is_kept_from_a_caller_here_is_not_had_from_a_leader_that_asks_nobody() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        leader
            .ingest("d", "t", "format=csv&create=true", "word\nx\n")
            .await?;
        let operator = site.token("south", "aaduser=operator", &["AllDatabasesAdmin"])?;
        let viewer = site.token("south", "aaduser=viewer", &[])?;
        let address = format!("north={}", leader.grpc_url());
        let arguments = ["--leader", &address];
        let mut follower = site.start("follower", "south", "south", &arguments).await?;
        follower.set_token(&operator);
        follower.wait_ready().await?;
        follower.attach(&leader, "d").await?;
        follower
            .command("d", ".add database d viewers ('aaduser=viewer')")
            .await?;
        let asked = follower.as_caller(Some(&viewer));
        assert_eq!(asked.count("d", "SELECT count(*) FROM t").await?, 1);
        for sql in ["SELECT * FROM t", "SELECT * FROM slipstream.databases"] {
            let refused = format!("SELECT * FROM at_leader('{sql}')");
            let refused = asked.refused("d", &refused).await?;
            ensure!(refused.message.contains("asks nobody"), "{refused}");
        }
        Ok(())
    })
    .await
}

/// Whether a caller can read a table of `d`.
async fn reads(node: &Node, token: &str) -> Result<bool> {
    let body = json!({"database": "d", "sql": "SELECT count(*) FROM t"});
    let (status, text) = node
        .as_caller(Some(token))
        .send("POST", "/v1/sql", Some(&body))
        .await?;
    ensure!(status == 200 || status == 403, "{status} {text}");
    Ok(status == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_a19_a20_a21_a22_principals_combine_as_their_kind_says() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, mut follower) = guarded_pair(site).await?;
        let of_leader = site.token("south", "aaduser=of_leader", &[])?;
        let of_follower = site.token("south", "aaduser=of_follower", &[])?;
        leader
            .command("d", ".add database d viewers ('aaduser=of_leader')")
            .await?;
        let added = follower
            .command(
                "d",
                ".add follower database d viewers ('aaduser=of_follower') 'ours'",
            )
            .await?;
        assert_eq!(added[0]["AuthorizedPrincipalsModificationKind"], "Union");

        let kind = async |kind: &str| {
            let alter = format!(".alter follower database d principals-modification-kind = {kind}");
            follower.command("d", &alter).await
        };
        for (word, leaders, followers) in [
            ("union", true, true),
            ("replace", false, true),
            ("none", true, false),
            ("union", true, true),
        ] {
            kind(word).await?;
            eventually(&format!("kind {word}"), async || {
                Ok(reads(&follower, &of_leader).await? == leaders
                    && reads(&follower, &of_follower).await? == followers)
            })
            .await?;
        }
        // Replace without any principals: nobody, but for the cluster's own roles.
        kind("replace").await?;
        follower
            .command(
                "d",
                ".drop follower database d viewers ('aaduser=of_follower')",
            )
            .await?;
        assert!(!reads(&follower, &of_leader).await? && !reads(&follower, &of_follower).await?);
        let operator = follower.command("d", ".show follower database d").await?;
        assert_eq!(operator[0]["AuthorizedPrincipalsOverride"], "[]");
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 1);

        // The four roles, on the disk, and the leader none the wiser.
        for role in ["admins", "users", "viewers", "monitors"] {
            let add = format!(".add follower database d {role} ('aaduser=kept')");
            follower.command("d", &add).await?;
        }
        follower.terminate().await?;
        follower.restart().await?;
        follower.wait_ready().await?;
        let shown = follower.command("d", ".show database d principals").await?;
        assert_eq!(shown.len(), 4, "{shown:?}");
        let at_leader = leader.command("d", ".show database d principals").await?;
        ensure!(
            at_leader
                .iter()
                .all(|row| row["PrincipalFQN"] != "aaduser=kept"),
            "{at_leader:?}"
        );
        let refused = follower
            .command_refused("d", ".add follower database d ingestors ('aaduser=x')")
            .await?;
        assert_eq!(
            (refused.status, refused.code.as_str()),
            (400, "syntax_error")
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a48_attaching_takes_permission_on_both_sides_and_detaching_on_one() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, operator) = guarded(site).await?;
        let viewer_of_leader = site.token("north", "aadapp=south", &["AllDatabasesViewer"])?;
        let on_follower = site.token("south", "aaduser=operator", &["Contributor"])?;
        let viewer_of_follower = site.token("south", "aaduser=bob", &["AllDatabasesViewer"])?;
        let address = format!("north={}", leader.grpc_url());
        let arguments = ["--leader", &address, "--leader-token", &viewer_of_leader];
        let mut follower = site.start("follower", "south", "south", &arguments).await?;
        follower.set_token(&on_follower);
        follower.wait_ready().await?;
        let body = json!({"leader": "north", "database": "d"});

        // Not on the follower; and on the follower, but its node not at the leader.
        let bob = follower.as_caller(Some(&viewer_of_follower));
        let (status, _) = bob.post_json("/v1/attachments", &body).await?;
        assert_eq!(status, 403);
        eventually("the leader refuses a node without the right", async || {
            let (status, answer) = follower.post_json("/v1/attachments", &body).await?;
            Ok(status == 403
                && answer["error"]["code"] == "leader_forbidden"
                && answer["error"]["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("may not attach")))
        })
        .await?;

        // With an invitation the node needs no role at the leader, and may speak for what it
        // attached: its subscription is served.
        let path = format!("{CLUSTER}/databases/d/inviteFollower?api-version=2025-02-14");
        let invite = json!({"inviteeEmail": "south@example.org"});
        let (status, text) = operator.send("POST", &path, Some(&invite)).await?;
        ensure!(status == 200, "{status} {text}");
        let invited: Value = serde_json::from_str(&text)?;
        let body = json!({"leader": "north", "database": "d",
            "invitation": invited["generatedInvitation"]});
        let (status, answer) = follower.post_json("/v1/attachments", &body).await?;
        ensure!(status == 200, "{status} {answer}");
        let receipt = operator.ingest("d", "t", "format=csv", "word\ny\n").await?;
        let version = receipt["version"].as_u64().context("a version")?;
        let on_south = site.token("south", "aaduser=carol", &["AllDatabasesViewer"])?;
        eventually("the commit arrives", async || {
            let carol = follower.as_caller(Some(&on_south));
            let seen = carol
                .ask("d", "SELECT count(*) FROM t")
                .min_version(version)
                .send()
                .await?;
            Ok(seen.count()? == 2)
        })
        .await?;
        ensure!(
            !follower.log().contains("attached by another principal"),
            "the node speaks for its own attachment"
        );

        // One side is enough to detach, and it is the leader's here.
        let detach = json!({
            "clusterResourceId": CLUSTER.replace("north", "south"),
            "attachedDatabaseConfigurationName": "d",
        });
        let path = format!("{CLUSTER}/detachFollowerDatabases?api-version=2025-02-14");
        let (status, text) = operator.send("POST", &path, Some(&detach)).await?;
        ensure!(status == 200, "{status} {text}");
        eventually("the follower lets go", async || {
            let (_, all) = follower.get_json("/v1/attachments").await?;
            Ok(all.as_array().is_some_and(Vec::is_empty))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_node_without_tokens_listens_on_this_machine_only() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let start = || {
            let mut leader = program();
            leader
                .args(["leader", "--bucket", site.bucket(), "--grpc", "127.0.0.1:0"])
                .args(["--http", "0.0.0.0:0", "--data-dir"])
                .arg(site.path().join("open"));
            leader
        };
        let refused = start().output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success(), "it started: {said}");
        ensure!(said.contains("slipstream token create"), "{said}");

        site.token("open", "aaduser=operator", &["AllDatabasesAdmin"])?;
        let mut guarded = start().stderr(std::process::Stdio::null()).spawn()?;
        let announced = eventually("a node with tokens starts", async || {
            Ok(site.path().join("open/node.json").exists())
        })
        .await;
        guarded.kill()?;
        guarded.wait()?;
        announced
    })
    .await
}
