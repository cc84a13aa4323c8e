//! Who may do what, on every door: tokens, roles, principals that combine, and what nobody sees
//! who has no role.

use anyhow::{Context, Result, ensure};
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use serde_json::{Value, json};
use tonic::transport::Endpoint;

use crate::cluster::{Client, Node, Site, Store, eventually, program};

/// What an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Query,
    Metadata,
    Ingest,
    Create,
    Administer,
    ManageDatabases,
    Share,
    Monitor,
    /// A token, whatever its roles.
    Anybody,
}

/// The roles of Kusto's documentation, and what each is for. Written down a second time on
/// purpose: the node's own table is what is being tested.
const ROLES: &[(&str, &[Needs])] = &[
    (
        "admins",
        &[
            Needs::Query,
            Needs::Metadata,
            Needs::Ingest,
            Needs::Create,
            Needs::Administer,
        ],
    ),
    ("users", &[Needs::Query, Needs::Metadata, Needs::Create]),
    ("viewers", &[Needs::Query, Needs::Metadata]),
    ("unrestrictedviewers", &[Needs::Query, Needs::Metadata]),
    ("ingestors", &[Needs::Ingest]),
    ("monitors", &[Needs::Metadata]),
];

const CLUSTER_ROLES: &[(&str, &[Needs])] = &[
    (
        "AllDatabasesAdmin",
        &[
            Needs::Query,
            Needs::Metadata,
            Needs::Ingest,
            Needs::Create,
            Needs::Administer,
            Needs::ManageDatabases,
            Needs::Share,
            Needs::Monitor,
        ],
    ),
    (
        "AllDatabasesViewer",
        &[Needs::Query, Needs::Metadata, Needs::Monitor],
    ),
    ("AllDatabasesMonitor", &[Needs::Metadata, Needs::Monitor]),
    ("Contributor", &[Needs::Share]),
];

/// One way to ask a node for something.
enum Call {
    /// `POST /v1/sql`.
    Sql(&'static str),
    /// The same without a database.
    NodeSql(&'static str),
    /// `POST /v1/rest/mgmt`.
    Command(&'static str),
    /// `POST /v2/rest/query`, and `/v1/rest/query`.
    KustoQuery(&'static str),
    /// Flight SQL.
    Flight(&'static str),
    /// `POST /v1/ingest/d/TABLE`.
    Ingest(&'static str, &'static str),
    /// Anything else over HTTP.
    Http(&'static str, &'static str, Option<&'static str>),
}

const CLUSTER: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/clusters/north";

/// Every door and every command of a leader; `{n}` is another number each time.
fn operations() -> Vec<(Needs, Call)> {
    use Call::{Command, Flight, Http, Ingest, KustoQuery, NodeSql, Sql};
    use Needs::{Administer, Anybody, Create, ManageDatabases, Metadata, Monitor, Query, Share};
    let mut all = vec![
        (Query, Sql("SELECT count(*) FROM t")),
        (Query, KustoQuery("SELECT count(*) FROM t")),
        (Query, Flight("SELECT count(*) FROM t")),
        (Query, Sql("EXPLAIN SELECT * FROM t")),
        (Anybody, NodeSql("SELECT 1")),
        (Needs::Ingest, Ingest("t", "format=csv")),
        (
            Administer,
            Sql("ALTER TABLE t ADD COLUMN IF NOT EXISTS c BIGINT"),
        ),
        (Administer, Sql("DROP TABLE IF EXISTS gone")),
        (Administer, Sql("DROP FUNCTION IF EXISTS gone")),
        (Create, Sql("CREATE TABLE a{n} (a BIGINT)")),
        (Create, Sql("CREATE TABLE b{n} AS SELECT 1 AS a")),
        (Create, Sql("CREATE FUNCTION f{n}() AS $$ SELECT 1 $$")),
        (Create, Flight("CREATE TABLE c{n} (a BIGINT)")),
        (ManageDatabases, NodeSql("CREATE DATABASE d{n}")),
        (ManageDatabases, NodeSql("DROP DATABASE IF EXISTS gone")),
        (Share, Http("GET", "/v1/attachments", None)),
        (
            Share,
            Http(
                "POST",
                "/v1/attachments",
                Some(r#"{"leader": "x", "database": "y"}"#),
            ),
        ),
        (Share, Http("DELETE", "/v1/attachments/gone", None)),
        (
            Share,
            Http("GET", "ARM/attachedDatabaseConfigurations", None),
        ),
        (Share, Http("POST", "ARM/listFollowerDatabases", None)),
        (
            Share,
            Http(
                "POST",
                "ARM/databases/d/inviteFollower",
                Some(r#"{"inviteeEmail": "x"}"#),
            ),
        ),
        (
            Share,
            Http(
                "POST",
                "ARM/detachFollowerDatabases",
                Some(
                    r#"{"clusterResourceId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/clusters/x", "attachedDatabaseConfigurationName": "y"}"#,
                ),
            ),
        ),
        (
            ManageDatabases,
            Http(
                "PUT",
                "ARM/databases/e{n}",
                Some(r#"{"kind": "ReadWrite", "location": "local"}"#),
            ),
        ),
        (
            Metadata,
            Http("GET", "ARM/databases/d/principalAssignments", None),
        ),
        (
            Administer,
            Http(
                "PUT",
                "ARM/databases/d/principalAssignments/x{n}",
                Some(
                    r#"{"properties": {"principalId": "y", "role": "Viewer", "principalType": "User"}}"#,
                ),
            ),
        ),
        (Share, Http("GET", "/v1/followers", None)),
        (Share, Http("DELETE", "/v1/followers/x/y", None)),
        (
            Share,
            Http("POST", "/v1/invitations", Some(r#"{"database": "d"}"#)),
        ),
        (
            Share,
            Http(
                "DELETE",
                "/v1/invitations/00000000-0000-0000-0000-000000000000",
                None,
            ),
        ),
        (Anybody, Http("GET", "/v1/overrides", None)),
        (Anybody, Http("GET", "ARM/databases", None)),
        (Monitor, Http("GET", "/metrics", None)),
        (Monitor, Command(".show diagnostics")),
        (Monitor, Command(".show cluster principals")),
        (ManageDatabases, Command(".create database g{n}")),
        (ManageDatabases, Command(".drop database gone ifexists")),
        (Create, Command(".create table h{n} (a:long)")),
        (Create, Command(".create-merge table i{n} (a:long)")),
        (Administer, Command(".alter-merge table t (c:long)")),
        (Administer, Command(".drop table gone ifexists")),
        (Create, Command(".create function k{n}() { SELECT 1 }")),
        (
            Create,
            Command(".create-or-alter function l{n}() { SELECT 1 }"),
        ),
        (
            Administer,
            Command(".create-or-alter function known() { SELECT {n} }"),
        ),
        (Administer, Command(".drop function gone ifexists")),
        (
            Create,
            Command(
                ".create external table m{n} (a:long) kind=storage dataformat=csv ('s3://b/x.csv')",
            ),
        ),
        (Administer, Command(".drop external table gone ifexists")),
        (
            Administer,
            Command(".alter table t policy caching hot = 7d"),
        ),
        (Administer, Command(".delete table t policy caching")),
        (
            Administer,
            Command(".alter-merge table t policy retention softdelete = 99d"),
        ),
        (Administer, Command(".delete table t policy retention")),
        (
            Administer,
            Command(".alter table t policy row_level_security disable \"true\""),
        ),
        (
            Administer,
            Command(".delete table t policy row_level_security"),
        ),
        (
            Administer,
            Command(".add database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".drop database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".alter database d policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".set database d unrestrictedviewers ('aaduser=unrestrictedviewers')"),
        ),
        (
            Administer,
            Command(".set database d users ('aaduser=users')"),
        ),
        (Administer, Command(".delete database d policy caching")),
        (
            Administer,
            Command(".alter-merge database d policy retention softdelete = 99d"),
        ),
        (Administer, Command(".delete database d policy retention")),
        (Administer, Command(".alter table gone (b:long)")),
        (Administer, Command(".drop column t.gone")),
        (Administer, Sql("ALTER TABLE t DROP COLUMN IF EXISTS gone")),
        (Administer, Sql("DROP POLICY IF EXISTS p ON t")),
    ];
    all.push((Metadata, Flight(".show tables")));
    all.push((Metadata, Sql(".show tables")));
    all.push((Create, Flight(".create table flown{n} (a:long)")));
    for shown in [
        ".show database d",
        ".show databases (d) details",
        ".show database d datastats",
        ".show database d schema as json",
        ".show tables details",
        ".show table t details",
        ".show table t cslschema",
        ".show table t extents",
        ".show database d extents",
        ".show functions",
        ".show external tables",
        ".show table t policy caching",
        ".show effective policy caching table t",
        ".show database d principals",
    ] {
        all.push((Metadata, Command(shown)));
    }
    for shown in [
        ".show version",
        ".show cluster",
        ".show databases",
        ".show capacity",
        ".show queries",
        ".show running queries",
        ".show commands",
        ".show commands-and-queries",
        ".show follower databases",
        ".show cluster extents",
    ] {
        all.push((Anybody, Command(shown)));
    }
    all
}

/// Sends it; gives the status and the error's code.
async fn send(
    node: &Node,
    token: Option<&str>,
    call: &Call,
    number: usize,
) -> Result<(u16, String)> {
    let client = node.as_caller(token);
    let numbered = |text: &str| text.replace("{n}", &number.to_string());
    let (status, body) = match call {
        Call::Sql(sql) => {
            let body = json!({"database": "d", "sql": numbered(sql)});
            client.send("POST", "/v1/sql", Some(&body)).await?
        }
        Call::NodeSql(sql) => {
            let body = json!({"sql": numbered(sql)});
            client.send("POST", "/v1/sql", Some(&body)).await?
        }
        Call::Command(text) => {
            let body = json!({"db": "d", "csl": numbered(text)});
            client.send("POST", "/v1/rest/mgmt", Some(&body)).await?
        }
        Call::KustoQuery(text) => {
            let body = json!({"db": "d", "csl": numbered(text)});
            let first = client.send("POST", "/v1/rest/query", Some(&body)).await?;
            let second = client.send("POST", "/v2/rest/query", Some(&body)).await?;
            ensure!(first.0 == second.0, "v1 {first:?}, v2 {second:?}");
            second
        }
        Call::Ingest(table, options) => {
            let result = client.ingest("d", table, options, "word\nx\n").await;
            match result {
                Ok(receipt) => (200, receipt.to_string()),
                Err(error) => {
                    let refused: crate::cluster::ApiError = error.downcast()?;
                    return Ok((refused.status, refused.code));
                }
            }
        }
        Call::Http(method, path, body) => {
            let path = numbered(path).replace("ARM", CLUSTER);
            let path = if path.starts_with("/subscriptions") {
                format!("{path}?api-version=2025-02-14")
            } else {
                path
            };
            let body = body.map(serde_json::from_str).transpose()?;
            client.send(method, &path, body.as_ref()).await?
        }
        Call::Flight(sql) => return flight(node, token, &numbered(sql)).await,
    };
    let parsed: Value = serde_json::from_str(&body).unwrap_or_default();
    let code = parsed["error"]["code"].as_str().unwrap_or_default();
    Ok((status, code.to_owned()))
}

async fn flight(node: &Node, token: Option<&str>, sql: &str) -> Result<(u16, String)> {
    let channel = Endpoint::from_shared(node.grpc_url())?.connect().await?;
    let mut flight = FlightSqlServiceClient::new(channel);
    flight.set_header("database", "d");
    if let Some(token) = token {
        flight.set_token(token.to_owned());
    }
    let result = async {
        let info = flight.execute(sql.to_owned(), None).await?;
        for endpoint in info.endpoint {
            if let Some(ticket) = endpoint.ticket {
                flight.do_get(ticket).await?.try_collect::<Vec<_>>().await?;
            }
        }
        Ok::<_, arrow_flight::error::FlightError>(())
    };
    match result.await {
        Ok(()) => Ok((200, String::new())),
        Err(error) => {
            let text = error.to_string();
            let text = text.to_lowercase();
            if text.contains("valid authentication credentials") {
                return Ok((401, "unauthenticated".into()));
            }
            if text.contains("permission") || text.contains("may not") || text.contains("no role") {
                return Ok((403, "forbidden".into()));
            }
            Ok((500, text))
        }
    }
}

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
    let client = leader.as_caller(Some(&operator));
    Ok((leader, client))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_does_on_every_door_what_it_is_for_and_nothing_else() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, operator) = guarded(site).await?;
        let mut callers: Vec<(&str, Option<String>, &[Needs])> = vec![("no role", None, &[])];
        callers[0].1 = Some(site.token("north", "aaduser=nobody", &[])?);
        for (role, allowed) in ROLES {
            let principal = format!("aaduser={role}");
            let add = format!(".add database d {role} ('{principal}')");
            operator.command("d", &add).await?;
            callers.push((*role, Some(site.token("north", &principal, &[])?), *allowed));
        }
        for (role, allowed) in CLUSTER_ROLES {
            let principal = format!("aadapp={role}");
            callers.push((
                *role,
                Some(site.token("north", &principal, &[role])?),
                *allowed,
            ));
        }
        eventually("the newest token is known", async || {
            let newest = callers.last().and_then(|caller| caller.1.as_deref());
            let (status, _) = leader
                .as_caller(newest)
                .send("GET", "/v1/attachments", None)
                .await?;
            Ok(status == 200)
        })
        .await?;

        let mut number = 0;
        for (needs, call) in operations() {
            for (role, token, allowed) in &callers {
                number += 1;
                let (status, code) = send(&leader, token.as_deref(), &call, number).await?;
                let is_allowed = needs == Needs::Anybody || allowed.contains(&needs);
                let what = what(&call);
                if is_allowed {
                    ensure!(
                        status < 500 && status != 401 && status != 403,
                        "{role}: {what} was refused: {status} {code}"
                    );
                } else {
                    ensure!(
                        (status, code.to_lowercase().as_str()) == (403, "forbidden"),
                        "{role}: {what} answered {status} {code}"
                    );
                }
            }
            for token in [None, Some("0123456789abcdef")] {
                let (status, code) = send(&leader, token, &call, number).await?;
                ensure!(
                    status == 401 && code.eq_ignore_ascii_case("unauthenticated"),
                    "with token {token:?}: {} answered {status} {code}",
                    what(&call)
                );
            }
        }
        Ok(())
    })
    .await
}

/// A follower's own commands, and what it refuses to whoever asks.
fn operations_of_a_follower() -> Vec<(Needs, Call)> {
    use Call::{Command, Flight, Http, KustoQuery, Sql};
    use Needs::{Administer, Anybody, Metadata, Monitor, Query, Share};
    vec![
        (Query, Sql("SELECT count(*) FROM t")),
        (Query, KustoQuery("SELECT count(*) FROM t")),
        (Query, Flight("SELECT count(*) FROM t")),
        (Metadata, Command(".show follower database d")),
        (Metadata, Command(".show effective policy caching table t")),
        (Anybody, Command(".show follower databases")),
        (
            Administer,
            Command(".alter follower database d policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".delete follower database d policy caching"),
        ),
        (
            Administer,
            Command(".alter follower database d table t policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".delete follower database d table t policy caching"),
        ),
        (
            Administer,
            Command(".add follower database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".drop follower database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".alter follower database d principals-modification-kind = union"),
        ),
        (
            Administer,
            Command(".alter follower database d caching-policies-modification-kind = union"),
        ),
        (
            Administer,
            Command(".alter follower database d prefetch-extents = false"),
        ),
        (
            Administer,
            Command(".alter table t policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".add database d viewers ('aaduser=somebody')"),
        ),
        (Share, Http("GET", "/v1/attachments", None)),
        (
            Share,
            Http(
                "POST",
                "/v1/attachments",
                Some(r#"{"leader": "x", "database": "y"}"#),
            ),
        ),
        (Share, Http("DELETE", "/v1/attachments/gone", None)),
        (Monitor, Http("GET", "/metrics", None)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_holds_on_a_follower_too_whoever_gave_it() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = guarded_pair(site).await?;
        let mut callers: Vec<(String, String, &[Needs])> = vec![(
            "no role".into(),
            site.token("south", "aaduser=nobody", &[])?,
            &[],
        )];
        for (role, allowed) in ROLES {
            // Half of them by the leader, half by the follower itself.
            let principal = format!("aaduser={role}");
            let is_own = matches!(*role, "users" | "viewers" | "monitors");
            if is_own {
                let add = format!(".add follower database d {role} ('{principal}')");
                follower.command("d", &add).await?;
            } else {
                let add = format!(".add database d {role} ('{principal}')");
                leader.command("d", &add).await?;
            }
            callers.push((
                (*role).to_owned(),
                site.token("south", &principal, &[])?,
                *allowed,
            ));
        }
        for (role, allowed) in CLUSTER_ROLES {
            let token = site.token("south", &format!("aadapp={role}"), &[role])?;
            callers.push(((*role).to_owned(), token, *allowed));
        }
        eventually(
            "the newest token, and the newest principal, are known",
            async || {
                let newest = callers.last().map(|caller| caller.1.as_str());
                let (status, _) = follower
                    .as_caller(newest)
                    .send("GET", "/v1/attachments", None)
                    .await?;
                let known = follower.command("d", ".show database d principals").await?;
                Ok(status == 200 && known.len() == ROLES.len())
            },
        )
        .await?;
        for (needs, call) in operations_of_a_follower() {
            for (role, token, allowed) in &callers {
                let (status, code) = send(&follower, Some(token), &call, 0).await?;
                let what = what(&call);
                if needs == Needs::Anybody || allowed.contains(&needs) {
                    ensure!(
                        status < 500 && status != 401 && status != 403,
                        "{role}: {what} was refused: {status} {code}"
                    );
                } else {
                    ensure!(
                        (status, code.as_str()) == (403, "forbidden"),
                        "{role}: {what} answered {status} {code}"
                    );
                }
            }
            let (status, _) = send(&follower, None, &call, 0).await?;
            ensure!(status == 401, "{} without a token: {status}", what(&call));
        }

        // What is asked at the leader is asked with the caller's own token, not with the node's.
        let viewer = &callers
            .iter()
            .find(|c| c.0 == "viewers")
            .context("a viewer")?
            .1;
        let at_leader = "SELECT * FROM at_leader('SELECT count(*) FROM t')";
        let refused = follower
            .as_caller(Some(viewer))
            .refused("d", at_leader)
            .await?;
        ensure!(refused.message.contains("not known here"), "{refused}");
        Ok(())
    })
    .await
}

fn what(call: &Call) -> String {
    match call {
        Call::Sql(text) | Call::NodeSql(text) => format!("SQL {text}"),
        Call::Command(text) => format!("command {text}"),
        Call::KustoQuery(text) => format!("Kusto query {text}"),
        Call::Flight(text) => format!("Flight {text}"),
        Call::Ingest(table, _) => format!("ingest into {table}"),
        Call::Http(method, path, _) => format!("{method} {path}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_database_sees_no_name_of_another() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, operator) = guarded(site).await?;
        operator.create_database("hidden_database").await?;
        operator
            .ingest(
                "hidden_database",
                "hidden_table",
                "format=csv&create=true",
                "hidden_column\n1\n",
            )
            .await?;
        operator
            .sql(
                "hidden_database",
                "SELECT count(*) AS hidden_count FROM hidden_table",
            )
            .await?;
        operator
            .command("hidden_database", ".show table hidden_table")
            .await?;
        operator
            .command("d", ".add database d admins ('aaduser=ada')")
            .await?;
        let token = site.token("north", "aaduser=ada", &[])?;
        let ada = leader.as_caller(Some(&token));
        eventually("the token is known", async || {
            Ok(ada.send("GET", "/readyz", None).await?.1.contains("\"d\""))
        })
        .await?;

        let mut said = Vec::new();
        for table in [
            "databases",
            "tables",
            "extents",
            "followers",
            "leases",
            "queries",
        ] {
            let sql = format!("SELECT * FROM slipstream.{table}");
            said.push(
                ada.send(
                    "POST",
                    "/v1/sql",
                    Some(&json!({"database": "d", "sql": sql})),
                )
                .await?,
            );
        }
        for sql in [
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM information_schema.columns",
            "SELECT * FROM information_schema.schemata",
            "SELECT * FROM hidden_databas.t",
            "SELECT * FROM hidden_tabl",
            "SELECT hidden_colum FROM t",
            "SHOW TABLES",
        ] {
            said.push(
                ada.send(
                    "POST",
                    "/v1/sql",
                    Some(&json!({"database": "d", "sql": sql})),
                )
                .await?,
            );
        }
        for command in [
            ".show databases",
            ".show databases details",
            ".show databases datastats",
            ".show cluster extents",
            ".show queries",
            ".show commands",
            ".show commands-and-queries",
            ".show schema as json",
            ".show follower databases",
            ".show diagnostics",
            ".show capacity",
            ".show cluster",
        ] {
            let body = json!({"db": "d", "csl": command});
            said.push(ada.send("POST", "/v1/rest/mgmt", Some(&body)).await?);
        }
        for path in ["/", "/healthz", "/readyz", "/metrics", "/v1/attachments"] {
            said.push(ada.send("GET", path, None).await?);
        }
        for resource in [
            "databases",
            "attachedDatabaseConfigurations",
            "listFollowerDatabases",
        ] {
            let path = format!("{CLUSTER}/{resource}?api-version=2025-02-14");
            said.push(ada.send("GET", &path, None).await?);
        }
        for (status, body) in &said {
            // What was asked for by name is said back; what was not may not be.
            let echoed = ["hidden_databas'", "hidden_tabl'", "hidden_colum"];
            let mut rest = body.clone();
            for echo in echoed {
                rest = rest.replace(echo, "");
            }
            ensure!(!rest.contains("hidden"), "{status} {body}");
        }
        // Asked for by its right name it is no more there than one that is not.
        let there = ada.refused("hidden_database", "SELECT 1").await?;
        let gone = ada.refused("gone_database", "SELECT 1").await?;
        assert_eq!(there.code, gone.code);
        assert_eq!(
            there.message.replace("hidden_database", "X"),
            gone.message.replace("gone_database", "X")
        );
        let across = ada
            .refused("d", "SELECT * FROM hidden_database.hidden_table")
            .await?;
        ensure!(across.message.contains("there is no database"), "{across}");
        Ok(())
    })
    .await
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
