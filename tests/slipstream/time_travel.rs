//! Tables as they were: the same answers on every node, at every version that is kept.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Client, Node, Site, Store, eventually};

const TABLES: [&str; 2] = ["t", "u"];
/// What turns merging off, and on again.
const OFF: &str =
    r#".alter database d policy merge '{"AllowRebuild": false, "AllowMerge": false}'"#;
const ON: &str = ".delete database d policy merge";

/// What a database was at a version.
#[derive(Debug)]
struct Moment {
    version: u64,
    /// A time at which this was the newest version, by the leader's clock.
    time: String,
    /// The rows of each table that there was.
    rows: BTreeMap<&'static str, String>,
}

impl Moment {
    async fn of(leader: &Node) -> Result<Self> {
        let reply = leader
            .sql("d", "SELECT CAST(now() AS VARCHAR) AS now")
            .await?;
        let time = reply.value()?.as_str().context("a time")?.to_owned();
        let version = reply.version()?;
        let known = "SELECT table_name FROM slipstream.tables WHERE database_name = 'd'";
        let known = leader.sql("d", known).await?.rows;
        let mut rows = BTreeMap::new();
        for table in TABLES {
            if known.iter().any(|row| row["table_name"] == table) {
                let sql = format!("SELECT * FROM {table} ORDER BY n");
                rows.insert(table, leader.sql("d", &sql).await?.text());
            }
        }
        Ok(Self {
            version,
            time,
            rows,
        })
    }

    /// Fails unless a node that sees some of the tables tells the same.
    async fn check(&self, node: &Client, visible: &[&str]) -> Result<()> {
        for clause in [
            format!("VERSION AS OF {}", self.version),
            format!("TIMESTAMP AS OF '{}'", self.time),
        ] {
            for table in TABLES {
                let sql = format!("SELECT * FROM {table} FOR {clause} ORDER BY n");
                let expected = self.rows.get(table).filter(|_| visible.contains(&table));
                let Some(expected) = expected else {
                    let refused = node.refused("d", &sql).await?;
                    ensure!(refused.code == "table_not_found", "{sql}: {refused}");
                    continue;
                };
                let told = node.sql("d", &sql).await.context(sql.clone())?.text();
                ensure!(&told == expected, "{sql}:\n{told}instead of\n{expected}");
            }
        }
        Ok(())
    }
}

async fn ingest(leader: &Node, table: &str, rows: &str) -> Result<()> {
    let options = "format=csv&create=true";
    leader.ingest("d", table, options, rows.to_owned()).await?;
    Ok(())
}

async fn extents(node: &Node) -> Result<Vec<String>> {
    let rows = node.command("d", ".show table t extents").await?;
    let ids = rows.iter().map(|row| row["ExtentId"].as_str());
    let ids = ids.map(|id| id.map(str::to_owned).context("an id"));
    ids.collect()
}

/// A leader with a database `d` that merges what it may.
async fn leader(site: &Site) -> Result<Node> {
    let options = ["--merge-interval", "100ms"];
    let mut leader = site.start("leader", "north", "north", &options).await?;
    leader.wait_ready().await?;
    leader.create_database("d").await?;
    leader.command("d", OFF).await?;
    Ok(leader)
}

/// Changes of every kind, and what the database was after each.
async fn history(leader: &Node) -> Result<Vec<Moment>> {
    let mut moments = vec![Moment::of(leader).await?];
    ingest(leader, "t", "n,note\n1,a\n2,b\n").await?;
    ingest(leader, "u", "n\n1\n").await?;
    moments.push(Moment::of(leader).await?);
    for n in 3..8 {
        ingest(leader, "t", &format!("n,note\n{n},c\n")).await?;
    }
    moments.push(Moment::of(leader).await?);
    leader.sql("d", "DELETE FROM t WHERE n = 2").await?;
    moments.push(Moment::of(leader).await?);
    leader.sql("d", "ALTER TABLE t ADD COLUMN more INT").await?;
    leader.sql("d", "INSERT INTO t VALUES (9, 'd', 90)").await?;
    moments.push(Moment::of(leader).await?);

    let before = extents(leader).await?.len();
    leader.command("d", ON).await?;
    eventually("extents are merged", async || {
        Ok(extents(leader).await?.len() < before)
    })
    .await?;
    leader.command("d", OFF).await?;
    moments.push(Moment::of(leader).await?);

    leader.sql("d", "ALTER TABLE t DROP COLUMN note").await?;
    leader.sql("d", "DROP TABLE u").await?;
    moments.push(Moment::of(leader).await?);
    leader
        .sql("d", "CREATE TABLE u (n BIGINT, other VARCHAR)")
        .await?;
    leader.sql("d", "INSERT INTO u VALUES (5, 'x')").await?;
    leader.command("d", ".drop extents from t").await?;
    moments.push(Moment::of(leader).await?);
    Ok(moments)
}

#[tokio::test]
async fn every_version_is_told_alike_by_leader_and_followers_also_when_the_leader_is_down()
-> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = leader(site).await?;
        let mut follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        let filtered = site.follower("west", &leader).await?;
        let request = json!({"leader": "north", "database": "d",
            "sharing": {"tablesToExclude": ["u"]}});
        let (status, answer) = filtered.post_json("/v1/attachments", &request).await?;
        ensure!(status == 200, "{status} {answer}");

        let moments = history(&leader).await?;
        let newest = leader.sql("d", "SELECT 1").await?.version()?;
        for node in [&follower, &filtered] {
            node.wait_for_version("d", newest).await?;
        }
        for moment in &moments {
            moment.check(&leader, &TABLES).await?;
            moment.check(&follower, &TABLES).await?;
            moment.check(&filtered, &["t"]).await?;
        }

        let shown = leader.command("d", ".show database d versions").await?;
        ensure!(shown[0]["Version"] == newest, "{shown:?}");
        let changes: Vec<_> = shown.iter().map(|row| &row["Changes"]).collect();
        ensure!(changes.contains(&&json!("DropTable")), "{changes:?}");
        let told = follower.command("d", ".show database d versions").await?;
        ensure!(told == shown, "{told:?}");
        let told = filtered.command("d", ".show database d versions").await?;
        let digests = |rows: &[Value]| -> Vec<Value> {
            rows.iter().map(|row| row["Digest"].clone()).collect()
        };
        ensure!(digests(&told) == digests(&shown), "{told:?}");

        // Newest first, and by a node that has just started: nothing is known of what is below.
        leader.kill()?;
        follower.restart().await?;
        follower.wait_ready().await?;
        follower.wait_for_version("d", newest).await?;
        for moment in moments.iter().rev() {
            moment.check(&follower, &TABLES).await?;
            moment.check(&filtered, &["t"]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_query_may_read_several_versions_of_a_table() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        ingest(&leader, "t", "n\n1\n2\n").await?;
        let before = leader.sql("d", "SELECT 1").await?.version()?;
        ingest(&leader, "t", "n\n3\n").await?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        for node in [&leader, &follower] {
            let sql = format!(
                "SELECT count(*) FROM t WHERE n NOT IN (SELECT n FROM t FOR VERSION AS OF {before})"
            );
            assert_eq!(node.count("d", &sql).await?, 1);
            let sql = format!(
                "SELECT count(*) FROM d.t AS now JOIN d.t FOR VERSION AS OF {before} AS was \
                 ON now.n = was.n"
            );
            assert_eq!(node.count("d", &sql).await?, 2);
            // All of a request's tables at once, and its answer says so.
            let sql = format!("SET version = {before}; SELECT count(*) FROM t");
            let reply = node.sql("d", &sql).await?;
            assert_eq!((reply.count()?, reply.version()?), (2, before));
            let sql = format!(
                "SET version = {before}; \
                 SELECT count(*) FROM t FOR VERSION AS OF {} AS now LEFT JOIN t ON now.n = t.n \
                 WHERE t.n IS NULL",
                before + 1
            );
            assert_eq!(node.count("d", &sql).await?, 1);
            let refused = node.refused("d", "SET version = 99; SELECT 1").await?;
            assert_eq!(refused.code, "version_not_found", "{refused}");
        }
        let change = format!("SET version = {before}; INSERT INTO t VALUES (1)");
        let refused = leader.refused("d", &change).await?;
        ensure!(refused.message.contains("is for queries"), "{refused}");
        // What was deleted by mistake comes back.
        leader.sql("d", "DELETE FROM t").await?;
        let restore = format!("INSERT INTO t SELECT * FROM t FOR VERSION AS OF {before}");
        leader.sql("d", &restore).await?;
        assert_eq!(leader.count("d", "SELECT sum(n) FROM t").await?, 3);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_by_name() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = leader(site).await?;
        ingest(&leader, "t", "n\n1\n2\n").await?;
        let version = leader.sql("d", "SELECT 1").await?.version()?;
        let follower = site.follower("south", &leader).await?;
        follower.attach(&leader, "d").await?;
        for node in [&leader, &follower] {
            for (clause, code, words) in [
                ("VERSION AS OF 1000", "version_not_found", "not there yet"),
                ("VERSION AS OF 0", "version_not_found", "counted from 1"),
                ("VERSION AS OF 'x'", "syntax_error", "number of a version"),
                (
                    "TIMESTAMP AS OF '1999-12-31'",
                    "version_not_found",
                    "nothing had been committed",
                ),
                (
                    "TIMESTAMP AS OF 'yesterday'",
                    "syntax_error",
                    "takes a time such as",
                ),
                ("VERSION AS OF 1", "table_not_found", "at version 1"),
            ] {
                let sql = format!("SELECT * FROM t FOR {clause}");
                let refused = node.refused("d", &sql).await?;
                ensure!(refused.code == code, "{sql}: {refused}");
                ensure!(refused.message.contains(words), "{sql}: {refused}");
            }
        }

        // A file that is gone is named, and so is the version that needs it.
        let gone = extents(&leader).await?;
        leader.command("d", ".drop extents from t").await?;
        let folder = site.bucket_directory().join(site.only_database_folder()?);
        for id in &gone {
            std::fs::remove_file(folder.join(format!("extents/{id}.parquet")))?;
        }
        let newest = leader.sql("d", "SELECT 1").await?.version()?;
        follower.wait_for_version("d", newest).await?;
        let sql = format!("SELECT n FROM t FOR VERSION AS OF {version} WHERE n > 0");
        for node in [&leader, &follower] {
            let refused = node.refused("d", &sql).await?;
            assert_eq!((refused.status, &*refused.code), (404, "version_not_kept"));
            let words = format!("version {version} is no longer kept");
            ensure!(refused.message.contains(&words), "{refused}");
            ensure!(refused.message.contains(&gone[0]), "{refused}");
            assert_eq!(node.count("d", "SELECT count(*) FROM t").await?, 0);
        }
        Ok(())
    })
    .await
}
