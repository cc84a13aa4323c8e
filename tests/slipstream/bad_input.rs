//! What goes wrong gets a clear error, nothing acknowledged is lost, and the process lives.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Node, PATIENCE, Site, Store, eventually, program, write_stream};
use crate::types::small_batch;

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_make_no_sense_are_refused_by_name() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = site.leader("leader").await?;
        let mut follower = site.follower("follower", &leader).await?;
        leader.create_database("d").await?;
        leader
            .sql("d", "CREATE TABLE item (id BIGINT, word VARCHAR)")
            .await?;
        leader
            .sql("d", "INSERT INTO item VALUES (1, 'one')")
            .await?;
        follower.attach(&leader, "d").await?;
        for node in [&leader, &follower] {
            for (database, sql, status, word) in [
                ("missing", "SELECT 1", 404, "missing"),
                ("d", "SELECT * FROM itme", 404, "itme"),
                ("d", "SELECT wrod FROM item", 400, "wrod"),
                ("d", "SELEC 1", 400, "SELEC"),
                ("d", "SELECT id +", 400, ""),
                ("d", "SELECT * FROM other.item", 404, "other"),
                (
                    "d",
                    "SELECT no_such_function(id) FROM item",
                    400,
                    "no_such_function",
                ),
                ("d", "SELECT CAST(word AS BIGINT) FROM item", 400, "one"),
                ("d", "", 400, ""),
            ] {
                let refused = node.refused(database, sql).await?;
                assert_eq!(refused.status, status, "{node}, {sql}: {refused}");
                ensure!(refused.message.contains(word), "{node}, {sql}: {refused}");
            }
            not_even_a_request(node).await?;
            assert_eq!(node.count("d", "SELECT count(*) FROM item").await?, 1);
        }
        let taken = leader.ask_node("CREATE DATABASE d").refused().await?;
        assert_eq!(taken.status, 409, "{taken}");
        leader
            .ask_node("CREATE DATABASE IF NOT EXISTS d")
            .send()
            .await?;
        let taken = leader.refused("d", "CREATE TABLE item (id BIGINT)").await?;
        assert_eq!(taken.status, 409, "{taken}");
        leader
            .sql("d", "CREATE TABLE IF NOT EXISTS item (id BIGINT)")
            .await?;
        leader.sql("d", "DROP TABLE IF EXISTS never_there").await?;
        assert_eq!(
            leader.refused("d", "DROP TABLE never_there").await?.status,
            404
        );
        for sql in [
            "INSERT INTO item VALUES (1)",
            "INSERT INTO item VALUES ('word', 'word')",
            "INSERT INTO item (nope) VALUES (1)",
            "ALTER TABLE item ADD COLUMN word VARCHAR",
            "ALTER TABLE item ADD COLUMN must BIGINT NOT NULL",
            "CREATE TABLE twice (a BIGINT, a BIGINT)",
        ] {
            let refused = leader.refused("d", sql).await?;
            assert!((400..500).contains(&refused.status), "{sql}: {refused}");
        }
        leader.ensure_alive()?;
        follower.ensure_alive()
    })
    .await
}

/// Requests that break the HTTP contract.
async fn not_even_a_request(node: &Node) -> Result<()> {
    for body in [
        json!({}),
        json!({"sql": 1}),
        json!({"sql": "SELECT 1", "unknown": 2}),
        json!([]),
    ] {
        let (status, answer) = node.post_json("/v1/sql", &body).await?;
        ensure!(
            (400..500).contains(&status),
            "{node}, {body}: {status} {answer}"
        );
        ensure!(
            answer["error"]["message"].is_string(),
            "{node}, {body}: {answer}"
        );
    }
    assert_eq!(node.get("/v1/nothing-here").await?.0, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_that_cannot_work_says_why() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let other_bucket = format!("file://{}", site.path().join("other").display());
        let arguments = ["--bucket", &other_bucket];
        let mut stranger = site
            .start("leader", "stranger", "stranger", &arguments)
            .await?;
        stranger.wait_ready().await?;
        stranger.create_database("theirs").await?;
        let north = format!("north={}", leader.grpc_url());
        let strange = format!("stranger={}", stranger.grpc_url());
        let arguments = ["--leader", &north, "--leader", &strange];
        let mut follower = site.start("follower", "south", "south", &arguments).await?;
        follower.wait_ready().await?;
        for (request, word) in [
            (json!({"leader": "nobody", "database": "d"}), "nobody"),
            (json!({"leader": "north", "database": "missing"}), "missing"),
            (
                json!({"leader": "stranger", "database": "theirs"}),
                "bucket",
            ),
            (json!({"leader": "north"}), "database"),
        ] {
            let message = attach_fails(&follower, &request).await?;
            ensure!(message.contains(word), "{request}: {message}");
        }
        follower.ensure_alive()?;
        follower.attach(&leader, "d").await?;
        let (status, answer) = follower.get_json("/readyz").await?;
        assert_eq!(status, 200, "what failed is not held against it: {answer}");
        Ok(())
    })
    .await
}

/// What both sides know of their sharing.
async fn sharing_of(leader: &Node, follower: &Node) -> Result<[serde_json::Value; 2]> {
    let followers = leader.get_json("/v1/followers").await?.1;
    Ok([followers, follower.get_json("/v1/attachments").await?.1])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_another_bucket_is_refused_and_neither_side_changes() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let other = format!("file://{}", site.path().join("other").display());
        let mut owner = site
            .start("leader", "owner", "owner", &["--bucket", &other])
            .await?;
        owner.wait_ready().await?;
        let address = format!("north={}", leader.grpc_url());
        let arguments = ["--leader", &address, "--bucket", &other];
        let mut follower = site.start("follower", "south", "south", &arguments).await?;
        follower.wait_ready().await?;
        let before = sharing_of(&leader, &follower).await?;
        let wanted = json!({"leader": "north", "database": "d"});
        let (status, answer) = follower.post_json("/v1/attachments", &wanted).await?;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (409, &json!("bucket_mismatch"))
        );
        assert_eq!(sharing_of(&leader, &follower).await?, before);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_opens_nothing() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let operator = site.token("north", "aaduser=operator", &["AllDatabasesAdmin"])?;
        let token = site.token("north", "aaduser=ada", &["AllDatabasesViewer"])?;
        let node = site.token("north", "aadapp=south", &["Contributor"])?;
        let mut leader = site.start("leader", "north", "north", &[]).await?;
        leader.set_token(&operator);
        leader.wait_ready().await?;
        leader.create_database("d").await?;
        let address = format!("north={}", leader.grpc_url());
        let arguments = ["--leader", &address, "--leader-token", &node];
        let mut follower = site.start("follower", "south", "south", &arguments).await?;
        follower.wait_ready().await?;
        follower.attach(&leader, "d").await?;
        let ada = leader.as_caller(Some(&token));
        assert_eq!(ada.get("/v1/overrides").await?.0, 200);
        let tokens = |arguments: &[&str]| {
            let mut run = program();
            run.arg("token").args(arguments).arg("--tokens");
            run.arg(site.path().join("north/tokens.json"));
            run.output()
        };
        let listed = String::from_utf8(tokens(&["list"])?.stdout)?;
        let is_id = |word: &&str| word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
        let revoke = |principal: &str| {
            let line = listed.lines().find(|line| line.contains(principal));
            let line = line.with_context(|| listed.clone())?;
            let id = line.split_whitespace().find(is_id).context("an id")?;
            let revoked = tokens(&["revoke", id])?;
            ensure!(revoked.status.success(), "{revoked:?}");
            Ok(())
        };
        revoke("aaduser=ada")?;
        eventually("ada is let in no more", async || {
            let (status, answer) = ada.get_json("/v1/overrides").await?;
            Ok(status == 401 && answer["error"]["code"] == "unauthenticated")
        })
        .await?;
        assert_eq!(leader.get("/v1/overrides").await?.0, 200, "others are");

        // Nor does it keep open what it opened before.
        let is_told_why = |line: &str| line.contains("is silent") && line.contains("revoked");
        ensure!(!follower.log().lines().any(is_told_why));
        revoke("aadapp=south")?;
        eventually("the follower's stream has ended", async || {
            Ok(follower.log().lines().any(is_told_why))
        })
        .await
    })
    .await
}

/// The name of a folder below another one, of which there is one.
fn only_folder(folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let mut entries = std::fs::read_dir(folder)?;
    Ok(entries.next().context("a folder")??.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn a52_an_attachment_says_how_far_it_has_come_and_why_it_failed() -> Result<()> {
    const CONFIGURATION: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/\
        clusters/south/attachedDatabaseConfigurations/d?api-version=2025-02-14";
    const OPERATION: &str = "/subscriptions/s/providers/Microsoft.Kusto/locations/local/\
        operationResults/64?api-version=2025-02-14";
    Site::run(Store::Directory, async |site| {
        let mut leader = site.leader("north").await?;
        leader.create_database("d").await?;
        leader.sql("d", "CREATE TABLE t (a INT)").await?;
        let mut follower = site.follower("south", &leader).await?;
        // With filters the leader is asked first, and waited for.
        let wanted = json!({"leader": "north", "database": "d",
            "sharing": {"tablesToInclude": ["t"]}});
        let (status, answer) = follower.post_json("/v1/attachments", &wanted).await?;
        ensure!(status == 200, "{status} {answer}");
        // Both say the same: the one is asked before and after the other, as it may change between.
        let state = async |follower: &Node| loop {
            let (_, before) = follower.get_json(CONFIGURATION).await?;
            let (_, all) = follower.get_json("/v1/attachments").await?;
            let (_, after) = follower.get_json(CONFIGURATION).await?;
            if before["properties"]["provisioningState"] == after["properties"]["provisioningState"]
            {
                let properties = after["properties"].clone();
                assert_eq!(
                    all[0]["provisioning_state"],
                    properties["provisioningState"]
                );
                return Ok::<_, anyhow::Error>((properties, all[0].clone()));
            }
        };
        eventually("the attachment has come", async || {
            Ok(state(&follower).await?.0["provisioningState"] == "Succeeded")
        })
        .await?;

        // A leader that takes calls and does not answer them: the follower waits for it for some seconds. On a
        // busy machine they can be over before anybody asks, so it may have to start again to be seen at it.
        leader.signal("-STOP")?;
        eventually("the attachment is seen while it comes", async || {
            follower.terminate().await?;
            follower.restart().await?;
            let (properties, _) = state(&follower).await?;
            let (_, running) = follower.get_json(OPERATION).await?;
            Ok(properties["provisioningState"] == "Creating" && running["status"] == "Running")
        })
        .await?;
        leader.signal("-CONT")?;
        eventually("the attachment has come", async || {
            Ok(state(&follower).await?.0["provisioningState"] == "Succeeded")
        })
        .await?;

        // None that answers, and a log that is damaged.
        leader.kill()?;
        follower.terminate().await?;
        let log = only_folder(&site.bucket_directory().join("databases"))?.join("log");
        let first = log.join(format!("{:020}.commit", 1));
        let whole = std::fs::read(&first)?;
        std::fs::write(&first, &whole[..whole.len() / 2])?;
        follower.restart().await?;
        eventually("the attachment has failed", async || {
            let (properties, attachment) = state(&follower).await?;
            let says = |error: &serde_json::Value| {
                error["code"] == "suspended"
                    && error["message"].as_str().is_some_and(|m| !m.is_empty())
            };
            Ok(properties["provisioningState"] == "Failed"
                && says(&properties["error"])
                && says(&attachment["error"]))
        })
        .await?;
        let (status, failed) = follower.get_json(OPERATION).await?;
        assert_eq!((status, &failed["status"]), (200, &json!("Failed")));
        assert_eq!(failed["error"]["code"], "suspended");
        let database = CONFIGURATION.replace("attachedDatabaseConfigurations", "databases");
        let (_, shown) = follower.get_json(&database).await?;
        let since = &shown["properties"]["suspensionDetails"]["suspensionStartDate"];
        ensure!(since.is_string(), "{shown}");

        std::fs::write(&first, whole)?;
        eventually("the attachment has come", async || {
            Ok(state(&follower).await?.0["provisioningState"] == "Succeeded")
        })
        .await?;
        let (_, done) = follower.get_json(OPERATION).await?;
        assert_eq!(done["status"], "Succeeded");
        Ok(())
    })
    .await
}

/// The message of an attach that fails: at once, or in its provisioning state.
async fn attach_fails(follower: &Node, request: &serde_json::Value) -> Result<String> {
    let (status, answer) = follower.post_json("/v1/attachments", request).await?;
    if status >= 400 {
        let message = answer["error"]["message"].as_str();
        return Ok(message.with_context(|| answer.to_string())?.to_owned());
    }
    let mut message = String::new();
    eventually("the attach fails", async || {
        let (_, all) = follower.get_json("/v1/attachments").await?;
        let all = all.as_array().cloned().unwrap_or_default();
        let one = all
            .iter()
            .find(|one| one["database"] == request["database"]);
        let one = one.cloned().unwrap_or_default();
        message = one["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(one["provisioning_state"] == "Failed")
    })
    .await?;
    if let Some(name) = request["database"].as_str() {
        follower.detach(name).await?;
    }
    Ok(message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_says_why_and_ends() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let grpc = leader.grpc_url().replace("http://", "");
        let data = site.path().join("failing").display().to_string();
        let local = [
            "--grpc",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--data-dir",
            &data,
        ];
        let cases: [(&[&str], &str, i32); 6] = [
            (
                &[
                    "leader",
                    "--data-dir",
                    &data,
                    "--http",
                    "127.0.0.1:0",
                    "--grpc",
                    &grpc,
                ],
                &grpc,
                1,
            ),
            (
                &["leader", "--bucket", "/dev/null/bucket"],
                "/dev/null/bucket",
                1,
            ),
            (&["leader", "--bucket", "ftp://host/x"], "ftp://host/x", 1),
            (
                &["leader", "--config", "/nowhere/slipstream.toml"],
                "/nowhere/slipstream.toml",
                1,
            ),
            (&["leader", "--no-such-flag"], "--no-such-flag", 2),
            (
                &["follower", "--leader", "not-an-address"],
                "not-an-address",
                2,
            ),
        ];
        for (arguments, word, status) in cases {
            let mut command = program();
            command.args(arguments).current_dir(site.path());
            if !arguments.contains(&"--grpc") {
                command.args(local);
            }
            if !arguments.contains(&"--bucket") {
                command.args(["--bucket", site.bucket()]);
            }
            let (found, output) = ends(command)
                .await
                .with_context(|| format!("{arguments:?}"))?;
            ensure!(
                output.contains(word),
                "{arguments:?} names {word}: {output}"
            );
            ensure!(
                found == 1 || found == status,
                "{arguments:?}: status {found}: {output}"
            );
        }
        let unreachable = ["leader", "--bucket", "s3://bucket/prefix"];
        let mut command = program();
        command
            .args(unreachable)
            .args(local)
            .current_dir(site.path());
        command
            .env("AWS_ENDPOINT", "http://127.0.0.1:1")
            .env("AWS_ALLOW_HTTP", "true");
        command
            .env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "x");
        let (status, output) = ends(command).await.context("an unreachable bucket")?;
        ensure!(
            status == 1 && output.contains("s3://bucket"),
            "status {status}: {output}"
        );
        Ok(())
    })
    .await
}

/// Waits for a program to end; gives its status, and what it said on standard error.
async fn ends(mut command: std::process::Command) -> Result<(i32, String)> {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            bail!(
                "it runs on: {}",
                String::from_utf8_lossy(&child.wait_with_output()?.stderr)
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = child.wait_with_output()?;
    let status = output.status.code().context("ended by a signal")?;
    Ok((status, String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_named_and_nothing_is_committed() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        leader.create_database("d").await?;
        leader
            .sql(
                "d",
                "CREATE TABLE t (id BIGINT NOT NULL, at TIMESTAMP, word VARCHAR)",
            )
            .await?;
        let version = leader.sql("d", "SELECT 1").await?.version()?;
        let csv = "id,at,word\n1,2024-01-01T00:00:00Z,a\n2,yesterday,b\n3,NA,c\nfour,NA,d\n";
        let options = "format=csv&source_name=visits.csv";
        let refused = leader.ingest_refused("d", "t", options, csv).await?;
        for word in ["visits.csv", "3", "at", "yesterday"] {
            ensure!(refused.message.contains(word), "names {word}: {refused}");
        }
        assert!((400..500).contains(&refused.status), "{refused}");
        let json = "{\"id\": 1, \"word\": \"a\"}\n{\"id\": \"many\", \"word\": \"b\"}\n";
        let refused = leader
            .ingest_refused("d", "t", "format=jsonl&source_name=v.jsonl", json)
            .await?;
        for word in ["v.jsonl", "2", "id", "many"] {
            ensure!(refused.message.contains(word), "names {word}: {refused}");
        }
        let after = leader.sql("d", "SELECT count(*) FROM t").await?;
        assert_eq!(
            (after.count()?, after.version()?),
            (0, version),
            "nothing is committed"
        );

        let refused = format!("{options}&max_bad_rows=1");
        leader.ingest_refused("d", "t", &refused, csv).await?;
        let receipt = leader
            .ingest("d", "t", &format!("{options}&max_bad_rows=2"), csv)
            .await?;
        assert_eq!(
            (&receipt["rows"], &receipt["bad_rows"]),
            (&json!(2), &json!(2)),
            "{receipt}"
        );
        let lines: Vec<_> = receipt["rejects"]
            .as_array()
            .context("rejects")?
            .iter()
            .collect();
        assert_eq!(lines[0]["line"], json!(3), "{receipt}");
        assert_eq!(lines[0]["column"], json!("at"), "{receipt}");
        assert_eq!(lines[0]["value"], json!("yesterday"), "{receipt}");
        assert_eq!(lines[1]["line"], json!(5), "{receipt}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_commits_nothing() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = site.leader("leader").await?;
        leader.create_database("d").await?;
        let stream = write_stream(&[small_batch(5000)?])?;
        leader
            .ingest("d", "t", "format=arrow&create=true", stream.clone())
            .await?;
        let version = leader.sql("d", "SELECT 1").await?.version()?;
        let half = stream.slice(..stream.len() / 2);
        let garbage = Bytes::from(vec![0xA7; 10_000]);
        for (options, body) in [
            ("format=arrow", half.clone()),
            ("format=parquet", half),
            ("format=parquet", garbage.clone()),
            ("format=arrow", garbage.clone()),
            ("format=jsonl", garbage.clone()),
            ("format=jsonl", Bytes::from_static(b"{\"id\": 1}\n{\"id\"")),
            ("format=parquet", Bytes::new()),
            (
                "format=csv",
                Bytes::from_static(b"id,nobody_knows_this\n1,2\n"),
            ),
            (
                "format=csv",
                Bytes::from_static(b"id,word\n1,\"never closed\n"),
            ),
            ("format=xml", Bytes::from_static(b"<x/>")),
            (
                "format=csv&max_bad_rows=many",
                Bytes::from_static(b"id\n1\n"),
            ),
            (
                "format=csv&creation_time=tomorrow",
                Bytes::from_static(b"id\n1\n"),
            ),
            ("url=file:///nowhere/x.csv", Bytes::new()),
        ] {
            let refused = leader.ingest_refused("d", "t", options, body).await;
            let refused = refused.with_context(|| options.to_owned())?;
            ensure!((400..500).contains(&refused.status), "{options}: {refused}");
        }
        leader
            .ingest_refused("d", "missing", "format=csv", "id\n1\n")
            .await?;
        leader
            .ingest_refused("missing", "t", "format=csv", "id\n1\n")
            .await?;
        hang_up_in_the_middle(&leader).await?;
        let after = leader.sql("d", "SELECT count(*) FROM t").await?;
        assert_eq!((after.count()?, after.version()?), (5000, version));
        leader.ingest("d", "t", "format=arrow", stream).await?;
        leader.ensure_alive()
    })
    .await
}

/// Announces a large body, sends a part and closes the connection.
async fn hang_up_in_the_middle(leader: &Node) -> Result<()> {
    let address = leader.http_url().replace("http://", "");
    let mut connection = tokio::net::TcpStream::connect(&address).await?;
    let head = format!(
        "POST /v1/ingest/d/t?format=csv HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000000\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(b"id,word\n1,one\n2,two\n").await?;
    connection.flush().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(connection);
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// Otherwise a client that is still sending finds the door shut, and does not hear why: with HTTP/2
/// curl tells of a stream that was reset.
#[tokio::test]
async fn a_refusal_comes_after_a_small_body() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let address = leader.http_url().replace("http://", "");
        let mut connection = tokio::net::TcpStream::connect(&address).await?;
        let head =
            format!("POST /nowhere HTTP/1.1\r\nhost: {address}\r\ncontent-length: 4\r\n\r\n");
        connection.write_all(head.as_bytes()).await?;
        connection.write_all(b"bod").await?;
        let mut answer = [0; 12];
        let early = tokio::time::timeout(
            Duration::from_millis(300),
            connection.read_exact(&mut answer),
        );
        ensure!(early.await.is_err(), "the body was not waited for");
        connection.write_all(b"y").await?;
        connection.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"HTTP/1.1 404");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_at_its_deadline_its_memory_limit_or_when_the_client_leaves() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let arguments = ["--query-memory", "24MiB"];
        let mut leader = site.start("leader", "leader", "leader", &arguments).await?;
        leader.wait_ready().await?;
        leader.create_database("d").await?;
        leader
            .ingest(
                "d",
                "t",
                "format=arrow&create=true",
                write_stream(&[small_batch(2000)?])?,
            )
            .await?;
        // Eight billion pairs: no machine answers that soon.
        let endless = "SELECT count(*) FROM t a, t b, t c WHERE a.score + b.score < c.score";
        let ask = leader.ask("d", endless).with("timeout", json!("500ms"));
        let refused = ask.refused().await?;
        assert_eq!(refused.code, "deadline_exceeded", "{refused}");
        ensure!(
            refused.message.contains("500ms"),
            "names the limit: {refused}"
        );

        let greedy = "SELECT array_agg(a.word || b.word) FROM t a, t b";
        let refused = leader.refused("d", greedy).await?;
        assert_eq!(refused.code, "resources_exhausted", "{refused}");
        ensure!(
            refused.message.contains("memory"),
            "names the limit: {refused}"
        );

        let client = (*leader).clone();
        let asked = tokio::spawn(async move { client.sql("d", endless).await });
        let running = "SELECT count(*) FROM slipstream.queries WHERE text LIKE '%a.score%' \
            AND text NOT LIKE '%slipstream.queries%' AND state = 'running'";
        eventually("the query runs", async || {
            Ok(leader.count("d", running).await? == 1)
        })
        .await?;
        asked.abort();
        eventually("the query is cancelled", async || {
            Ok(leader.count("d", running).await? == 0)
        })
        .await?;
        leader.ensure_alive()
    })
    .await
}
