//! Extents as files of a scan.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::TableReference;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use object_store::ObjectMeta;
use object_store::path::Path;
use slipstream_catalog::ExtentBlock;
use slipstream_model::{Extent, TableSchema};

use super::prune::Selected;
use super::statistics;

/// Statistics of single extents (extents times columns) that a plan carries. They let a running
/// query skip extents that its own findings rule out; at about 300 bytes each, more of them would
/// be a plan of hundreds of megabytes.
const STATISTICS_MAX: usize = 200_000;

/// The selected extents as files, in the order of the selection.
pub(crate) fn files(
    schema: &TableSchema,
    selection: &[Selected],
    wanted: &[bool],
    table: &TableReference,
    path: impl Fn(&Extent) -> Path,
) -> Vec<PartitionedFile> {
    let count: usize = selection.iter().map(|selected| selected.slots.len()).sum();
    let with_statistics = count.saturating_mul(schema.columns().len()) <= STATISTICS_MAX;
    let mut files = Vec::with_capacity(count);
    for selected in selection {
        for slot in &selected.slots {
            let mut file = file(&selected.block.extent(*slot), &path, table);
            if with_statistics {
                file.statistics = Some(extent_statistics(schema, &selected.block, *slot, wanted));
            }
            files.push(file);
        }
    }
    files
}

fn extent_statistics(
    schema: &TableSchema,
    block: &ExtentBlock,
    slot: usize,
    wanted: &[bool],
) -> Arc<datafusion::common::Statistics> {
    Arc::new(statistics::of_extent(schema, block, slot, wanted))
}

fn file(
    extent: &Extent,
    path: &impl Fn(&Extent) -> Path,
    table: &TableReference,
) -> PartitionedFile {
    // The footer cache compares size and time. Extents never change, so any stable time will do.
    let created = DateTime::from_timestamp_micros(extent.max_created_on.as_micros());
    PartitionedFile::new_from_meta(ObjectMeta {
        location: path(extent),
        last_modified: created.unwrap_or(DateTime::<Utc>::UNIX_EPOCH),
        size: extent.size_bytes,
        e_tag: Some(extent.sha256.to_string()),
        version: None,
    })
    .with_metadata_size_hint(extent.footer_bytes as usize)
    .with_table_reference(Some(table.clone()))
}

/// Cuts files into at most `groups_max` groups of about equal bytes, keeping their order: each
/// group is read by one task, front to back.
pub(crate) fn groups(files: Vec<PartitionedFile>, groups_max: usize) -> Vec<FileGroup> {
    let count = groups_max.min(files.len()).max(1);
    let total: u64 = files.iter().map(PartitionedFile::effective_size).sum();
    let mut groups: Vec<Vec<PartitionedFile>> = Vec::with_capacity(count);
    let mut current = Vec::new();
    let (mut before, mut left) = (0_u64, files.len());
    for file in files {
        before += file.effective_size();
        current.push(file);
        left -= 1;
        let others = count - groups.len() - 1;
        let share = total as u128 * (groups.len() as u128 + 1) / count as u128;
        // A group ends when it has its share, or when just enough files are left for the others.
        if others > 0 && (u128::from(before) >= share || left == others) {
            groups.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        groups.push(current);
    }
    groups.into_iter().map(FileGroup::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(sizes: &[u64], groups_max: usize) -> Vec<Vec<u64>> {
        let files = sizes
            .iter()
            .map(|size| PartitionedFile::new("x", *size))
            .collect();
        groups(files, groups_max)
            .iter()
            .map(|group| group.iter().map(|file| file.object_meta.size).collect())
            .collect()
    }

    #[test]
    fn groups_have_about_equal_bytes_and_keep_the_order() {
        assert_eq!(sizes(&[1, 1, 1, 1], 2), [vec![1, 1], vec![1, 1]]);
        assert_eq!(sizes(&[9, 1, 1, 1], 2), [vec![9], vec![1, 1, 1]]);
        assert_eq!(sizes(&[1, 1, 1, 9], 2), [vec![1, 1, 1], vec![9]]);
    }

    #[test]
    fn no_group_is_empty() {
        assert_eq!(sizes(&[5, 5], 8), [vec![5], vec![5]]);
        assert_eq!(sizes(&[100, 0, 0], 3), [vec![100], vec![0], vec![0]]);
        assert!(sizes(&[], 4).is_empty());
    }
}
