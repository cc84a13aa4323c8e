//! The attached database configurations of a node, durable in one file.

use std::io::Write;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipstream_model::{BucketId, DatabaseId};

/// More attachments than this on one node are refused: each costs two streams and a task.
pub(crate) const ATTACHMENTS_MAX: usize = 1_000;

/// One attached database configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Its name, unique on this node.
    pub name: String,
    /// The leader cluster.
    pub leader: String,
    /// Where the leader answered gRPC when the database was attached.
    pub leader_url: String,
    /// The database at the leader, and here.
    pub database: String,
    /// Its id, which says where it stands in the bucket.
    pub database_id: DatabaseId,
    /// The bucket.
    pub bucket_id: BucketId,
}

/// The file's shape.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format_version: u32,
    attachments: Vec<Configuration>,
}

const FORMAT_VERSION: u32 = 1;

/// The file with the attachments could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}", path = path.display())]
pub struct AttachmentsError {
    path: PathBuf,
    reason: String,
}

/// All attachments of a node. Every change is on the disk before it counts.
#[derive(Debug)]
pub struct Attachments {
    path: PathBuf,
    configurations: Mutex<Vec<Configuration>>,
}

impl Attachments {
    /// Reads the attachments in a node's directory; none when there is no file.
    ///
    /// # Errors
    /// When the file cannot be read or is not one of ours.
    pub fn open(directory: &Path) -> Result<Self, AttachmentsError> {
        let path = directory.join("attachments.json");
        let fail = |reason: String| AttachmentsError {
            path: path.clone(),
            reason,
        };
        let file: File = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                fail(format!(
                    "not a list of attachments: {error}; repair it, or remove it and attach again"
                ))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Err(error) => return Err(fail(error.to_string())),
        };
        if file.format_version > FORMAT_VERSION {
            return Err(fail(format!(
                "format version {} is newer than this program",
                file.format_version
            )));
        }
        Ok(Self {
            path,
            configurations: Mutex::new(file.attachments),
        })
    }

    /// The attachments, in the order in which they were made.
    pub fn all(&self) -> Vec<Configuration> {
        self.configurations.lock().clone()
    }

    /// Adds one.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is added then.
    pub fn add(&self, configuration: Configuration) -> Result<(), AttachmentsError> {
        self.change(|configurations| configurations.push(configuration))
    }

    /// Removes the one of a name.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is removed then.
    pub fn remove(&self, name: &str) -> Result<(), AttachmentsError> {
        self.change(|configurations| configurations.retain(|known| known.name != name))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Configuration>)) -> Result<(), AttachmentsError> {
        let mut configurations = self.configurations.lock();
        let mut changed = configurations.clone();
        change(&mut changed);
        self.write(&changed).map_err(|error| AttachmentsError {
            path: self.path.clone(),
            reason: format!("cannot be written: {error}"),
        })?;
        *configurations = changed;
        Ok(())
    }

    /// Writes beside the file and renames, so that a crash leaves the old file or the new one.
    fn write(&self, configurations: &[Configuration]) -> std::io::Result<()> {
        let file = File {
            format_version: FORMAT_VERSION,
            attachments: configurations.to_vec(),
        };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut beside = tempfile::NamedTempFile::new_in(directory)?;
        beside.write_all(&serde_json::to_vec_pretty(&file)?)?;
        beside.as_file().sync_all()?;
        beside.persist(&self.path).map_err(|error| error.error)?;
        std::fs::File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(name: &str) -> Configuration {
        Configuration {
            name: name.to_owned(),
            leader: "leader".into(),
            leader_url: "http://127.0.0.1:7410".into(),
            database: "d".into(),
            database_id: DatabaseId::default(),
            bucket_id: BucketId::default(),
        }
    }

    #[test]
    fn attachments_survive_a_restart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let attachments = Attachments::open(directory.path()).expect("none yet");
        attachments.add(configuration("a")).expect("written");
        attachments.add(configuration("b")).expect("written");
        attachments.remove("a").expect("written");
        let again = Attachments::open(directory.path()).expect("readable");
        assert_eq!(again.all(), [configuration("b")]);
    }

    #[test]
    fn a_damaged_file_is_named_and_not_overwritten() {
        let directory = tempfile::tempdir().expect("temporary directory");
        std::fs::write(directory.path().join("attachments.json"), "{").expect("written");
        let error = Attachments::open(directory.path()).expect_err("damaged");
        assert!(error.to_string().contains("attachments.json"), "{error}");
    }
}
