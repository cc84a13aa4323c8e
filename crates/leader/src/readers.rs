//! Which versions the leader's own running queries still read.
//!
//! A follower's queries are behind its lease; those of the leader itself hold what they read here.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use slipstream_catalog::DatabaseState;
use slipstream_model::{DatabaseId, Version};

/// Counts the readers of each version of each database. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<BTreeMap<(DatabaseId, Version), usize>>>);

impl Readers {
    /// Holds the versions of some states until the guard is dropped.
    pub(crate) fn hold<'a>(&self, states: impl Iterator<Item = &'a DatabaseState>) -> Reader {
        let held: Vec<_> = states.map(|state| (state.id(), state.version())).collect();
        let mut readers = self.0.lock();
        for version in &held {
            *readers.entry(*version).or_default() += 1;
        }
        drop(readers);
        Reader {
            readers: self.clone(),
            held,
        }
    }

    /// The versions of a database that are read, oldest first.
    pub(crate) fn versions(&self, database: DatabaseId) -> Vec<Version> {
        let readers = self.0.lock();
        let all = readers.keys().filter(|(read, _)| *read == database);
        all.map(|(_, version)| *version).collect()
    }
}

/// A reader of one version of each of some databases.
#[derive(Debug)]
pub(crate) struct Reader {
    readers: Readers,
    held: Vec<(DatabaseId, Version)>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.readers.0.lock();
        for version in &self.held {
            if let Some(count) = readers.get_mut(version) {
                *count -= 1;
                if *count == 0 {
                    readers.remove(version);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use slipstream_model::BucketId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_version_is_held_until_its_last_reader_ends() {
        let id = DatabaseId::new(Uuid::from_u128(1));
        let state = DatabaseState::empty(BucketId::default(), id);
        let readers = Readers::default();
        let first = readers.hold([&state].into_iter());
        let second = readers.hold([&state].into_iter());
        drop(first);
        assert_eq!(readers.versions(id), [Version::ZERO]);
        assert!(readers.versions(DatabaseId::default()).is_empty());
        drop(second);
        assert!(readers.versions(id).is_empty());
    }
}
