//! The directory of whole extents.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::RwLock;
use slipstream_model::{Digest, ExtentId};

use crate::HotExtent;

const ENDING: &str = ".parquet";

/// A file that could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// What came is not what the catalog says.
    #[error("extent {extent} does not have the content that the catalog says: {reason}")]
    Damaged {
        /// The extent.
        extent: ExtentId,
        /// How it differs.
        reason: String,
    },
    /// The disk does not take it.
    #[error("{path}: {source}", path = path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// How full the tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierUsage {
    /// Extents on the disk.
    pub extents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Extents on the local disk, by id. What is here is derived from the directory at the start.
#[derive(Debug)]
pub struct HotTier {
    directory: PathBuf,
    resident: RwLock<BTreeMap<ExtentId, u64>>,
}

impl HotTier {
    /// Opens a directory, and makes it when it is not there. Files that a crash left unfinished
    /// are removed, so the directory must belong to this process alone.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(directory: PathBuf) -> Result<Self, TierError> {
        let fail = |source| TierError::Disk {
            path: directory.clone(),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(fail)?;
        let mut resident = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            match id.and_then(|id| id.parse().ok()) {
                Some(id) => {
                    let length = entry.metadata().map_err(fail)?.len();
                    resident.insert(id, length);
                }
                None => std::fs::remove_file(entry.path()).map_err(fail)?,
            }
        }
        Ok(Self {
            directory,
            resident: RwLock::new(resident),
        })
    }

    /// What is here, with its sizes.
    pub fn resident(&self) -> BTreeMap<ExtentId, u64> {
        self.resident.read().clone()
    }

    /// How full it is.
    pub fn usage(&self) -> TierUsage {
        let resident = self.resident.read();
        TierUsage {
            extents: resident.len() as u64,
            bytes: resident.values().sum(),
        }
    }

    /// Whether an extent is here.
    pub fn holds(&self, extent: ExtentId) -> bool {
        self.resident.read().contains_key(&extent)
    }

    /// Opens an extent's file; `None` when it is not here. Whoever has it open keeps it, also when
    /// it is evicted. A file that is gone, or has another length than it had, is forgotten.
    pub(crate) fn file(&self, extent: ExtentId) -> Option<(File, PathBuf, u64)> {
        let size = *self.resident.read().get(&extent)?;
        let path = self.path(extent);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) if length == size => Some((file, path, size)),
            _ => {
                tracing::warn!(%extent, path = %path.display(), "a cached extent is lost; it is fetched again");
                self.evict(extent);
                None
            }
        }
    }

    /// Keeps an extent, once its bytes are found to be what the catalog says.
    ///
    /// # Errors
    /// When they are not, or the disk does not take them.
    pub fn insert(&self, wanted: &HotExtent, bytes: &Bytes) -> Result<(), TierError> {
        let damaged = |reason| TierError::Damaged {
            extent: wanted.extent,
            reason,
        };
        if bytes.len() as u64 != wanted.size_bytes {
            let (found, expected) = (bytes.len(), wanted.size_bytes);
            return Err(damaged(format!("{found} bytes, not {expected}")));
        }
        let found = Digest::of(bytes);
        if found != wanted.sha256 {
            let expected = wanted.sha256;
            return Err(damaged(format!("its SHA-256 is {found}, not {expected}")));
        }
        let path = self.path(wanted.extent);
        write_whole(&self.directory, &path, bytes).map_err(|source| TierError::Disk {
            path: path.clone(),
            source,
        })?;
        self.resident
            .write()
            .insert(wanted.extent, wanted.size_bytes);
        Ok(())
    }

    /// Lets an extent go.
    pub fn evict(&self, extent: ExtentId) {
        if self.resident.write().remove(&extent).is_some() {
            // A file that is gone already is what was wanted.
            let _ = std::fs::remove_file(self.path(extent));
        }
    }

    fn path(&self, extent: ExtentId) -> PathBuf {
        self.directory.join(format!("{extent}{ENDING}"))
    }
}

/// Writes beside the name and renames: under the name there is never half a file.
fn write_whole(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = tempfile::NamedTempFile::new_in(directory)?;
    beside.write_all(bytes)?;
    beside.as_file().sync_data()?;
    beside.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use slipstream_model::{DatabaseId, Timestamp};

    use super::*;

    fn wanted(bytes: &[u8]) -> HotExtent {
        HotExtent {
            database: DatabaseId::default(),
            extent: ExtentId::default(),
            size_bytes: bytes.len() as u64,
            sha256: Digest::of(bytes),
            max_created_on: Timestamp::default(),
        }
    }

    #[test]
    fn what_is_here_survives_a_restart_and_what_is_unfinished_does_not() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("hot");
        let bytes = Bytes::from_static(b"rows");
        let tier = HotTier::open(path.clone()).expect("usable");
        tier.insert(&wanted(&bytes), &bytes).expect("whole");
        std::fs::write(path.join(".tmpXYZ"), "half").expect("written");
        drop(tier);
        let tier = HotTier::open(path.clone()).expect("usable");
        assert_eq!(
            tier.usage(),
            TierUsage {
                extents: 1,
                bytes: 4
            }
        );
        assert_eq!(std::fs::read_dir(&path).expect("there").count(), 1);
        let (file, ..) = tier.file(ExtentId::default()).expect("here");
        tier.evict(ExtentId::default());
        assert!(!tier.holds(ExtentId::default()));
        let text = io::read_to_string(file).expect("whoever has it open keeps it");
        assert_eq!(text, "rows");
    }

    #[test]
    fn bytes_that_are_not_the_extents_do_not_enter() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tier = HotTier::open(directory.path().to_owned()).expect("usable");
        for wrong in [&b"rowz"[..], b"row", b""] {
            let refused = tier.insert(&wanted(b"rows"), &Bytes::copy_from_slice(wrong));
            assert!(
                matches!(refused, Err(TierError::Damaged { .. })),
                "{wrong:?}"
            );
        }
        assert_eq!(tier.usage(), TierUsage::default());
    }

    #[test]
    fn a_file_that_was_cut_short_is_forgotten() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bytes = Bytes::from_static(b"rows");
        let tier = HotTier::open(directory.path().to_owned()).expect("usable");
        tier.insert(&wanted(&bytes), &bytes).expect("whole");
        std::fs::write(tier.path(ExtentId::default()), "ro").expect("written");
        assert!(tier.file(ExtentId::default()).is_none());
        assert!(!tier.holds(ExtentId::default()));
    }
}
