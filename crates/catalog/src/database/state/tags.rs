//! Extents whose tags change. All else that is known of them stays, and so do their files.

use std::collections::{BTreeMap, BTreeSet};

use slipstream_model::{Extent, ExtentId};

use super::{Record, TableState};
use crate::op::check_tags;
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
            check_change(&extent.tags, &tags)?;
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
        let mut extents = self.extents_of(ids)?;
        for extent in &mut extents {
            check_change(&extent.tags, tags)?;
            extent.tags = tags.clone();
        }
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

    /// Checks that extents have these tags.
    pub(super) fn expect_tags(
        &self,
        expected: &[(ExtentId, BTreeSet<String>)],
    ) -> Result<(), OpError> {
        let ids: Vec<_> = expected.iter().map(|(id, _)| *id).collect();
        let known: BTreeMap<_, _> = expected.iter().map(|(id, tags)| (*id, tags)).collect();
        let mut extents = self.extents_of(&ids)?.into_iter();
        match extents.find(|extent| known.get(&extent.id) != Some(&&extent.tags)) {
            Some(changed) => Err(OpError::TagsChanged {
                table: self.name.clone(),
                extent: changed.id,
            }),
            None => Ok(()),
        }
    }

    fn extents_of(&self, ids: &[ExtentId]) -> Result<Vec<Extent>, OpError> {
        let not_found = |extent| OpError::ExtentNotFound {
            table: self.name.clone(),
            extent,
        };
        self.extents.get_all(ids).map_err(not_found)
    }
}

/// Checks what an extent's tags become. One that has too many can lose some, if not all that it has to.
fn check_change(from: &BTreeSet<String>, to: &BTreeSet<String>) -> Result<(), OpError> {
    if to.is_subset(from) {
        return Ok(());
    }
    check_tags(to)
}
