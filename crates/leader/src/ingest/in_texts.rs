//! Values of JSON, as texts first and as what they are then.
//!
//! Arrow's decoder makes 2 of 2.5 without a word, cuts digits off decimals, and times that are too large become the
//! largest. As texts it takes numbers as they are written.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    RecordBatch, StructArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::typed::{Numbers, array};

/// The types that are read; those of the table, but for the ways to hold them. Those are cast to afterwards.
pub(super) fn table_types(table: &Schema) -> Schema {
    let fields = table.fields().iter().map(|field| {
        // Whether nulls are allowed is checked with the line at hand.
        Field::new(field.name(), plain_type(field.data_type()), true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        other => with_inner(other, plain_type),
    }
}

/// The types that the decoder makes of objects.
pub(super) fn in_texts(read: &Schema) -> Schema {
    let fields = read.fields().iter();
    let fields = fields.map(|field| with_type(field, text_type));
    Schema::new(fields.collect::<Vec<_>>())
}

fn text_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Interval(_) => data_type.clone(),
        exact if exact.is_integer() || exact.is_decimal() || exact.is_temporal() => DataType::Utf8,
        other => with_inner(other, text_type),
    }
}

/// The same type with others for what is within it.
fn with_inner(data_type: &DataType, of: fn(&DataType) -> DataType) -> DataType {
    match data_type {
        DataType::List(field) => DataType::List(with_type(field, of)),
        DataType::LargeList(field) => DataType::LargeList(with_type(field, of)),
        DataType::FixedSizeList(field, length) => {
            DataType::FixedSizeList(with_type(field, of), *length)
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| with_type(field, of)).collect())
        }
        DataType::Map(entries, is_sorted) => DataType::Map(with_type(entries, of), *is_sorted),
        other => other.clone(),
    }
}

fn with_type(field: &FieldRef, of: fn(&DataType) -> DataType) -> FieldRef {
    let data_type = of(field.data_type());
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// The rows that a batch says in texts; `None` when one does not fit.
pub(super) fn read_texts(batch: &RecordBatch, schema: &SchemaRef) -> Option<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(values, field)| read(values, field.data_type()));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Option<_>>()?).ok()
}

/// The values that texts say, here or within.
pub(super) fn read(values: &ArrayRef, data_type: &DataType) -> Option<ArrayRef> {
    if values.data_type() == data_type {
        return Some(Arc::clone(values));
    }
    let nulls = values.nulls().cloned();
    Some(match data_type {
        DataType::List(field) => Arc::new(read_list::<i32>(values, field)?),
        DataType::LargeList(field) => Arc::new(read_list::<i64>(values, field)?),
        DataType::FixedSizeList(field, length) => {
            let within = read(values.as_fixed_size_list().values(), field.data_type())?;
            let (field, rows) = (Arc::clone(field), values.len());
            let lists =
                FixedSizeListArray::try_new_with_length(field, *length, within, nulls, rows);
            Arc::new(lists.ok()?)
        }
        DataType::Struct(_) => Arc::new(read_struct(values.as_struct(), data_type)?),
        DataType::Map(entries, is_sorted) => {
            let map = values.as_map();
            let within = read_struct(map.entries(), entries.data_type())?;
            let (entries, offsets) = (Arc::clone(entries), map.offsets().clone());
            Arc::new(MapArray::try_new(entries, offsets, within, nulls, *is_sorted).ok()?)
        }
        _ => array(values.as_string::<i32>(), data_type, Numbers::OfJson)?,
    })
}

fn read_list<O: OffsetSizeTrait>(
    values: &ArrayRef,
    field: &FieldRef,
) -> Option<GenericListArray<O>> {
    let list = values.as_list::<O>();
    let within = read(list.values(), field.data_type())?;
    let (field, offsets) = (Arc::clone(field), list.offsets().clone());
    GenericListArray::try_new(field, offsets, within, list.nulls().cloned()).ok()
}

fn read_struct(values: &StructArray, data_type: &DataType) -> Option<StructArray> {
    let DataType::Struct(fields) = data_type else {
        return None;
    };
    let columns = values.columns().iter().zip(fields);
    let columns = columns.map(|(values, field)| read(values, field.data_type()));
    let (columns, nulls) = (columns.collect::<Option<_>>()?, values.nulls().cloned());
    StructArray::try_new_with_length(fields.clone(), columns, nulls, values.len()).ok()
}
