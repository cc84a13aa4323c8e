//! The newest ingests of a table that came with an id, so that one that is sent again is known.

use imbl::{OrdMap, Vector};
use slipstream_model::{IngestId, Version};

/// Ids that a table remembers; the oldest leave first. At a hundred ingests a second, more than a
/// store takes commits, that is nearly three minutes: longer than a client tries. It is also what
/// each checkpoint holds of a table at most, about a megabyte.
pub(crate) const INGEST_IDS_MAX: usize = 16_384;

/// An ingest that came with an id, and what it brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedIngest {
    /// The id.
    pub id: IngestId,
    /// Its rows.
    pub rows: u64,
    /// The extents that hold them.
    pub extents: u64,
    /// Bytes of those extents.
    pub size_bytes: u64,
}

/// The newest ingests of a table, by id. Clones in O(1).
#[derive(Debug, Clone, Default)]
pub struct RecentIngests {
    by_id: OrdMap<IngestId, (Version, NotedIngest)>,
    /// The oldest stands first.
    order: Vector<IngestId>,
}

impl RecentIngests {
    /// What came with an id, and the version that committed it.
    pub fn get(&self, id: &IngestId) -> Option<&(Version, NotedIngest)> {
        self.by_id.get(id)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &(Version, NotedIngest)> {
        self.order.iter().filter_map(|id| self.by_id.get(id))
    }

    /// Remembers an ingest. An id that is known stays what it was.
    pub(crate) fn note(&mut self, version: Version, ingest: NotedIngest) {
        if self.by_id.contains_key(&ingest.id) {
            return;
        }
        self.order.push_back(ingest.id.clone());
        self.by_id.insert(ingest.id.clone(), (version, ingest));
        while self.order.len() > INGEST_IDS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingest(number: u64) -> NotedIngest {
        NotedIngest {
            id: format!("id-{number}").parse().expect("an id"),
            rows: number,
            extents: 1,
            size_bytes: 100,
        }
    }

    #[test]
    fn the_oldest_ids_leave_and_a_known_one_stays_what_it_was() {
        let mut recent = RecentIngests::default();
        let max = INGEST_IDS_MAX as u64;
        for number in 0..max {
            recent.note(Version::new(number + 1), ingest(number));
        }
        recent.note(Version::new(9_999_999), ingest(0));
        let first = recent.get(&ingest(0).id).expect("known");
        assert_eq!(first.0, Version::new(1));
        recent.note(Version::new(max + 1), ingest(max));
        assert_eq!(recent.get(&ingest(0).id), None, "the oldest has left");
        assert!(recent.get(&ingest(1).id).is_some());
        assert_eq!(recent.iter().count(), INGEST_IDS_MAX);
        let newest = recent.iter().last().expect("there");
        assert_eq!(newest, &(Version::new(max + 1), ingest(max)));
    }
}
