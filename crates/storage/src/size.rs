//! How much memory rows take.

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::datatypes::DataType;

/// A view of a text or bytes: 16 bytes, of which the first four hold the length.
const VIEW_BYTES: usize = 16;
/// Texts up to this length stand in the view itself.
const VIEW_INLINE_BYTES_MAX: usize = 12;

/// Bytes of the rows of a batch, without what its buffers hold of other rows.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| array_bytes(&column.to_data())).sum()
}

/// `get_slice_memory_size` leaves out the texts behind views, which are nearly all of a table
/// with a `VARCHAR` column.
pub(crate) fn array_bytes(data: &ArrayData) -> usize {
    data.get_slice_memory_size().unwrap_or(0) + viewed_bytes(data)
}

fn viewed_bytes(data: &ArrayData) -> usize {
    if !matches!(data.data_type(), DataType::Utf8View | DataType::BinaryView) {
        return data.child_data().iter().map(viewed_bytes).sum();
    }
    let (start, end) = (data.offset(), data.offset() + data.len());
    let Some(views) = data.buffers().first() else {
        return 0;
    };
    let views = views.get(start * VIEW_BYTES..end * VIEW_BYTES);
    let lengths = views.unwrap_or_default().chunks_exact(VIEW_BYTES);
    let lengths = lengths.map(|view| match view.first_chunk() {
        Some(length) => u32::from_le_bytes(*length) as usize,
        None => 0,
    });
    lengths.filter(|bytes| *bytes > VIEW_INLINE_BYTES_MAX).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn bytes(column: ArrayRef) -> usize {
        batch_bytes(&RecordBatch::try_from_iter([("c", column)]).expect("valid"))
    }

    #[test]
    fn texts_count_the_same_behind_views_and_offsets() {
        let long = "x".repeat(1_000);
        let texts = || [Some(long.as_str()), None, Some("short"), Some(&long)];
        let plain = bytes(Arc::new(StringArray::from_iter(texts())));
        let views: ArrayRef = Arc::new(StringViewArray::from_iter(texts()));
        assert!(bytes(Arc::clone(&views)).abs_diff(plain) < 100);
        assert!(
            bytes(views.slice(1, 2)) < 100,
            "only the rows of the slice count"
        );
    }

    #[test]
    fn numbers_and_lists_count() {
        assert_eq!(bytes(Arc::new(Int64Array::from_iter_values(0..100))), 800);
        let lists = [Some(vec![Some(1); 50])];
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        assert!(bytes(Arc::new(lists)) >= 200);
    }
}
