//! Bearer tokens: a file beside a node's data says which there are, as SHA-256, and whose.
//!
//! The file is the node's to read and the command line's to write (`slipstream token`). A change
//! counts within a second, without a restart.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipstream_model::{Clock, ClusterRole, Digest, PrincipalName, Timestamp};
use subtle::ConstantTimeEq;

use crate::{Caller, ErrorKind, ServiceError, runtime};

/// How often a node looks whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Tokens of one node: each request is compared with all of them.
const TOKENS_MAX: usize = 10_000;
const FORMAT_VERSION: u32 = 1;

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Names the token, to revoke it.
    pub id: String,
    /// SHA-256 of the secret. The secret itself is written nowhere.
    pub sha256: Digest,
    /// Whose it is.
    pub principal: PrincipalName,
    /// Groups that its holder belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<PrincipalName>,
    /// Roles in all databases of the cluster.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cluster_roles: BTreeSet<ClusterRole>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working; never, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
}

/// What a new token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose it is.
    pub principal: PrincipalName,
    /// Groups that its holder belongs to.
    pub groups: Vec<PrincipalName>,
    /// Roles in all databases of the cluster.
    pub cluster_roles: BTreeSet<ClusterRole>,
    /// How long it works; for ever, when not given.
    pub expires_in: Option<Duration>,
    /// What it is for.
    pub notes: String,
}

/// The file could not be read or written, or is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}", path = path.display())]
pub struct TokenFileError {
    path: PathBuf,
    reason: String,
}

/// The tokens of a node as they stand in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    format_version: u32,
    tokens: Vec<TokenRecord>,
}

impl TokenFile {
    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is not one of ours.
    pub fn read(path: &Path) -> Result<Option<Self>, TokenFileError> {
        let fail = |reason: String| TokenFileError {
            path: path.to_owned(),
            reason,
        };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error.to_string())),
        };
        let file: Self = serde_json::from_slice(&bytes).map_err(|error| {
            fail(format!(
                "not a list of tokens: {error}; repair it, or make a new one with 'slipstream \
                 token create'"
            ))
        })?;
        if file.format_version != FORMAT_VERSION {
            let version = file.format_version;
            return Err(fail(format!(
                "format version {version} is not one that this program knows"
            )));
        }
        Ok(Some(file))
    }

    /// Writes the file, readable for its owner only.
    ///
    /// # Errors
    /// When it cannot be written; the file that was there is as it was.
    pub fn write(&self, path: &Path) -> Result<(), TokenFileError> {
        let file = Self {
            format_version: FORMAT_VERSION,
            ..self.clone()
        };
        let write = || {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            runtime::replace_file(path, &serde_json::to_vec_pretty(&file)?)
        };
        write().map_err(|error| TokenFileError {
            path: path.to_owned(),
            reason: format!("cannot be written: {error}"),
        })
    }

    /// The tokens, in the order in which they were made.
    pub fn tokens(&self) -> &[TokenRecord] {
        &self.tokens
    }

    /// Makes a token. The answer's text is the secret, which nothing can tell again.
    ///
    /// # Errors
    /// When there are too many, or the operating system has no randomness to give.
    pub fn add(
        &mut self,
        new: NewToken,
        now: Timestamp,
    ) -> Result<(TokenRecord, String), ServiceError> {
        if self.tokens.len() >= TOKENS_MAX {
            return Err(ServiceError::invalid(format!(
                "there are {TOKENS_MAX} tokens, which is the limit: revoke some"
            )));
        }
        let secret = runtime::new_secret()?;
        let sha256 = Digest::of(secret.as_bytes());
        let record = TokenRecord {
            id: sha256.short(),
            sha256,
            principal: new.principal,
            groups: new.groups,
            cluster_roles: new.cluster_roles,
            created_at: now,
            expires_at: new.expires_in.map(|life| now.plus(life)),
            notes: new.notes,
        };
        self.tokens.push(record.clone());
        Ok((record, secret))
    }

    /// Takes a token back; `false` when there is none of that id.
    pub fn remove(&mut self, id: &str) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.id != id);
        self.tokens.len() < before
    }

    /// The token of a secret. Takes the same time whichever it is: every digest is compared, and
    /// each in constant time.
    fn find(&self, secret: &str) -> Option<&TokenRecord> {
        let sha256 = Digest::of(secret.as_bytes());
        let mut found = None;
        for token in &self.tokens {
            if bool::from(token.sha256.as_bytes().ct_eq(sha256.as_bytes())) {
                found = Some(token);
            }
        }
        found
    }
}

/// Tells who comes to a node, by its token file.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Known {
    looked_at: Duration,
    /// Of the file when it was last looked at.
    stamp: Option<Stamp>,
    /// Why it could not be, so that it is logged once.
    failure: Option<String>,
    /// `None` until there is a file: everybody is let in, from this machine.
    file: Option<Arc<TokenFile>>,
}

/// Changes when the file does.
type Stamp = (SystemTime, u64);

impl Tokens {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read: a node with a damaged file lets nobody in.
    pub fn open(path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, TokenFileError> {
        let known = Known {
            looked_at: clock.elapsed(),
            stamp: stamp(&path),
            failure: None,
            file: TokenFile::read(&path)?.map(Arc::new),
        };
        Ok(Self {
            path,
            clock,
            known: Mutex::new(known),
        })
    }

    /// Whether there is a file, and so nobody gets in without a token.
    pub fn are_required(&self) -> bool {
        self.file().is_some()
    }

    /// The tokens, without their secrets.
    pub(crate) fn records(&self) -> Vec<TokenRecord> {
        self.file()
            .map_or_else(Vec::new, |file| file.tokens.clone())
    }

    /// Where the time comes from.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whoever has a token.
    ///
    /// # Errors
    /// `Unauthenticated` when the node asks for one and none is given, or one that is unknown,
    /// revoked or expired.
    pub fn authenticate(&self, token: Option<&str>) -> Result<Arc<Caller>, ServiceError> {
        let Some(file) = self.file() else {
            return Ok(Arc::new(Caller::local()));
        };
        let Some(token) = token else {
            return refuse(
                "this node asks for a token: send it as 'Authorization: Bearer TOKEN'; \
                 'slipstream token create' makes one",
            );
        };
        let Some(record) = file.find(token) else {
            return refuse("the token is not known here, or was revoked");
        };
        if let Some(at) = record.expires_at
            && at <= self.clock.now()
        {
            return refuse(&format!("the token '{}' expired at {at}", record.id));
        }
        Ok(Arc::new(Caller {
            principal: record.principal.clone(),
            groups: record.groups.clone(),
            cluster_roles: record.cluster_roles.iter().copied().collect(),
        }))
    }

    /// The file as it is, looked at again when that was a while ago.
    fn file(&self) -> Option<Arc<TokenFile>> {
        let mut known = self.known.lock();
        let now = self.clock.elapsed();
        if now.saturating_sub(known.looked_at) >= LOOK_INTERVAL {
            known.looked_at = now;
            self.look(&mut known);
        }
        known.file.clone()
    }

    fn look(&self, known: &mut Known) {
        let stamp = stamp(&self.path);
        if stamp == known.stamp && known.failure.is_none() {
            return;
        }
        known.stamp = stamp;
        match TokenFile::read(&self.path) {
            Ok(Some(file)) => {
                tracing::info!(path = %self.path.display(), tokens = file.tokens.len(), "tokens read");
                known.file = Some(Arc::new(file));
                known.failure = None;
            }
            // Whoever removes the file does not open the node: that takes a restart.
            Ok(None) => {
                known.failure = None;
                tracing::warn!(
                    path = %self.path.display(),
                    "the token file is gone; the tokens that were in it still hold"
                );
            }
            Err(error) => {
                let failure = Some(error.to_string());
                if failure != known.failure {
                    tracing::error!(%error, "the tokens cannot be read; the ones from before still hold");
                }
                known.failure = failure;
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn refuse<T>(message: &str) -> Result<T, ServiceError> {
    Err(ServiceError::new(
        ErrorKind::Unauthenticated,
        "unauthenticated",
        message,
    ))
}

#[cfg(test)]
mod tests;
