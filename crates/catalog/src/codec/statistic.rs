//! Minima, maxima and what else is known of a column in an extent.

use arrow::datatypes::i256;
use slipstream_model::{ColumnId, ColumnStatistics, SortOrder, StatisticValue};
use slipstream_proto::log as proto;

use super::{Malformed, fixed, required, to_bytes};

pub(super) fn column_to_proto(column: &ColumnStatistics) -> proto::ColumnStatistics {
    proto::ColumnStatistics {
        column_id: column.id.0,
        null_count: column.null_count,
        min: column.min.as_ref().map(value_to_proto),
        max: column.max.as_ref().map(value_to_proto),
        bounds_cut: !column.bounds_exact,
        ascending: column.sort_order == SortOrder::Ascending,
    }
}

pub(super) fn column_from_proto(
    column: proto::ColumnStatistics,
) -> Result<ColumnStatistics, Malformed> {
    Ok(ColumnStatistics {
        id: ColumnId(column.column_id),
        null_count: column.null_count,
        min: column.min.map(value_from_proto).transpose()?,
        max: column.max.map(value_from_proto).transpose()?,
        bounds_exact: !column.bounds_cut,
        sort_order: if column.ascending {
            SortOrder::Ascending
        } else {
            SortOrder::Unknown
        },
    })
}

fn value_to_proto(value: &StatisticValue) -> proto::Value {
    use proto::value::Value as V;
    let value = match value {
        StatisticValue::Boolean(value) => V::Boolean(*value),
        StatisticValue::Int(value) => V::Int(*value),
        StatisticValue::UInt(value) => V::Uint(*value),
        StatisticValue::Float(value) => V::Float(*value),
        StatisticValue::Decimal(value) => V::Decimal(to_bytes(&value.to_le_bytes())),
        StatisticValue::Text(value) => V::Text(value.clone()),
        StatisticValue::Bytes(value) => V::Bytes(to_bytes(value)),
    };
    proto::Value { value: Some(value) }
}

fn value_from_proto(value: proto::Value) -> Result<StatisticValue, Malformed> {
    use proto::value::Value as V;
    Ok(match required("a minimum or maximum", value.value)? {
        V::Boolean(value) => StatisticValue::Boolean(value),
        V::Int(value) => StatisticValue::Int(value),
        V::Uint(value) => StatisticValue::UInt(value),
        V::Float(value) => StatisticValue::Float(value),
        V::Decimal(bytes) => {
            let read = |bytes: &[u8]| bytes.try_into().ok().map(i256::from_le_bytes);
            StatisticValue::Decimal(fixed("a decimal", &bytes, read)?)
        }
        V::Text(value) => StatisticValue::Text(value),
        V::Bytes(value) => StatisticValue::Bytes(value.to_vec()),
    })
}
