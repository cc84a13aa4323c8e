//! Extents whose tags change. All else that is known of them stays, and so do their files.

use std::collections::{BTreeMap, BTreeSet};

use slipstream_model::{Extent, ExtentId};

use super::{Record, TableState};
use crate::op::{EXTENT_TAG_BYTES_MAX, EXTENT_TAGS_MAX};
use crate::{OpError, TagsChange};

impl TableState {
    /// The records of a change: one for all extents that come to have the same tags. Extents that
    /// have them already are left out.
    pub(super) fn plan_tags(
        &self,
        ids: &[ExtentId],
        change: &TagsChange,
    ) -> Result<Vec<Record>, OpError> {
        let mut by_tags = BTreeMap::<BTreeSet<String>, Vec<ExtentId>>::new();
        for extent in self.extents_of(ids)? {
            let tags = change.of(&extent.tags);
            if tags == extent.tags {
                continue;
            }
            check_tags(&tags)?;
            by_tags.entry(tags).or_default().push(extent.id);
        }
        let records = by_tags.into_iter();
        let records = records.map(|(tags, extents)| Record::AlterExtentTags { extents, tags });
        Ok(records.collect())
    }

    /// Gives some of the table's extents these tags, and no others.
    pub(super) fn alter_tags(
        &mut self,
        ids: &[ExtentId],
        tags: &BTreeSet<String>,
    ) -> Result<(), OpError> {
        check_tags(tags)?;
        let extents = self.extents_of(ids)?.into_iter();
        let extents = extents.map(|extent| Extent {
            tags: tags.clone(),
            ..extent
        });
        let extents: Vec<_> = extents.collect();
        let not_found = |extent| OpError::ExtentNotFound {
            table: self.name.clone(),
            extent,
        };
        // Segments are immutable: what changes leaves them.
        self.extents.remove(ids).map_err(not_found)?;
        let exists = |extent| OpError::ExtentExists {
            table: self.name.clone(),
            extent,
        };
        self.extents.add(extents).map_err(exists)
    }

    fn extents_of(&self, ids: &[ExtentId]) -> Result<Vec<Extent>, OpError> {
        let not_found = |extent| OpError::ExtentNotFound {
            table: self.name.clone(),
            extent,
        };
        self.extents.get_all(ids).map_err(not_found)
    }
}

fn check_tags(tags: &BTreeSet<String>) -> Result<(), OpError> {
    let fits = |tag: &String| tag.len() <= EXTENT_TAG_BYTES_MAX;
    if tags.len() > EXTENT_TAGS_MAX || !tags.iter().all(fits) {
        return Err(OpError::TooManyTags);
    }
    Ok(())
}
