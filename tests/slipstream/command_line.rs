//! The command line that scripts rely on: what goes to standard output, and the exit status.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Node, Site, Store, eventually, program, read_stream};

#[tokio::test(flavor = "multi_thread")]
async fn scripts_can_rely_on_the_command_line() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        let follower = site.follower("follower", &leader).await?;
        succeeds(&run(&leader, &["sql", "CREATE DATABASE d"], "")?)?;
        ingest_from_files_and_standard_input(site, &leader)?;
        attach_show_and_detach(&leader, &follower)?;
        formats_of_an_answer(&leader)?;
        failures_have_a_status(&leader)
    })
    .await
}

#[test]
fn a_cluster_is_simulated_and_the_report_stands_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let report = directory.path().join("out.html");
    let simulate = |more: &[&str]| {
        let scenario = [
            "simulate",
            "--duration",
            "6h",
            "--history",
            "1d",
            "--ingest",
        ];
        let mut command = program();
        command.args(scenario).arg("rows=100,every=1m").args(more);
        anyhow::Ok(succeeds(&command.output()?)?)
    };
    let harsh = [
        "--faults",
        "harsh",
        "--followers",
        "2",
        "--json",
        "--report",
    ];
    let harsh: Vec<&str> = harsh.into_iter().chain(report.to_str()).collect();
    let found: Value = serde_json::from_str(&simulate(&harsh)?)?;
    let page = std::fs::read_to_string(&report)?;
    // Six hours of a commit a minute, and merges beside them.
    let commits = found["outcome"]["commits"].as_u64().context("commits")?;
    let merges = found["outcome"]["merges"].as_u64().context("merges")?;
    assert_eq!(commits, 6 * 60 + merges);
    assert_eq!(page.matches("<svg").count(), 6);
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "it stands alone"
    );
    assert!(page.contains("follower-2") && page.contains(&commits.to_string()));
    // The same again, byte for byte; and another seed is another run.
    let again: Value = serde_json::from_str(&simulate(&harsh)?)?;
    assert_eq!(
        (found.clone(), &page),
        (again, &std::fs::read_to_string(&report)?)
    );
    let other: Vec<&str> = harsh.iter().copied().chain(["--seed", "1"]).collect();
    assert_ne!(found, serde_json::from_str::<Value>(&simulate(&other)?)?);

    let mut wrong = program();
    let refused = wrong.args(["simulate", "--ingest", "speed=3"]).output()?;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(told.contains("'speed' is not known here"), "{told}");
    Ok(())
}

/// Runs the program against a node.
fn run(node: &Node, arguments: &[&str], input: &str) -> Result<Output> {
    let (command, rest) = arguments.split_first().context("a command")?;
    let mut child = program()
        .arg(command)
        .args(["--url", &node.http_url()])
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?)
}

fn succeeds(output: &Output) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(0),
        "{}: {errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout.clone())?)
}

fn rows(output: &Output) -> Result<Vec<Value>> {
    let text = succeeds(output)?;
    serde_json::from_str(&text).with_context(|| format!("not an array of objects: {text}"))
}

fn ingest_from_files_and_standard_input(site: &Site, leader: &Node) -> Result<()> {
    let (first, second) = (site.path().join("one.csv"), site.path().join("two.csv"));
    std::fs::write(&first, "id,word\n1,one\n2,NA\n")?;
    std::fs::write(&second, "id,word\n3,three\n")?;
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let arguments = [
        "ingest", "-d", "d", "-t", "t", "--create", "--tag", "x", &first, &second,
    ];
    succeeds(&run(leader, &arguments, "")?)?;
    let arguments = ["ingest", "-d", "d", "-t", "t", "--format", "jsonl", "-"];
    succeeds(&run(
        leader,
        &arguments,
        "{\"id\": 4, \"word\": \"four\"}\n",
    )?)?;
    let counted = run(
        leader,
        &[
            "sql",
            "-d",
            "d",
            "--format",
            "csv",
            "SELECT count(*) AS n FROM t",
        ],
        "",
    )?;
    assert_eq!(succeeds(&counted)?.trim(), "n\n4");
    Ok(())
}

fn attach_show_and_detach(leader: &Node, follower: &Node) -> Result<()> {
    succeeds(&run(
        follower,
        &[
            "attach",
            "--leader",
            "leader",
            "--database",
            "d",
            "--name",
            "copy",
        ],
        "",
    )?)?;
    let arguments = [
        "sql",
        "-d",
        "d",
        "--format",
        "json",
        "SELECT id FROM t ORDER BY id",
    ];
    let ids: Vec<_> = rows(&run(follower, &arguments, "")?)?
        .iter()
        .map(|row| row["id"].clone())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    for (node, what, word) in [
        (leader, "databases", "ReadWrite"),
        (follower, "databases", "ReadOnlyFollowing"),
        (leader, "tables", "t"),
        (follower, "extents", "t"),
        (leader, "followers", "follower"),
    ] {
        let shown = succeeds(&run(node, &["show", what], "")?)?;
        ensure!(shown.contains(word), "show {what}: {shown}");
    }
    succeeds(&run(follower, &["detach", "--name", "copy"], "")?)?;
    let gone = run(follower, &["sql", "-d", "d", "SELECT 1"], "")?;
    assert_eq!(gone.status.code(), Some(1));
    Ok(())
}

fn formats_of_an_answer(leader: &Node) -> Result<()> {
    let ask = |format: &str| {
        run(
            leader,
            &[
                "sql",
                "-d",
                "d",
                "--format",
                format,
                "SELECT id, word FROM t ORDER BY id",
            ],
            "",
        )
    };
    let json = rows(&ask("json")?)?;
    assert_eq!(json[0], serde_json::json!({"id": 1, "word": "one"}));
    assert_eq!(json[1]["word"], Value::Null);
    assert_eq!(
        succeeds(&ask("csv")?)?,
        "id,word\n1,one\n2,\n3,three\n4,four\n"
    );
    let table = succeeds(&ask("table")?)?;
    ensure!(table.contains("word") && table.contains("three"), "{table}");
    let arrow = ask("arrow")?;
    ensure!(arrow.status.success());
    let (_, batches) = read_stream(&arrow.stdout)?;
    assert_eq!(
        batches.iter().map(|batch| batch.num_rows()).sum::<usize>(),
        4
    );
    let none = run(
        leader,
        &[
            "sql",
            "-d",
            "d",
            "--format",
            "json",
            "SELECT id FROM t WHERE id > 9",
        ],
        "",
    )?;
    assert_eq!(rows(&none)?, Vec::<Value>::new());
    // Statements can also come from standard input.
    let piped = run(
        leader,
        &["sql", "-d", "d", "--format", "json"],
        "SELECT max(id) AS m FROM t;\n",
    )?;
    assert_eq!(rows(&piped)?, [serde_json::json!({"m": 4})]);
    Ok(())
}

fn failures_have_a_status(leader: &Node) -> Result<()> {
    for (arguments, status) in [
        (&["sql", "-d", "d", "SELECT * FROM nowhere"][..], 1),
        (&["sql", "-d", "missing", "SELECT 1"], 1),
        (&["ingest", "-d", "d", "-t", "t", "/nowhere/at/all.csv"], 1),
        (&["attach", "--leader", "x", "--database", "d"], 1),
        (&["sql", "--format", "xml", "SELECT 1"], 2),
        (&["ingest", "file-without-table.csv"], 2),
        (&["show", "everything"], 2),
        (&["no-such-command"], 2),
    ] {
        let output = run(leader, arguments, "")?;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert_eq!(
            output.stdout, b"",
            "{arguments:?}: what is wrong goes to standard error"
        );
        assert_ne!(output.stderr, b"", "{arguments:?}: says what is wrong");
    }
    let mut unreachable = program();
    unreachable.args(["sql", "--url", "http://127.0.0.1:1", "SELECT 1"]);
    let output = unreachable.output()?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("127.0.0.1:1"), "names the address: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_a_follower_is_warmed_from_the_command_line() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("leader").await?;
        leader.create_database("d").await?;
        let mut extent_bytes = 0;
        for year in 2020..2026 {
            let options = format!("format=csv&create=true&creation_time={year}-01-01T00:00:00Z");
            let rows = format!("year\n{year}\n");
            let receipt = leader.ingest("d", "t", &options, rows).await?;
            extent_bytes = receipt["size_bytes"].as_u64().context("a size")?;
        }
        all_of_it(&leader, &follower(site, &leader, "wide", &[]).await?).await?;
        // Nearly four extents, in the 95 % that whole extents may take: each has its hashes besides.
        let disk = (extent_bytes * 15 / 4 * 100 / 95).to_string();
        let narrow = ["--cache-disk-bytes", &disk, "--cache-form", "parquet"];
        let narrow = follower(site, &leader, "narrow", &narrow).await?;
        let said = succeeds(&run(&narrow, &["warm", "d"], "")?)?;
        ensure!(
            said.contains("as warm as the disk allows: 3 of 6 extents"),
            "{said}"
        );
        // An extent in half a minute.
        let slow = follower(site, &leader, "slow", &["--cache-bandwidth", "20"]).await?;
        interrupted(&slow).await
    })
    .await
}

/// A follower with a cache, `d` attached.
async fn follower(site: &Site, leader: &Node, name: &str, arguments: &[&str]) -> Result<Node> {
    let address = format!("{}={}", leader.cluster(), leader.grpc_url());
    let mut all = vec!["--leader", &address];
    if !arguments.contains(&"--cache-disk-bytes") {
        all.extend(["--cache-disk-bytes", "100MB"]);
    }
    all.extend(arguments);
    let mut follower = site.start("follower", name, name, &all).await?;
    follower.wait_ready().await?;
    follower.attach(leader, "d").await?;
    Ok(follower)
}

async fn all_of_it(leader: &Node, follower: &Node) -> Result<()> {
    let said = succeeds(&run(follower, &["warm", "d"], "")?)?;
    ensure!(
        said.starts_with("database 'd' is warm: 6 extents") && said.lines().count() == 1,
        "{said}"
    );
    let arguments = ["warm", "d", "--table", "t", "--no-wait"];
    let said = succeeds(&run(follower, &arguments, "")?)?;
    ensure!(said.contains("table 't' of database 'd'"), "{said}");
    ensure!(said.contains("6 of 6 extents"), "{said}");
    for (node, table, phrase) in [
        (follower, "u", "no table 'u'"),
        (leader, "t", "does not follow"),
    ] {
        let refused = run(node, &["warm", "d", "-t", table], "")?;
        assert_eq!(refused.status.code(), Some(1));
        let error = String::from_utf8_lossy(&refused.stderr);
        ensure!(error.contains(phrase), "{error}");
    }
    let nothing = ".alter follower database d policy caching hot = 0d";
    follower.command("d", nothing).await?;
    eventually("nothing is hot", async || {
        let cache = follower.command("", ".show cache").await?;
        Ok(cache[0]["HotExtents"] == 0)
    })
    .await?;
    let said = succeeds(&run(follower, &["warm", "d"], "")?)?;
    ensure!(said.contains("nothing of database 'd' is hot"), "{said}");
    Ok(())
}

/// Ctrl-C ends the waiting, not the warming.
async fn interrupted(follower: &Node) -> Result<()> {
    let waiting = program()
        .args(["warm", "d", "--url", &follower.http_url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    eventually("the follower is asked how far it is", async || {
        let commands = follower.command("", ".show commands").await?;
        let texts = commands.iter().map(|command| command["Text"].as_str());
        Ok(texts.flatten().any(|text| text == ".show cache"))
    })
    .await?;
    let sent = Command::new("kill")
        .args(["-INT", &waiting.id().to_string()])
        .status()
        .context("run kill")?;
    ensure!(sent.success(), "kill -INT: {sent}");
    let ended = waiting.wait_with_output()?;
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stdout, b"");
    let error = String::from_utf8_lossy(&ended.stderr);
    ensure!(error.contains("goes on warming database 'd'"), "{error}");
    let cache = follower.command("", ".show cache").await?;
    ensure!(cache[0]["WaitingExtents"].as_u64() > Some(0), "{cache:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_to_its_end_and_cleans_up() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let directory = site.path().join("demo");
        let output = program()
            .arg("demo")
            .arg("--dir")
            .arg(&directory)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: {said}\n{errors}",
            output.status
        );
        ensure!(said.contains("336,776"), "it ingests all flights: {said}");
        ensure!(
            said.contains("read-only"),
            "it shows that a follower refuses writes: {said}"
        );
        assert_eq!(
            processes_of(&directory)?,
            Vec::<String>::new(),
            "it leaves no process behind"
        );
        Ok(())
    })
    .await
}

/// The command lines of running processes that name a directory; none where there is no `/proc`.
fn processes_of(directory: &Path) -> Result<Vec<String>> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Ok(Vec::new());
    };
    let name = directory.display().to_string();
    let mut found = Vec::new();
    for process in processes {
        // Most entries are not processes, and a process may end while it is looked at.
        let command = std::fs::read(process?.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&name) {
            found.push(command);
        }
    }
    Ok(found)
}
