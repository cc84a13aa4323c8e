//! Attaching: one database, several, all of them; filters, names, conflicts, and detaching from
//! either side. The numbers are those of the capabilities that the tests hold.

mod databases;
mod declared;
mod ending;
mod filters;
mod following;
mod unnamed;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Client;

/// A database with two tables of one row each.
async fn create(leader: &Client, database: &str, tables: &[&str]) -> Result<u64> {
    leader.create_database(database).await?;
    let mut version = 0;
    for table in tables {
        let csv = format!("word\n{table}_content\n");
        let receipt = leader
            .ingest(database, table, "format=csv&create=true", csv)
            .await?;
        version = receipt["version"].as_u64().context("a version")?;
    }
    Ok(version)
}

async fn put(follower: &Client, body: &Value) -> Result<Value> {
    let (status, answer) = follower.post_json("/v1/attachments", body).await?;
    ensure!(status == 200, "{body} was refused: {status} {answer}");
    Ok(answer)
}

async fn refused(follower: &Client, body: &Value) -> Result<(u16, String)> {
    let before = follower.get_json("/v1/attachments").await?;
    let (status, answer) = follower.post_json("/v1/attachments", body).await?;
    ensure!(status >= 400, "{body} was accepted: {answer}");
    let after = follower.get_json("/v1/attachments").await?;
    ensure!(
        before == after,
        "a refused attach changed {before:?} to {after:?}"
    );
    let code = answer["error"]["code"].as_str().unwrap_or_default();
    Ok((status, code.to_owned()))
}

/// The tables that a node shows of a database.
async fn tables(node: &Client, database: &str) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT table_name FROM slipstream.tables WHERE database_name = '{database}' \
         ORDER BY table_name"
    );
    let reply = node.ask_node(&sql).send().await?;
    let names = reply.rows.iter().map(|row| row["table_name"].as_str());
    Ok(names.flatten().map(str::to_owned).collect())
}

async fn databases(node: &Client) -> Result<Vec<String>> {
    let sql = "SELECT database_name FROM slipstream.databases ORDER BY database_name";
    let reply = node.ask_node(sql).send().await?;
    let names = reply.rows.iter().map(|row| row["database_name"].as_str());
    Ok(names.flatten().map(str::to_owned).collect())
}

/// What a file or its folder's files hold, searched as `strings` would.
fn is_named_below(folder: &Path, word: &str) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if is_named_below(&path, word)? {
                return Ok(true);
            }
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if bytes
            .windows(word.len())
            .any(|window| window == word.as_bytes())
        {
            return Ok(true);
        }
    }
    Ok(false)
}
