//! What Azure's resources and Kusto's `.show queries` say, property by property. (`tests/python`
//! does with Azure's own packages what the seed page does.)

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Node, Site, Store};

const API: &str = "api-version=2025-02-14";

/// Sends a request about a resource of the node's own cluster.
async fn resource(
    node: &Node,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<(u16, Value)> {
    let cluster = node.cluster();
    let path = format!(
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/clusters/{cluster}{path}?{API}"
    );
    let (status, text) = node.send(method, &path, body.as_ref()).await?;
    Ok((status, serde_json::from_str(&text).unwrap_or_default()))
}

/// A database's properties after a request about it.
async fn database(node: &Node, method: &str, body: Option<Value>) -> Result<Value> {
    let (status, answer) = resource(node, method, "/databases/d", body).await?;
    ensure!(status == 200, "{method}: {status} {answer}");
    Ok(answer["properties"].clone())
}

fn periods(properties: &Value) -> [Option<&str>; 2] {
    ["hotCachePeriod", "softDeletePeriod"].map(|name| properties[name].as_str())
}

#[tokio::test]
async fn a23_a35_a_database_has_its_periods_on_either_side() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        let put = json!({"kind": "ReadWrite", "properties":
            {"hotCachePeriod": "P7D", "softDeletePeriod": "P99D"}});
        let made = database(&leader, "PUT", Some(put)).await?;
        assert_eq!(periods(&made), [Some("P7D"), Some("P99D")]);
        let caching = leader
            .command("d", ".show database d policy caching")
            .await?;
        let policy = caching[0]["Policy"].as_str().context("a policy")?;
        ensure!(policy.contains("7.00:00:00"), "{policy}");
        // What a body does not name stays.
        let narrow = json!({"properties": {"hotCachePeriod": "P3D"}});
        let changed = database(&leader, "PATCH", Some(narrow)).await?;
        assert_eq!(periods(&changed), [Some("P3D"), Some("P99D")]);
        let nothing = json!({"kind": "ReadWrite", "properties": {}});
        let kept = database(&leader, "PUT", Some(nothing)).await?;
        assert_eq!(periods(&kept), [Some("P3D"), Some("P99D")]);
        let wrong = json!({"properties": {"softDeletePeriod": "for ever"}});
        let (status, answer) = resource(&leader, "PATCH", "/databases/d", Some(wrong)).await?;
        assert_eq!(status, 400, "{answer}");

        // On a follower the hot period is its own, while it has one.
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        let inherited = database(&follower, "GET", None).await?;
        assert_eq!(periods(&inherited), [Some("P3D"), Some("P99D")]);
        let own = json!({"kind": "ReadOnlyFollowing", "properties": {"hotCachePeriod": "P1D"}});
        let changed = database(&follower, "PATCH", Some(own)).await?;
        assert_eq!(periods(&changed), [Some("P1D"), Some("P99D")]);
        let nothing = json!({"kind": "ReadOnlyFollowing", "properties": {}});
        let kept = database(&follower, "PATCH", Some(nothing.clone())).await?;
        assert_eq!(periods(&kept), [Some("P1D"), Some("P99D")]);
        let reset = database(&follower, "PUT", Some(nothing)).await?;
        assert_eq!(periods(&reset), [Some("P3D"), Some("P99D")]);
        let of_leader = database(&leader, "GET", None).await?;
        assert_eq!(periods(&of_leader), [Some("P3D"), Some("P99D")]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a42_a43_what_is_followed_or_attached_is_not_deleted() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        let (status, refused) = resource(&leader, "DELETE", "", None).await?;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (409, &json!("ClusterFollowed"))
        );
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        ensure!(message.contains("'south'"), "{message}");
        let (status, refused) = resource(&follower, "DELETE", "/databases/d", None).await?;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (409, &json!("DatabaseAttached"))
        );
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        ensure!(message.contains("delete the configuration"), "{message}");

        let lag = "slipstream_database_lag_ms{database=\"d\"}";
        ensure!(
            follower.get("/metrics").await?.1.contains(lag),
            "a lag is shown"
        );
        follower.detach("d").await?;
        let (_, metrics) = follower.get("/metrics").await?;
        ensure!(
            !metrics.contains(lag),
            "of a database that is gone: {metrics}"
        );
        let (status, refused) = resource(&leader, "DELETE", "", None).await?;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (501, &json!("MethodNotAllowed"))
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_is_shown_by_the_names_that_its_client_gave() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        for (door, text) in [("query", "SELECT 41 + 1"), ("mgmt", ".show version")] {
            let sent = http
                .post(format!("{}/v1/rest/{door}", leader.http_url()))
                .header("x-ms-client-request-id", format!("KPC.execute;{door}"))
                .header("x-ms-app", "My Report")
                .json(&json!({"db": "d", "csl": text}))
                .send();
            ensure!(sent.await?.status().is_success(), "{text}");
        }
        let shown = async |command: &str, text: &str| {
            let rows = leader.command("d", command).await?;
            let row = rows.into_iter().find(|row| row["Text"] == text);
            row.with_context(|| format!("{command} shows {text}"))
        };
        for (command, text, door) in [
            (".show queries", "SELECT 41 + 1", "query"),
            (".show commands", ".show version", "mgmt"),
            (".show commands-and-queries", "SELECT 41 + 1", "query"),
            (".show commands-and-queries", ".show version", "mgmt"),
        ] {
            let row = shown(command, text).await?;
            let id = format!("KPC.execute;{door}");
            assert_eq!(row["ClientActivityId"], id.as_str(), "{command}: {row}");
            assert_eq!(row["Application"], "My Report", "{command}: {row}");
            assert_eq!(row["WorkloadGroup"], "default", "{command}: {row}");
            ensure!(row["RootActivityId"].is_string(), "{command}: {row}");
        }
        // Who says nothing is shown by the door and the address.
        leader.sql("d", "SELECT 43").await?;
        let row = shown(".show queries", "SELECT 43").await?;
        ensure!(row["ClientActivityId"].is_null(), "{row}");
        let application = row["Application"].as_str().unwrap_or_default();
        ensure!(application.starts_with("http 127.0.0.1:"), "{row}");
        Ok(())
    })
    .await
}
