//! Disks that are full soon, and directories that cannot be written: what file permissions do not
//! give a test that runs as root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Something mounted over a directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// A small file system in memory; `None` where mounting is not allowed, and says so.
    pub(crate) fn small(path: &Path, mebibytes: usize) -> Result<Option<Self>> {
        let size = format!("size={mebibytes}m");
        let arguments = ["-t", "tmpfs", "-o", &size, "slipstream-test"];
        Self::mount(&arguments, path)
    }

    /// The directory itself, but whoever names a path in it from now on cannot write there. `None`
    /// as above.
    pub(crate) fn read_only(path: &Path) -> Result<Option<Self>> {
        let source = path.to_str().context("a path of the test is text")?;
        Self::mount(&["--bind", "-o", "ro", source], path)
    }

    fn mount(arguments: &[&str], path: &Path) -> Result<Option<Self>> {
        let mounted = Command::new("mount")
            .args(arguments)
            .arg(path)
            .output()
            .context("run mount")?;
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr);
            eprintln!(
                "SKIPPED: this test needs the right to mount a disk: {}",
                why.trim()
            );
            return Ok(None);
        }
        Ok(Some(Self(path.to_owned())))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a node of a failed test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
