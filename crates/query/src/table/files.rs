//! Extents as files of a scan.

use std::sync::Arc;

use arrow::datatypes::DataType;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, TableReference};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::scalar::ScalarValue;
use object_store::ObjectMeta;
use object_store::path::Path;
use slipstream_catalog::ExtentBlock;
use slipstream_model::{Extent, StatisticValue, TableSchema, Version};

use super::prune::Selected;
use super::statistics;

/// Statistics of single extents (extents times columns) that a plan carries. They let a running
/// query skip extents that its own findings rule out; at about 300 bytes each, more of them would
/// be a plan of hundreds of megabytes.
const STATISTICS_MAX: usize = 200_000;

/// What a part of an extent has at least: about a row group.
const PART_BYTES_MIN: u64 = 8 << 20;

/// The selected extents as files, in the order of the selection. Those of an older version say so.
pub(crate) fn files(
    schema: &TableSchema,
    selection: &[Selected],
    wanted: &[bool],
    table: &TableReference,
    older: Option<Version>,
    path: impl Fn(&Extent) -> Path,
) -> Vec<PartitionedFile> {
    let count: usize = selection.iter().map(|selected| selected.slots.len()).sum();
    let with_statistics = count.saturating_mul(schema.columns().len()) <= STATISTICS_MAX;
    let mut files = Vec::with_capacity(count);
    for selected in selection {
        for slot in &selected.slots {
            let mut file = file(&selected.block.extent(*slot), &path, table);
            file.object_meta.version = older.map(|version| version.to_string());
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
    let mut statistics = statistics::of_extent(schema, block, slot, wanted);
    for column in &mut statistics.column_statistics {
        widen_zeros(column);
    }
    Arc::new(statistics)
}

/// A filter tells 0.0 from -0.0, and a join does not: what a join found out must not rule out either.
fn widen_zeros(column: &mut ColumnStatistics) {
    let zero = |bound: &Precision<ScalarValue>, to: f64| {
        let value = bound.get_value()?;
        let is_zero = value.data_type().is_floating()
            && value.cast_to(&DataType::Float64).ok()? == ScalarValue::Float64(Some(-to));
        let widened = ScalarValue::Float64(Some(to)).cast_to(&value.data_type());
        is_zero.then_some(Precision::Inexact(widened.ok()?))
    };
    if let Some(min) = zero(&column.min_value, -0.0) {
        column.min_value = min;
    }
    if let Some(max) = zero(&column.max_value, 0.0) {
        column.max_value = max;
    }
}

fn file(
    extent: &Extent,
    path: &impl Fn(&Extent) -> Path,
    table: &TableReference,
) -> PartitionedFile {
    // The footer cache compares size and time. Extents never change, so any stable time will do.
    let created = DateTime::from_timestamp_micros(extent.max_created_on.as_micros());
    let file = PartitionedFile::new_from_meta(ObjectMeta {
        location: path(extent),
        last_modified: created.unwrap_or(DateTime::<Utc>::UNIX_EPOCH),
        size: extent.size_bytes,
        e_tag: Some(extent.sha256.to_string()),
        version: None,
    })
    .with_metadata_size_hint(extent.footer_bytes as usize)
    .with_table_reference(Some(table.clone()));
    let file = match &extent.inline {
        Some(bytes) => file.with_extension(InlineBytes(bytes.clone())),
        None => file,
    };
    if has_nan(extent) {
        file.with_extension(HasNan)
    } else {
        file
    }
}

/// That some column of an extent holds values that are no numbers. Parquet leaves them out of its
/// bounds, where queries compare them as larger, or smaller, than every number.
#[derive(Debug, Clone)]
pub(crate) struct HasNan;

fn has_nan(extent: &Extent) -> bool {
    let is_nan = |bound: &Option<StatisticValue>| matches!(bound, Some(StatisticValue::Float(value)) if value.is_nan());
    extent
        .columns
        .iter()
        .any(|column| is_nan(&column.min) || is_nan(&column.max))
}

/// The bytes of a file that is no object: an extent that stands in the log.
#[derive(Debug, Clone)]
pub(crate) struct InlineBytes(pub(crate) Bytes);

/// Whether a file is an extent that stands in the log.
pub(crate) fn is_inline(file: &PartitionedFile) -> bool {
    file.extension::<InlineBytes>().is_some()
}

/// Cuts large files into parts, so that there are at least `parts_min` together if they can be so
/// many: a part smaller than a row group would have nothing to read.
pub(crate) fn parts(files: Vec<PartitionedFile>, parts_min: usize) -> Vec<PartitionedFile> {
    let of_each = parts_min.div_ceil(files.len().max(1)) as u64;
    let cut = |file: PartitionedFile| {
        let size_bytes = file.object_meta.size;
        let count = of_each.min(size_bytes / PART_BYTES_MIN).max(1);
        let at = move |part: u64| {
            let position = u128::from(size_bytes) * u128::from(part) / u128::from(count);
            i64::try_from(position).unwrap_or(i64::MAX)
        };
        (0..count).map(move |part| {
            if count == 1 {
                file.clone()
            } else {
                file.clone().with_range(at(part), at(part + 1))
            }
        })
    };
    files.into_iter().flat_map(cut).collect()
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

/// Cuts files into exactly `count` groups of not too different bytes, at none but the given places:
/// `may_cut[n]` says whether a group may end before file `n + 1`. Gives the groups, and the places
/// where they were cut.
pub(crate) fn groups_at(
    files: &[PartitionedFile],
    may_cut: &[bool],
    count: usize,
) -> Option<(Vec<FileGroup>, Vec<usize>)> {
    let total: u64 = files.iter().map(PartitionedFile::effective_size).sum();
    let mut before = 0;
    let mut places = Vec::new();
    for (place, file) in files.iter().enumerate().take(may_cut.len()) {
        before += file.effective_size();
        if may_cut[place] {
            places.push((place, before));
        }
    }
    let mut cuts: Vec<usize> = Vec::new();
    let mut ends: Vec<u64> = Vec::new();
    for group in 1..count as u64 {
        let share = total / count as u64 * group;
        let nearest = places
            .iter()
            .min_by_key(|(_, before)| before.abs_diff(share))?;
        cuts.push(nearest.0);
        ends.push(nearest.1);
    }
    ends.push(total);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let largest = ends
        .iter()
        .zip(starts)
        .map(|(end, start)| end.checked_sub(start));
    let largest = largest.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
    let is_even = largest * 2 <= total / count as u64 * 3;
    if !is_even || cuts.windows(2).any(|pair| pair[0] >= pair[1]) {
        return None;
    }
    let starts = std::iter::once(0).chain(cuts.iter().map(|cut| cut + 1));
    let ends = cuts.iter().map(|cut| cut + 1).chain([files.len()]);
    let groups = starts
        .zip(ends)
        .map(|(start, end)| FileGroup::new(files[start..end].to_vec()));
    Some((groups.collect(), cuts))
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
    fn parts_of_a_file_follow_each_other_and_are_no_smaller_than_a_row_group() {
        let ranges = |size: u64, parts_min: usize| -> Vec<Option<(i64, i64)>> {
            let parts = parts(vec![PartitionedFile::new("x", size)], parts_min);
            let range = |part: &PartitionedFile| {
                let range = part.range.as_ref()?;
                Some((range.start, range.end))
            };
            parts.iter().map(range).collect()
        };
        let unit = PART_BYTES_MIN as i64;
        assert_eq!(
            ranges(PART_BYTES_MIN * 3, 8),
            [(0, unit), (unit, unit * 2), (unit * 2, unit * 3)].map(Some)
        );
        assert_eq!(ranges(PART_BYTES_MIN * 3, 1), [None]);
        assert_eq!(ranges(1, 8), [None]);
    }

    #[test]
    fn no_group_is_empty() {
        assert_eq!(sizes(&[5, 5], 8), [vec![5], vec![5]]);
        assert_eq!(sizes(&[100, 0, 0], 3), [vec![100], vec![0], vec![0]]);
        assert!(sizes(&[], 4).is_empty());
    }
}
