//! What the fuzzers (`fuzz/`) found once stays found: their corpora are replayed, without libFuzzer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

#[path = "../../fuzz/targets/cached_file.rs"]
mod cached_file;
#[path = "../../fuzz/targets/checkpoint.rs"]
mod checkpoint;
#[path = "../../fuzz/targets/kusto_rest.rs"]
mod kusto_rest;
#[path = "../../fuzz/targets/log_commit.rs"]
mod log_commit;
#[path = "../../fuzz/targets/log_start.rs"]
mod log_start;
#[path = "../../fuzz/targets/management_command.rs"]
mod management_command;
#[path = "../../fuzz/panics.rs"]
mod panics;
#[path = "../../fuzz/targets/parquet_ingest.rs"]
mod parquet_ingest;
#[path = "../../fuzz/targets/sql.rs"]
mod sql;
#[path = "../../fuzz/targets/sync_message.rs"]
mod sync_message;
#[path = "../../fuzz/targets/text_ingest.rs"]
mod text_ingest;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 10] = [
    ("cached_file", cached_file::run),
    ("checkpoint", checkpoint::run),
    ("kusto_rest", kusto_rest::run),
    ("log_commit", log_commit::run),
    ("log_start", log_start::run),
    ("management_command", management_command::run),
    ("parquet_ingest", parquet_ingest::run),
    ("sql", sql::run),
    ("sync_message", sync_message::run),
    ("text_ingest", text_ingest::run),
];

/// What one input may take, as in `fuzz/run`.
const TIME_MAX: Duration = Duration::from_secs(10);
/// What one input may add to the memory of the process. Less than in `fuzz/run`, where the fuzzer
/// itself takes some.
const MEMORY_KIB_MAX: u64 = 1 << 20;
/// The stack of a thread that runs an input: that of a program's first one.
const STACK_BYTES: usize = 8 << 20;
/// Names the target to a process that replays its corpus.
const TARGET: &str = "SLIPSTREAM_FUZZ_TARGET";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The names of what is in a folder of `fuzz/`, without their endings.
fn names(within: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder().join(within)).with_context(|| within.to_owned())? {
        let path = entry?.path();
        let name = path.file_stem().context("a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

#[test]
fn every_target_is_replayed() -> Result<()> {
    let known = TARGETS.map(|(name, _)| name.to_owned());
    for within in ["targets", "bin", "corpus"] {
        assert_eq!(names(within)?, known, "fuzz/{within}");
    }
    Ok(())
}

#[test]
fn every_corpus_keeps_its_bounds() -> Result<()> {
    for (name, _) in TARGETS {
        let output = Command::new(std::env::current_exe()?)
            .args(["fuzz::replay", "--exact", "--ignored", "--nocapture"])
            .env(TARGET, name)
            .output()
            .context("replay in a process of its own")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said.contains("1 passed"),
            "the corpus of {name}:\n{}{said}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// One corpus, input by input: the one that is named last is the one to blame.
#[test]
#[ignore = "every_corpus_keeps_its_bounds runs it, once for each corpus in a process of its own"]
fn replay() -> Result<()> {
    let Ok(wanted) = std::env::var(TARGET) else {
        return Ok(());
    };
    let target = TARGETS.iter().find(|(name, _)| *name == wanted);
    let (name, run) = *target.context("a target")?;
    panics::abort_on_our_own();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder().join("corpus").join(name))? {
        files.push(entry?.path());
    }
    files.sort_unstable();
    ensure!(!files.is_empty(), "the corpus is empty");
    for path in files {
        eprintln!("{}", path.display());
        let before = memory_kib("VmRSS:");
        // From here on the largest amount is counted anew; where that is refused, it is one of the
        // whole process, which is no less.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        within_time(std::fs::read(&path)?, run)?;
        let taken = memory_kib("VmHWM:").saturating_sub(before);
        ensure!(taken <= MEMORY_KIB_MAX, "it takes {taken} KiB of memory");
    }
    Ok(())
}

fn within_time(data: Vec<u8>, run: fn(&[u8])) -> Result<()> {
    let (done, outcome) = mpsc::channel();
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            run(&data);
            let _ = done.send(());
        })?;
    match outcome.recv_timeout(TIME_MAX) {
        Ok(()) => Ok(()),
        Err(RecvTimeoutError::Timeout) => bail!("it takes more than {TIME_MAX:?}"),
        Err(RecvTimeoutError::Disconnected) => bail!("it panics"),
    }
}

/// What the system says of this process's memory; zero where it does not say.
fn memory_kib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
