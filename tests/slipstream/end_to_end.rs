//! What a user does in a day, over each kind of store.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{Node, Site, Store, eventually, write_stream};
use crate::types::small_batch;

#[tokio::test(flavor = "multi_thread")]
async fn a_day_over_a_directory() -> Result<()> {
    Site::run(Store::Directory, a_day).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_over_s3_as_moto_speaks_it() -> Result<()> {
    Site::run(Store::Moto, a_day).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_over_s3_as_seaweedfs_speaks_it() -> Result<()> {
    Site::run(Store::SeaweedFs, a_day).await
}

async fn a_day(site: &Site) -> Result<()> {
    let mut leader = site.leader("north").await?;
    let mut follower = site.follower("south", &leader).await?;
    leader.create_database("shop").await?;
    leader_defines_and_fills_tables(&leader).await?;
    leader_takes_every_format(site, &leader).await?;
    follower_serves_what_it_attached(&leader, &follower).await?;
    answers_come_in_every_format(&follower).await?;
    changes_reach_the_follower(&leader, &follower).await?;
    follower_refuses_writes_and_names_the_leader(&follower).await?;
    two_followers_agree(site, &leader, &follower).await?;
    follower_keeps_its_databases_over_a_restart(&leader, &mut follower).await?;
    leader_keeps_everything_over_a_restart(&mut leader, &follower).await?;
    follower_starts_with_the_leader_dead(&mut leader, &mut follower).await?;
    follower_catches_up_when_the_leader_is_back(&mut leader, &follower).await?;
    detaching_leaves_the_leader_alone(&leader, &follower).await
}

async fn leader_defines_and_fills_tables(leader: &Node) -> Result<()> {
    leader
        .sql(
            "shop",
            "CREATE TABLE item (id BIGINT NOT NULL, name VARCHAR, price DECIMAL(9, 2))",
        )
        .await?;
    let reply = leader
        .sql(
            "shop",
            "INSERT INTO item VALUES (1, 'pen', 1.50), (2, 'ink', 7.25), (3, NULL, NULL)",
        )
        .await?;
    assert_eq!(reply.rows[0]["rows"], json!(3));
    let version = reply.rows[0]["version"]
        .as_u64()
        .context("a write answers its version")?;
    assert_eq!(reply.version()?, version, "header and row name one version");

    leader
        .sql(
            "shop",
            "CREATE TABLE dear AS SELECT id, price FROM item WHERE price > 2",
        )
        .await?;
    assert_eq!(leader.count("shop", "SELECT count(*) FROM dear").await?, 1);

    // Several statements are one commit, over tables, or none.
    let before = leader.sql("shop", "SELECT 1").await?.version()?;
    let both = "INSERT INTO item VALUES (4, 'nib', 0.75); INSERT INTO dear VALUES (4, 0.75)";
    assert_eq!(leader.sql("shop", both).await?.version()?, before + 1);
    let half = "INSERT INTO item VALUES (5, 'cap', 1); INSERT INTO missing VALUES (5)";
    leader.refused("shop", half).await?;
    assert_eq!(leader.count("shop", "SELECT count(*) FROM item").await?, 4);
    assert_eq!(leader.sql("shop", "SELECT 1").await?.version()?, before + 1);

    // Other databases are reachable by name.
    leader.create_database("attic").await?;
    leader.sql("attic", "CREATE TABLE box (id BIGINT)").await?;
    leader
        .sql("attic", "INSERT INTO box VALUES (2), (9)")
        .await?;
    let join = "SELECT count(*) FROM item JOIN attic.box ON item.id = box.id";
    assert_eq!(leader.count("shop", join).await?, 1);
    leader.ask_node("DROP DATABASE attic").send().await?;
    assert_eq!(leader.refused("attic", "SELECT 1").await?.status, 404);
    Ok(())
}

async fn leader_takes_every_format(site: &Site, leader: &Node) -> Result<()> {
    let csv = "id,at,word\n1,2024-05-01T10:00:00Z,one\n2,NA,NA\n";
    let receipt = leader
        .ingest("shop", "log", "format=csv&create=true&tag=day-1", csv)
        .await?;
    assert_eq!(receipt["rows"], json!(2));
    assert_eq!(receipt["bad_rows"], json!(0));
    assert!(receipt["digest"].is_string());
    let lines = "{\"id\":3,\"word\":\"three\"}\n{\"id\":4,\"word\":null}\n";
    leader.ingest("shop", "log", "format=jsonl", lines).await?;
    assert_eq!(
        leader
            .sql("shop", "SELECT id, word FROM log ORDER BY id")
            .await?
            .rows,
        rows(json!([
            {"id": 1, "word": "one"}, {"id": 2, "word": null},
            {"id": 3, "word": "three"}, {"id": 4, "word": null},
        ]))?
    );
    assert_eq!(leader.count("shop", "SELECT count(at) FROM log").await?, 1);

    let batch = small_batch(10)?;
    let stream = write_stream(std::slice::from_ref(&batch))?;
    leader
        .ingest("shop", "arrow_in", "format=arrow&create=true", stream)
        .await?;
    let mut file = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    leader
        .ingest("shop", "arrow_in", "format=parquet", file.clone())
        .await?;

    // The leader can also fetch the file itself.
    let path = site.path().join("in.parquet");
    std::fs::write(&path, file)?;
    let options = format!("create=true&url=file://{}", path.display());
    leader.ingest("shop", "fetched", &options, "").await?;
    for (table, count) in [("arrow_in", 20), ("fetched", 10)] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(leader.count("shop", &sql).await?, count, "{table}");
    }

    // Creation time and tags are the user's to give.
    let options = "format=csv&creation_time=2020-02-03T00:00:00Z&tag=old&tag=first";
    leader
        .ingest("shop", "log", options, "id,at,word\n0,NA,zero\n")
        .await?;
    let extents = "SELECT count(*) FROM slipstream.extents WHERE database_name = 'shop' \
        AND table_name = 'log'";
    assert_eq!(leader.count("shop", extents).await?, 3);
    Ok(())
}

async fn follower_serves_what_it_attached(leader: &Node, follower: &Node) -> Result<()> {
    assert_eq!(
        follower.refused("shop", "SELECT 1").await?.status,
        404,
        "not attached yet"
    );
    let attachment = follower.attach(leader, "shop").await?;
    assert_eq!(attachment["leader"], json!("north"));
    assert_eq!(attachment["database"], json!("shop"));
    let again = follower.attach(leader, "shop").await?;
    assert_eq!(
        attachment["databases"][0]["database_id"], again["databases"][0]["database_id"],
        "attaching twice is one attach"
    );

    let sql = "SELECT id, name, price FROM item ORDER BY id";
    let there = leader.sql("shop", sql).await?;
    let here = follower
        .ask("shop", sql)
        .min_version(there.version()?)
        .send()
        .await?;
    assert_eq!(here.text(), there.text());
    assert_eq!(here.version()?, there.version()?);
    assert_eq!(here.digest()?, there.digest()?);
    assert_eq!(here.header("slipstream-database")?, "shop");
    assert_eq!(here.header("slipstream-versions-behind")?, "0");
    here.header("slipstream-last-contact")?;
    here.header("slipstream-lag-ms")?.parse::<u64>()?;
    here.header("slipstream-query-id")?;

    // Both sides tell of the attach.
    let modes =
        "SELECT database_access_mode FROM slipstream.databases WHERE database_name = 'shop'";
    assert_eq!(
        follower.sql("shop", modes).await?.value()?,
        &json!("ReadOnlyFollowing")
    );
    assert_eq!(
        leader.sql("shop", modes).await?.value()?,
        &json!("ReadWrite")
    );
    let followers =
        "SELECT follower_cluster FROM slipstream.followers WHERE database_name = 'shop'";
    eventually("the leader lists its follower", async || {
        let reply = leader.sql("shop", followers).await?;
        Ok(reply
            .rows
            .iter()
            .any(|row| row["follower_cluster"] == "south"))
    })
    .await?;
    eventually("the leader holds the follower's lease", async || {
        let leases = "SELECT count(*) FROM slipstream.leases WHERE follower_cluster = 'south'";
        Ok(leader.count("shop", leases).await? > 0)
    })
    .await?;
    let refused = leader.ask_node("DROP DATABASE shop").refused().await?;
    assert!(
        refused.message.contains("south"),
        "names the follower: {refused}"
    );
    Ok(())
}

async fn answers_come_in_every_format(follower: &Node) -> Result<()> {
    let ask = || follower.ask("shop", "SELECT id, name FROM item WHERE id < 3 ORDER BY id");
    assert_eq!(ask().body("text/csv").await?, "id,name\n1,pen\n2,ink\n");
    let lines = ask().body("application/x-ndjson").await?;
    assert_eq!(
        lines,
        "{\"id\":1,\"name\":\"pen\"}\n{\"id\":2,\"name\":\"ink\"}\n"
    );
    let (schema, batches) = ask().arrow().await?;
    assert_eq!(schema.field(0).name(), "id");
    assert_eq!(
        batches.iter().map(|batch| batch.num_rows()).sum::<usize>(),
        2
    );
    let ask = follower.ask("shop", "SELECT name FROM item WHERE id = $1 AND price > $2");
    let ask = ask.with("parameters", json!([2, 7]));
    assert_eq!(ask.send().await?.value()?, &json!("ink"));
    Ok(())
}

async fn changes_reach_the_follower(leader: &Node, follower: &Node) -> Result<()> {
    let version = leader
        .sql("shop", "CREATE TABLE fresh (a BIGINT)")
        .await?
        .version()?;
    let none = follower
        .ask("shop", "SELECT count(*) FROM fresh")
        .min_version(version);
    assert_eq!(none.send().await?.count()?, 0);

    leader.sql("shop", "INSERT INTO fresh VALUES (1)").await?;
    leader
        .sql("shop", "ALTER TABLE fresh ADD COLUMN b VARCHAR")
        .await?;
    let version = leader
        .sql("shop", "INSERT INTO fresh VALUES (2, 'two')")
        .await?
        .version()?;
    let all = follower
        .ask("shop", "SELECT a, b FROM fresh ORDER BY a")
        .min_version(version);
    let expected = json!([{"a": 1, "b": null}, {"a": 2, "b": "two"}]);
    assert_eq!(
        all.send().await?.rows,
        rows(expected)?,
        "older rows read as null"
    );

    let version = leader.sql("shop", "DROP TABLE fresh").await?.version()?;
    let gone = follower
        .ask("shop", "SELECT * FROM fresh")
        .min_version(version)
        .refused()
        .await?;
    assert!(gone.message.contains("fresh"), "{gone}");
    Ok(())
}

async fn follower_refuses_writes_and_names_the_leader(follower: &Node) -> Result<()> {
    for sql in [
        "INSERT INTO item VALUES (9, 'no', 1)",
        "CREATE TABLE mine (a BIGINT)",
        "CREATE TABLE mine AS SELECT 1 AS a",
        "DROP TABLE item",
        "ALTER TABLE item ADD COLUMN extra BIGINT",
        "CREATE DATABASE mine",
        "DROP DATABASE shop",
        "DELETE FROM item",
        "UPDATE item SET id = 1",
        "COPY item TO '/tmp/slipstream-must-not-exist.csv'",
        "CREATE EXTERNAL TABLE mine STORED AS CSV LOCATION '/etc/hostname'",
        "CREATE VIEW mine AS SELECT 1",
        "SELECT 1; DROP TABLE item",
    ] {
        let refused = follower.refused("shop", sql).await?;
        assert!((400..500).contains(&refused.status), "{sql}: {refused}");
    }
    for sql in ["INSERT INTO item VALUES (9, 'no', 1)", "DROP TABLE item"] {
        let refused = follower.refused("shop", sql).await?;
        assert!(
            refused.message.contains("follower"),
            "says what it is: {refused}"
        );
        assert!(
            refused.message.contains("north"),
            "names the leader: {refused}"
        );
    }
    let refused = follower
        .ingest_refused("shop", "item", "format=csv", "id\n9\n")
        .await?;
    assert!(
        refused.message.contains("north"),
        "names the leader: {refused}"
    );
    ensure!(!std::path::Path::new("/tmp/slipstream-must-not-exist.csv").exists());
    Ok(())
}

async fn two_followers_agree(site: &Site, leader: &Node, follower: &Node) -> Result<()> {
    let other = site.follower("east", leader).await?;
    other.attach_as(leader, "shop", "shop_east").await?;
    let version = leader
        .sql("shop", "INSERT INTO item VALUES (6, 'six', 6)")
        .await?
        .version()?;
    let sql = "SELECT sum(id) AS total FROM item";
    let first = follower
        .ask("shop", sql)
        .min_version(version)
        .send()
        .await?;
    let second = other.ask("shop", sql).min_version(version).send().await?;
    assert_eq!(first.version()?, second.version()?);
    assert_eq!(first.digest()?, second.digest()?);
    assert_eq!(first.text(), second.text());
    Ok(())
}

async fn follower_keeps_its_databases_over_a_restart(
    leader: &Node,
    follower: &mut Node,
) -> Result<()> {
    let status = follower.terminate().await?;
    ensure!(
        status.success(),
        "a follower that is asked to stop ends well: {status}"
    );
    let version = leader
        .sql("shop", "INSERT INTO item VALUES (7, 'seven', 7)")
        .await?
        .version()?;
    follower.restart().await?;
    follower.wait_ready().await?;
    let ask = follower
        .ask("shop", "SELECT count(*) FROM item WHERE id = 7")
        .min_version(version);
    assert_eq!(ask.send().await?.count()?, 1);
    Ok(())
}

async fn leader_keeps_everything_over_a_restart(leader: &mut Node, follower: &Node) -> Result<()> {
    let sql = "SELECT count(*) AS items, sum(id) AS total FROM item";
    let before = leader.sql("shop", sql).await?;
    let status = leader.terminate().await?;
    ensure!(
        status.success(),
        "a leader that is asked to stop ends well: {status}"
    );
    leader.restart().await?;
    leader.wait_ready().await?;
    let after = leader.sql("shop", sql).await?;
    assert_eq!(after.text(), before.text());
    ensure!(
        after.version()? > before.version()?,
        "opening for writing commits an epoch"
    );
    let version = leader
        .sql("shop", "INSERT INTO item VALUES (8, 'eight', 8)")
        .await?
        .version()?;
    follower.wait_for_version("shop", version).await
}

async fn follower_starts_with_the_leader_dead(
    leader: &mut Node,
    follower: &mut Node,
) -> Result<()> {
    let sql = "SELECT count(*) AS items, sum(id) AS total FROM item";
    let before = leader.sql("shop", sql).await?;
    leader.kill()?;
    assert_eq!(
        follower.sql("shop", sql).await?.text(),
        before.text(),
        "it outlives the leader"
    );
    follower.kill()?;
    follower.restart().await?;
    follower.wait_ready().await?;
    let after = follower.sql("shop", sql).await?;
    assert_eq!(after.text(), before.text(), "from the bucket alone");
    assert_eq!(after.digest()?, before.digest()?);
    let future = before.version()? + 1000;
    let ask = follower
        .ask("shop", sql)
        .min_version(future)
        .with("when_stale", json!("fail"));
    let refused = ask.refused().await?;
    assert!(
        refused.message.contains(&future.to_string()),
        "says what is missing: {refused}"
    );
    let ask = follower
        .ask("shop", sql)
        .min_version(future)
        .with("when_stale", json!("stale"));
    assert_eq!(ask.send().await?.text(), before.text());
    let ask = follower.ask("shop", sql).with("max_staleness", json!("0s"));
    ask.with("when_stale", json!("fail")).refused().await?;
    Ok(())
}

async fn follower_catches_up_when_the_leader_is_back(
    leader: &mut Node,
    follower: &Node,
) -> Result<()> {
    leader.restart().await?;
    leader.wait_ready().await?;
    let version = leader
        .sql("shop", "INSERT INTO item VALUES (10, 'ten', 10)")
        .await?
        .version()?;
    let ask = follower
        .ask("shop", "SELECT count(*) FROM item WHERE id = 10")
        .min_version(version);
    assert_eq!(ask.send().await?.count()?, 1);
    Ok(())
}

async fn detaching_leaves_the_leader_alone(leader: &Node, follower: &Node) -> Result<()> {
    follower.detach("shop").await?;
    assert_eq!(follower.refused("shop", "SELECT 1").await?.status, 404);
    let (status, _) = follower.get("/readyz").await?;
    assert_eq!(status, 200, "a follower of nothing is ready");
    assert_eq!(
        leader
            .count("shop", "SELECT count(*) FROM item WHERE id = 10")
            .await?,
        1
    );
    let attachment = follower.attach_as(leader, "shop", "again").await?;
    assert_eq!(
        attachment["name"],
        json!("again"),
        "the configuration's name, not the database's"
    );
    assert_eq!(
        follower
            .count("shop", "SELECT count(*) FROM item WHERE id = 10")
            .await?,
        1
    );
    Ok(())
}

fn rows(value: serde_json::Value) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
    Ok(serde_json::from_value(value)?)
}
