//! Whoever has a role in one database hears no name of another, from either node, by any door.

use anyhow::{Context, Result, ensure};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables};
use futures::TryStreamExt;
use serde_json::json;
use slipstream_proto::sync::admin_client::AdminClient;
use slipstream_proto::sync::{DescribeClusterRequest, FollowerIdentity};
use tonic::transport::Endpoint;

use super::call::flight_client;
use super::{CLUSTER, guarded_pair};
use crate::cluster::{Client, Node, Site, Store, eventually};

/// What every hidden name begins with.
const HIDDEN: &str = "hidden";
/// What was asked for by name is said back; what was not may not be.
const ECHOED: [&str; 3] = ["hidden_databas'", "hidden_tabl'", "hidden_colum"];

const SQL: [&str; 13] = [
    "SELECT * FROM slipstream.databases",
    "SELECT * FROM slipstream.tables",
    "SELECT * FROM slipstream.extents",
    "SELECT * FROM slipstream.followers",
    "SELECT * FROM slipstream.leases",
    "SELECT * FROM slipstream.queries",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM information_schema.schemata",
    "SELECT * FROM hidden_databas.t",
    "SELECT * FROM hidden_tabl",
    "SELECT hidden_colum FROM t",
    "SHOW TABLES",
];

const COMMANDS: [&str; 18] = [
    ".show databases",
    ".show databases details",
    ".show databases datastats",
    ".show databases policies",
    ".show databases identity",
    ".show databases verbose",
    ".show cluster extents",
    ".show queries",
    ".show commands",
    ".show commands-and-queries",
    ".show schema as json",
    ".show follower databases",
    ".show diagnostics",
    ".show gc blockers",
    ".show cache",
    ".show capacity",
    ".show cluster",
    ".show table hidden_tabl",
];

const PATHS: [&str; 7] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/attachments",
    "/v1/overrides",
    "/v1/followers",
];

/// Everything that a node says over HTTP to whoever asks for all there is.
async fn over_http(caller: &Client, cluster: &str) -> Result<Vec<(String, String)>> {
    let mut said = Vec::new();
    for sql in SQL {
        let body = json!({"database": "d", "sql": sql});
        said.push((sql, caller.send("POST", "/v1/sql", Some(&body)).await?.1));
        for path in ["/v1/rest/query", "/v2/rest/query"] {
            let body = json!({"db": "d", "csl": sql});
            said.push((sql, caller.send("POST", path, Some(&body)).await?.1));
        }
    }
    for command in COMMANDS {
        let body = json!({"db": "d", "csl": command});
        let answer = caller.send("POST", "/v1/rest/mgmt", Some(&body)).await?;
        said.push((command, answer.1));
    }
    for path in PATHS {
        said.push((path, caller.send("GET", path, None).await?.1));
    }
    for resource in [
        "databases",
        "attachedDatabaseConfigurations",
        "listFollowerDatabases",
    ] {
        let cluster = CLUSTER.replace("north", cluster);
        let path = format!("{cluster}/{resource}?api-version=2025-02-14");
        said.push((resource, caller.send("GET", &path, None).await?.1));
    }
    let owned = said.into_iter();
    Ok(owned.map(|(what, text)| (what.to_owned(), text)).collect())
}

/// The same over Flight SQL: what can be browsed, and what errors say.
async fn over_flight(node: &Node, token: &str) -> Result<Vec<(String, String)>> {
    let mut flight = flight_client(node, Some(token)).await?;
    let mut said = Vec::new();
    let schemas = flight
        .get_db_schemas(CommandGetDbSchemas::default())
        .await?;
    let tables = flight.get_tables(CommandGetTables::default()).await?;
    for (what, info) in [("GetDbSchemas", schemas), ("GetTables", tables)] {
        for endpoint in info.endpoint {
            let ticket = endpoint.ticket.context("a ticket")?;
            let batches: Vec<_> = flight.do_get(ticket).await?.try_collect().await?;
            let text = pretty_format_batches(&batches)?.to_string();
            ensure!(
                text.contains("| d "),
                "{what} shows what may be seen: {text}"
            );
            said.push((what.to_owned(), text));
        }
    }
    for sql in [
        "SELECT * FROM hidden_databas.t",
        "SELECT * FROM hidden_tabl",
        "SELECT hidden_colum FROM t",
    ] {
        let refused = flight.execute(sql.to_owned(), None).await;
        let error = refused.err().context(sql)?;
        said.push((sql.to_owned(), error.to_string()));
    }
    Ok(said)
}

/// What the leader tells whoever calls as another cluster would.
async fn as_a_cluster(leader: &Node, token: &str) -> Result<Vec<(String, String)>> {
    let channel = Endpoint::from_shared(leader.grpc_url())?.connect().await?;
    let mut admin = AdminClient::new(channel);
    let mut said = Vec::new();
    let south = FollowerIdentity {
        cluster: "south".to_owned(),
        node_id: vec![7; 16].into(),
        configuration: "d".to_owned(),
    };
    for follower in [None, Some(south)] {
        let mut request = tonic::Request::new(DescribeClusterRequest { follower });
        let bearer = format!("Bearer {token}").parse()?;
        request.metadata_mut().insert("authorization", bearer);
        let refused = admin.describe_cluster(request).await;
        let status = refused.err().context("only its own cluster is told")?;
        ensure!(status.code() == tonic::Code::PermissionDenied, "{status}");
        said.push(("DescribeCluster".to_owned(), status.to_string()));
    }
    Ok(said)
}

fn ensure_hidden(node: &Node, said: &[(String, String)]) -> Result<()> {
    for (what, text) in said {
        let mut rest = text.clone();
        for echo in ECHOED {
            rest = rest.replace(echo, "");
        }
        // The request itself may be shown to whoever sent it.
        for sql in SQL.iter().chain(&COMMANDS) {
            rest = rest.replace(sql, "");
        }
        ensure!(!rest.contains(HIDDEN), "{node}, {what}: {text}");
    }
    Ok(())
}

/// A database that whoever has a role in `d` may not know of, with something of everything.
async fn hide(leader: &Node) -> Result<()> {
    leader.create_database("hidden_database").await?;
    let csv = "hidden_column\n1\n";
    leader
        .ingest(
            "hidden_database",
            "hidden_table",
            "format=csv&create=true",
            csv,
        )
        .await?;
    for sql in [
        "SELECT count(*) AS hidden_count FROM hidden_table",
        "CREATE FUNCTION hidden_function() AS $$ SELECT 1 $$",
    ] {
        leader.sql("hidden_database", sql).await?;
    }
    for command in [
        ".show table hidden_table",
        ".add database hidden_database viewers ('aaduser=hidden_user')",
    ] {
        leader.command("hidden_database", command).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_database_sees_no_name_of_another() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (mut leader, follower) = guarded_pair(site).await?;
        let operator = site.token("north", "aaduser=again", &["AllDatabasesAdmin"])?;
        leader.set_token(&operator);
        eventually("the operator's token is known", async || {
            Ok(leader.get("/v1/attachments").await?.0 == 200)
        })
        .await?;
        hide(&leader).await?;
        follower.attach(&leader, "hidden_database").await?;
        let own = ".alter follower database hidden_database policy caching hot = 7d";
        follower.command("hidden_database", own).await?;
        follower
            .sql("hidden_database", "SELECT hidden_column FROM hidden_table")
            .await?;
        let added = leader
            .command("d", ".add database d admins ('aaduser=ada')")
            .await?;
        ensure!(!added.is_empty(), "ada is an admin of d");

        for (node, directory) in [(&leader, "north"), (&follower, "south")] {
            let token = site.token(directory, "aaduser=ada", &[])?;
            let ada = node.as_caller(Some(&token));
            eventually("the token and the role are known", async || {
                Ok(ada.send("GET", "/readyz", None).await?.1.contains("\"d\""))
            })
            .await?;
            ensure_hidden(node, &over_http(&ada, directory).await?)?;
            ensure_hidden(node, &over_flight(node, &token).await?)?;
            // Asked for by its right name it is no more there than one that is not.
            let there = ada.refused("hidden_database", "SELECT 1").await?;
            let gone = ada.refused("gone_database", "SELECT 1").await?;
            assert_eq!(there.code, gone.code);
            assert_eq!(
                there.message.replace("hidden_database", "X"),
                gone.message.replace("gone_database", "X")
            );
            let across = "SELECT * FROM hidden_database.hidden_table";
            let across = ada.refused("d", across).await?;
            ensure!(across.message.contains("there is no database"), "{across}");

            // The search finds what is there: the operator is told all of it.
            let all = over_http(node, directory).await?;
            ensure!(
                ensure_hidden(node, &all).is_err(),
                "{node} has something to hide"
            );
        }
        let token = site.token("north", "aaduser=eve", &[])?;
        eventually("eve's token is known", async || {
            let eve = leader.as_caller(Some(&token));
            Ok(eve.send("GET", "/v1/overrides", None).await?.0 == 200)
        })
        .await?;
        ensure_hidden(&leader, &as_a_cluster(&leader, &token).await?)
    })
    .await
}
