//! The directory of whole extents.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use slipstream_model::{DigestBuilder, ExtentId};
use tempfile::NamedTempFile;

use crate::checked::{self, CheckedFile, CheckedFileError, CheckedWriter, Source};
use crate::{Form, HotExtent, Resident};

/// Says whose directory it is.
const OWNER_FILE: &str = "owner";
/// What is being written; the rest of the name is anything.
const UNFINISHED: &str = ".unfinished-";
/// An owner's name is short; a file of that name that is not ours may be anything.
const OWNER_BYTES_MAX: u64 = 4_096;

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
    /// The directory is another node's.
    #[error(
        "{path} is the cache of {owner}, and this is {this}: give each follower a --data-dir of its \
         own, or remove the directory",
        path = path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who wants it.
        this: String,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process", path = path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
}

/// How full the tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierUsage {
    /// Extents on the disk.
    pub extents: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// An extent that is open. It can be read to its end, though it is evicted meanwhile.
#[derive(Debug, Clone)]
pub struct OpenExtent {
    /// Its form.
    pub form: Form,
    /// Its payload.
    pub file: Arc<CheckedFile>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    form: Form,
    resident: Resident,
}

/// Extents on the local disk, by id. What is here is derived from the directory at the start.
#[derive(Debug)]
pub struct HotTier {
    directory: PathBuf,
    kept: RwLock<BTreeMap<ExtentId, Kept>>,
    losses: AtomicU64,
    /// Held as long as the tier lives: nobody else may open the directory.
    _lock: File,
}

impl HotTier {
    /// Opens a directory, and makes it when it is not there. Files that a crash left unfinished
    /// are removed, and so are extents that are not whole; what is not a file of ours stays.
    ///
    /// # Errors
    /// When the directory cannot be used, or is another owner's.
    pub fn open(directory: PathBuf, owner: &str) -> Result<Self, TierError> {
        let fail = |source| TierError::Disk {
            path: directory.clone(),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(fail)?;
        let lock = own(&directory, owner)?;
        let mut kept = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(UNFINISHED) && path.is_file() {
                std::fs::remove_file(&path).map_err(fail)?;
            } else if let Some((extent, form)) = name_of(&path) {
                match resident(&path) {
                    // Of two forms, one was to replace the other: either will do.
                    Ok(resident) => drop(kept.insert(extent, Kept { form, resident })),
                    Err(error) => {
                        tracing::warn!(%error, "an extent in the cache is not whole, and goes");
                        std::fs::remove_file(&path).map_err(fail)?;
                    }
                }
            } else if name != OWNER_FILE {
                tracing::warn!(path = %path.display(), "not a file of the cache: left alone");
            }
        }
        Ok(Self {
            directory,
            kept: RwLock::new(kept),
            losses: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// What is here.
    pub fn resident(&self) -> BTreeMap<ExtentId, Resident> {
        let kept = self.kept.read();
        kept.iter().map(|(id, kept)| (*id, kept.resident)).collect()
    }

    /// How full it is.
    pub fn usage(&self) -> TierUsage {
        let kept = self.kept.read();
        TierUsage {
            extents: kept.len() as u64,
            bytes: kept.values().map(|kept| kept.resident.file_bytes).sum(),
        }
    }

    /// What is here of an extent.
    pub fn holds(&self, extent: ExtentId) -> Option<Resident> {
        Some(self.kept.read().get(&extent)?.resident)
    }

    /// The form in which an extent is here.
    pub fn form(&self, extent: ExtentId) -> Option<Form> {
        Some(self.kept.read().get(&extent)?.form)
    }

    /// Opens an extent, when it is here. One that turns out not to be whole is forgotten.
    pub fn open_extent(&self, extent: ExtentId) -> Option<OpenExtent> {
        let form = self.kept.read().get(&extent)?.form;
        match CheckedFile::open(self.path(extent, form)) {
            Ok(file) => Some(OpenExtent {
                form,
                file: Arc::new(file),
            }),
            Err(error) => {
                self.found_broken(extent, &error);
                None
            }
        }
    }

    /// Lets go of an extent whose file is damaged or gone: it will be fetched again. A disk that only
    /// does not answer now takes nothing away.
    pub fn found_broken(&self, extent: ExtentId, error: &CheckedFileError) {
        if let CheckedFileError::Disk { source, .. } = error
            && source.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%extent, %error, "an extent in the cache cannot be read now");
            return;
        }
        metrics::counter!("slipstream_cache_damaged_total").increment(1);
        tracing::warn!(%extent, %error, "an extent in the cache cannot be read, and is forgotten");
        self.forget(extent, error.path());
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Extents that were found broken since the start: each of them is to be fetched again.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Begins to take in an extent as it is in the bucket.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn begin(self: &Arc<Self>, wanted: HotExtent) -> Result<Insertion, TierError> {
        let fail = |source| TierError::Disk {
            path: self.directory.clone(),
            source,
        };
        let file = unfinished(&self.directory).map_err(fail)?;
        Ok(Insertion {
            tier: Arc::clone(self),
            wanted,
            writer: CheckedWriter::new(file),
            digest: DigestBuilder::default(),
            bytes: 0,
        })
    }

    /// Keeps a payload that was made from an extent's checked bytes. Gives the bytes it takes.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn insert(
        &self,
        wanted: &HotExtent,
        form: Form,
        payload: &Bytes,
    ) -> Result<Resident, TierError> {
        let fail = |source| TierError::Disk {
            path: self.path(wanted.extent, form),
            source,
        };
        let mut writer = CheckedWriter::new(unfinished(&self.directory).map_err(fail)?);
        writer.write(payload).map_err(fail)?;
        self.keep(wanted, form, writer)
    }

    /// Gives a file that is written its name: under that there is never half a file.
    fn keep(
        &self,
        wanted: &HotExtent,
        form: Form,
        writer: CheckedWriter<NamedTempFile>,
    ) -> Result<Resident, TierError> {
        let path = self.path(wanted.extent, form);
        let fail = |source| TierError::Disk {
            path: path.clone(),
            source,
        };
        let source = Source {
            size_bytes: wanted.size_bytes,
            sha256: wanted.sha256,
        };
        let (file, file_bytes) = writer.finish(&source).map_err(fail)?;
        file.persist(&path).map_err(|error| fail(error.error))?;
        let resident = Resident {
            file_bytes,
            sha256: wanted.sha256,
        };
        let replaced = self
            .kept
            .write()
            .insert(wanted.extent, Kept { form, resident });
        if let Some(old) = replaced.filter(|old| old.form != form) {
            let _ = std::fs::remove_file(self.path(wanted.extent, old.form));
        }
        Ok(resident)
    }

    /// Lets an extent go. One whose file cannot be removed is still here, and takes its room.
    pub fn evict(&self, extent: ExtentId) {
        let Some(kept) = self.kept.write().remove(&extent) else {
            return;
        };
        let path = self.path(extent, kept.form);
        match std::fs::remove_file(&path) {
            // A file that is gone already is what was wanted.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%extent, path = %path.display(), %error, "an extent cannot be evicted");
                self.kept.write().entry(extent).or_insert(kept);
            }
            _ => {}
        }
    }

    /// Forgets an extent whose file cannot be read, unless another file has taken its place since.
    fn forget(&self, extent: ExtentId, path: &Path) {
        let mut kept = self.kept.write();
        let form = kept.get(&extent).map(|kept| kept.form);
        if form.is_some_and(|form| self.path(extent, form) == path) {
            kept.remove(&extent);
            drop(kept);
            // It goes if it can.
            let _ = std::fs::remove_file(path);
        }
    }

    fn path(&self, extent: ExtentId, form: Form) -> PathBuf {
        self.directory.join(format!("{extent}.{form}"))
    }
}

fn name_of(path: &Path) -> Option<(ExtentId, Form)> {
    let form = Form::of_extension(path.extension()?.to_str()?)?;
    let extent = path.file_stem()?.to_str()?.parse().ok()?;
    Some((extent, form))
}

fn resident(path: &Path) -> Result<Resident, CheckedFileError> {
    let file = CheckedFile::open(path.to_owned())?;
    Ok(Resident {
        file_bytes: checked::file_bytes(file.payload_bytes()),
        sha256: file.source().sha256,
    })
}

/// Takes the directory for an owner, until the file that comes back is closed.
fn own(directory: &Path, owner: &str) -> Result<File, TierError> {
    let path = directory.join(OWNER_FILE);
    let fail = |source| TierError::Disk {
        path: path.clone(),
        source,
    };
    let mut file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)
        .map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(TierError::Busy {
                path: directory.to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    let mut found = String::new();
    let mut start = Read::by_ref(&mut file).take(OWNER_BYTES_MAX);
    start.read_to_string(&mut found).map_err(fail)?;
    if found.is_empty() {
        file.write_all(owner.as_bytes()).map_err(fail)?;
        file.sync_data().map_err(fail)?;
    } else if found != owner {
        return Err(TierError::Foreign {
            path: directory.to_owned(),
            owner: found,
            this: owner.to_owned(),
        });
    }
    Ok(file)
}

/// A file beside the others, which goes away unless it is given a name.
fn unfinished(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED).tempfile_in(directory)
}

/// An extent on its way to the disk. Nothing of it stays unless it is finished.
pub struct Insertion {
    tier: Arc<HotTier>,
    wanted: HotExtent,
    writer: CheckedWriter<NamedTempFile>,
    digest: DigestBuilder,
    bytes: u64,
}

impl fmt::Debug for Insertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Insertion")
            .field("wanted", &self.wanted)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Insertion {
    /// Adds the next bytes. Hashes and writes them: not on a thread that serves others.
    ///
    /// # Errors
    /// When there are more than the extent has, or the disk does not take them.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), TierError> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.wanted.size_bytes {
            return Err(self.damaged(format!("more than {} bytes", self.wanted.size_bytes)));
        }
        self.digest.update(piece);
        self.writer.write(piece).map_err(|source| TierError::Disk {
            path: self.tier.directory.clone(),
            source,
        })
    }

    /// Checks that these were the extent's bytes, and keeps them.
    ///
    /// # Errors
    /// When length or SHA-256 are not the catalog's, or the disk does not take them.
    pub fn finish(self) -> Result<Resident, TierError> {
        if self.bytes != self.wanted.size_bytes {
            let (found, expected) = (self.bytes, self.wanted.size_bytes);
            return Err(self.damaged(format!("{found} bytes, not {expected}")));
        }
        let found = self.digest.clone().finish();
        if found != self.wanted.sha256 {
            let expected = self.wanted.sha256;
            return Err(self.damaged(format!("its SHA-256 is {found}, not {expected}")));
        }
        self.tier.keep(&self.wanted, Form::Parquet, self.writer)
    }

    fn damaged(&self, reason: String) -> TierError {
        TierError::Damaged {
            extent: self.wanted.extent,
            reason,
        }
    }
}

#[cfg(test)]
mod tests;
