//! The crates depend on each other in one direction only, and each stays within its subject.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Which crates of ours each crate may use: the picture in ARCHITECTURE.md, as a table. A new
/// crate needs a line here.
const ARROWS: [(&str, &[&str]); 13] = [
    ("custom-labels", &[]),
    ("model", &[]),
    ("proto", &[]),
    ("kusto", &["model"]),
    ("storage", &["model", "proto"]),
    ("catalog", &["model", "proto", "storage"]),
    ("cache", &["model"]),
    ("query", &["model", "proto", "storage", "catalog"]),
    (
        "frontend",
        &["model", "proto", "storage", "catalog", "query", "kusto"],
    ),
    (
        "leader",
        &[
            "model", "proto", "storage", "catalog", "query", "frontend", "follower",
        ],
    ),
    (
        "follower",
        &[
            "model", "proto", "storage", "catalog", "cache", "query", "frontend",
        ],
    ),
    (
        "cli",
        &[
            "model", "proto", "kusto", "storage", "catalog", "cache", "query", "frontend",
            "leader", "follower",
        ],
    ),
    (
        "tests",
        &[
            "model", "proto", "kusto", "storage", "catalog", "query", "frontend", "leader",
            "follower", "cli",
        ],
    ),
];

/// Crates that may name the query engine; the others build without it.
const ABOVE_DATAFUSION: [&str; 6] = ["query", "frontend", "leader", "follower", "cli", "tests"];

/// What only `storage` may say: concrete stores are made there and nowhere else.
const CONCRETE_STORES: [&str; 6] = [
    "object_store::aws",
    "object_store::azure",
    "object_store::gcp",
    "object_store::http",
    "object_store::local",
    "AmazonS3Builder",
];

/// What nobody says who only reads: the types and calls that change a bucket.
const WRITES: [&str; 7] = [
    "BucketWriter",
    "DatabaseWriter",
    "ClusterWriter",
    ".put(",
    ".put_opts(",
    ".put_multipart(",
    ".delete(",
];

struct Package {
    directory: PathBuf,
    dependencies: BTreeSet<String>,
}

/// The packages of the workspace, by name without `slipstream-`, with what they depend on
/// outside of tests.
fn packages() -> Result<BTreeMap<String, Package>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("run cargo metadata")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = metadata["packages"].as_array().context("packages")?;
    list.iter().map(package).collect()
}

fn package(package: &Value) -> Result<(String, Package)> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    let manifest = PathBuf::from(text(&package["manifest_path"])?);
    let directory = manifest
        .parent()
        .context("a manifest has a folder")?
        .to_owned();
    let mut dependencies = BTreeSet::new();
    for dependency in package["dependencies"].as_array().context("dependencies")? {
        if dependency["kind"].is_null() {
            dependencies.insert(text(&dependency["name"])?);
        }
    }
    let name = text(&package["name"])?
        .trim_start_matches("slipstream-")
        .to_owned();
    Ok((
        name,
        Package {
            directory,
            dependencies,
        },
    ))
}

/// The Rust files below a folder, tests left out, with their lines of code: no comments.
fn sources(folder: &Path) -> Result<Vec<(PathBuf, Vec<String>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let code = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            let lines = code
                .lines()
                .map(str::trim)
                .filter(|line| !line.starts_with("//"));
            files.push((path, lines.map(str::to_owned).collect()));
        }
    }
    Ok(files)
}

/// Where a crate says one of these words.
fn places(package: &Package, words: &[&str]) -> Result<Vec<String>> {
    let mut places = Vec::new();
    for (path, lines) in sources(&package.directory.join("src"))? {
        for line in lines {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                places.push(format!("{}: {word}: {line}", path.display()));
            }
        }
    }
    Ok(places)
}

#[test]
fn crates_use_only_those_below_them() -> Result<()> {
    let packages = packages()?;
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        packages.keys().cloned().collect::<BTreeSet<_>>(),
        known,
        "crates of the workspace"
    );
    for (name, allowed) in ARROWS {
        for dependency in &packages[name].dependencies {
            if let Some(ours) = dependency.strip_prefix("slipstream-") {
                assert!(allowed.contains(&ours), "{name} must not depend on {ours}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_query_engine_stays_in_query_and_above() -> Result<()> {
    for (name, package) in packages()? {
        let engine = package
            .dependencies
            .iter()
            .find(|name| name.starts_with("datafusion"));
        let allowed = ABOVE_DATAFUSION.contains(&name.as_str());
        assert!(
            allowed || engine.is_none(),
            "{name} must not depend on {engine:?}"
        );
    }
    Ok(())
}

#[test]
fn only_storage_makes_concrete_stores() -> Result<()> {
    for (name, package) in packages()? {
        if name != "storage" && name != "tests" {
            assert_eq!(
                places(&package, &CONCRETE_STORES)?,
                Vec::<String>::new(),
                "{name}"
            );
        }
    }
    Ok(())
}

#[test]
fn follower_and_query_have_no_means_to_write_a_bucket() -> Result<()> {
    let packages = packages()?;
    for name in ["follower", "query"] {
        assert_eq!(
            places(&packages[name], &WRITES)?,
            Vec::<String>::new(),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn model_knows_no_task_and_no_file() -> Result<()> {
    let packages = packages()?;
    for banned in ["tokio", "object_store", "tonic", "prost"] {
        assert!(
            !packages["model"].dependencies.contains(banned),
            "model depends on {banned}"
        );
    }
    assert_eq!(
        places(&packages["model"], &["std::fs", "std::net"])?,
        Vec::<String>::new()
    );
    Ok(())
}
