//! The attached database configurations of a node, durable in one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipstream_frontend::runtime;
use slipstream_model::{
    AttachTerms, BucketId, DatabaseId, DatabaseName, DatabaseSelection, Overrides, PinName,
    PrincipalsModificationKind, Version,
};
use uuid::Uuid;

/// More attachments than this on one node are refused: each costs two streams and a task.
pub(crate) const ATTACHMENTS_MAX: usize = 1_000;

/// One attached database configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its name, unique on this node.
    pub name: String,
    /// New each time it is put, so that one that was detached and attached again meanwhile is
    /// told from what it was.
    pub revision: Uuid,
    /// The leader cluster.
    pub leader: String,
    /// Where the leader answered gRPC when the database was attached.
    pub leader_url: String,
    /// The bucket.
    pub bucket_id: BucketId,
    /// What is attached.
    pub terms: AttachTerms,
    /// Whether it came by an invitation, rather than by a right of this node at the leader.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_invited: bool,
    /// How principals combine in a database that comes with it.
    pub default_principals_modification_kind: PrincipalsModificationKind,
    /// The databases that have come with it. Kept, so that a follower starts while its leader is
    /// down.
    pub databases: Vec<FollowedDatabase>,
}

/// A database that came with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedDatabase {
    /// Its id, which says where it stands in the bucket.
    pub id: DatabaseId,
    /// Its name at the leader.
    pub original_name: DatabaseName,
    /// This node's own settings for it.
    pub overrides: Overrides,
    /// The versions of it that this node keeps by its lease.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<PinName, Version>,
}

impl Configuration {
    /// A database that comes with the configuration from now on.
    pub fn followed(&self, id: DatabaseId, original_name: DatabaseName) -> FollowedDatabase {
        FollowedDatabase {
            id,
            original_name,
            overrides: Overrides {
                principals_modification_kind: self.default_principals_modification_kind,
                ..Overrides::default()
            },
            pins: BTreeMap::new(),
        }
    }
}

/// The file's shape.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format_version: u32,
    attachments: Vec<Configuration>,
}

/// The file's shape before configurations had terms.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstFile {
    attachments: Vec<FirstConfiguration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstConfiguration {
    name: String,
    leader: String,
    leader_url: String,
    database: DatabaseName,
    database_id: DatabaseId,
    bucket_id: BucketId,
}

impl From<FirstConfiguration> for Configuration {
    fn from(first: FirstConfiguration) -> Self {
        let mut configuration = Self {
            name: first.name,
            revision: Uuid::nil(),
            leader: first.leader,
            leader_url: first.leader_url,
            bucket_id: first.bucket_id,
            terms: AttachTerms::of(DatabaseSelection::One(first.database.clone())),
            is_invited: false,
            default_principals_modification_kind: PrincipalsModificationKind::default(),
            databases: Vec::new(),
        };
        let followed = configuration.followed(first.database_id, first.database);
        configuration.databases.push(followed);
        configuration
    }
}

/// What every version of the file has.
#[derive(Debug, Deserialize)]
struct Header {
    format_version: u32,
}

const FORMAT_VERSION: u32 = 2;

fn read(bytes: &[u8]) -> Result<Vec<Configuration>, String> {
    let damaged = |error: serde_json::Error| {
        format!("not a list of attachments: {error}; repair it, or remove it and attach again")
    };
    let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
    match header.format_version {
        1 => {
            let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(damaged)?;
            if let Some(object) = value.as_object_mut() {
                object.remove("format_version");
            }
            let file: FirstFile = serde_json::from_value(value).map_err(damaged)?;
            Ok(file.attachments.into_iter().map(Into::into).collect())
        }
        FORMAT_VERSION => {
            let file: File = serde_json::from_slice(bytes).map_err(damaged)?;
            Ok(file.attachments)
        }
        newer => Err(format!("format version {newer} is newer than this program")),
    }
}

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
        let configurations = match std::fs::read(&path) {
            Ok(bytes) => read(&bytes).map_err(fail)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fail(error.to_string())),
        };
        Ok(Self {
            path,
            configurations: Mutex::new(configurations),
        })
    }

    /// The attachments, in the order in which they were made.
    pub fn all(&self) -> Vec<Configuration> {
        self.configurations.lock().clone()
    }

    /// The one of a name.
    pub fn get(&self, name: &str) -> Option<Configuration> {
        let configurations = self.configurations.lock();
        configurations
            .iter()
            .find(|known| known.name == name)
            .cloned()
    }

    /// Adds one, or puts it in the place of the one of that name.
    ///
    /// # Errors
    /// When the file cannot be written; nothing has changed then.
    pub fn set(&self, configuration: Configuration) -> Result<(), AttachmentsError> {
        self.change(|configurations| {
            match configurations
                .iter_mut()
                .find(|known| known.name == configuration.name)
            {
                Some(known) => *known = configuration,
                None => configurations.push(configuration),
            }
        })
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

    fn write(&self, configurations: &[Configuration]) -> std::io::Result<()> {
        let file = File {
            format_version: FORMAT_VERSION,
            attachments: configurations.to_vec(),
        };
        runtime::replace_file(&self.path, &serde_json::to_vec_pretty(&file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(name: &str) -> Configuration {
        let database = DatabaseName::new("d").expect("a name");
        let mut configuration = Configuration {
            name: name.to_owned(),
            revision: Uuid::nil(),
            leader: "leader".into(),
            leader_url: "http://127.0.0.1:7410".into(),
            bucket_id: BucketId::default(),
            terms: AttachTerms::of(DatabaseSelection::One(database.clone())),
            is_invited: false,
            default_principals_modification_kind: PrincipalsModificationKind::Union,
            databases: Vec::new(),
        };
        let followed = configuration.followed(DatabaseId::default(), database);
        configuration.databases.push(followed);
        configuration
    }

    #[test]
    fn a_file_of_the_first_format_is_read() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let nil = Uuid::nil();
        let text = format!(
            r#"{{"format_version": 1, "attachments": [{{"name": "a", "leader": "leader",
            "leader_url": "http://127.0.0.1:7410", "database": "d", "database_id": "{nil}",
            "bucket_id": "{nil}"}}]}}"#
        );
        std::fs::write(directory.path().join("attachments.json"), text).expect("written");
        let attachments = Attachments::open(directory.path()).expect("readable");
        assert_eq!(attachments.all(), [configuration("a")]);
    }

    #[test]
    fn pinned_versions_survive_a_restart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let attachments = Attachments::open(directory.path()).expect("none yet");
        let mut pinned = configuration("a");
        let name = PinName::new("end of year").expect("a name");
        pinned.databases[0].pins.insert(name, Version::new(7));
        attachments.set(pinned.clone()).expect("written");
        let again = Attachments::open(directory.path()).expect("readable");
        assert_eq!(again.all(), [pinned]);
    }

    #[test]
    fn attachments_survive_a_restart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let attachments = Attachments::open(directory.path()).expect("none yet");
        attachments.set(configuration("a")).expect("written");
        attachments.set(configuration("b")).expect("written");
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
