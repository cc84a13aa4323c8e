//! Functions, external tables, principals, pins and policies.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use slipstream_model::{
    CachingPolicy, DatabasePrincipal, ExternalFormat, ExternalTable, FunctionParameter, HotWindow,
    IngestionBatchingPolicy, MergeLookback, MergePolicy, PinName, RetentionPolicy,
    RowLevelSecurity, StoredFunction, StreamingIngestionPolicy, Timestamp, Version,
};
use slipstream_proto::log as proto;

use super::schema::{decode_arrow, encode_arrow, only_field};
use super::{Malformed, name};

pub(crate) fn function_to_proto(function: &StoredFunction) -> proto::PutFunction {
    let parameters = function.parameters.iter().map(|parameter| {
        let schema = Schema::new(vec![Arc::clone(&parameter.field)]);
        proto::FunctionParameter {
            arrow_schema: encode_arrow(&schema),
            default_value: parameter.default.clone(),
        }
    });
    proto::PutFunction {
        name: function.name.to_string(),
        parameters: parameters.collect(),
        body: function.body.clone(),
        docstring: function.docstring.clone(),
        folder: function.folder.clone(),
    }
}

pub(crate) fn function_from_proto(
    function: proto::PutFunction,
) -> Result<StoredFunction, Malformed> {
    let parameters = function.parameters.into_iter().map(|parameter| {
        Ok(FunctionParameter {
            field: only_field(&decode_arrow(&parameter.arrow_schema)?)?,
            default: parameter.default_value,
        })
    });
    Ok(StoredFunction {
        name: name(function.name)?,
        parameters: parameters.collect::<Result<_, Malformed>>()?,
        body: function.body,
        docstring: function.docstring,
        folder: function.folder,
    })
}

pub(crate) fn pin_to_proto(name: &PinName, version: Version) -> proto::PutPin {
    proto::PutPin {
        name: name.to_string(),
        version: version.get(),
    }
}

pub(crate) fn pin_from_proto(pin: proto::PutPin) -> Result<(PinName, Version), Malformed> {
    Ok((name(pin.name)?, Version::new(pin.version)))
}

pub(crate) fn caching_to_proto(policy: &CachingPolicy) -> proto::CachingPolicy {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let windows = policy.hot_windows.iter().map(|window| proto::HotWindow {
        min: window.min.as_micros(),
        max: window.max.as_micros(),
    });
    proto::CachingPolicy {
        data_hot_span: micros(policy.data_hot_span),
        index_hot_span: micros(policy.index_hot_span),
        hot_windows: windows.collect(),
    }
}

pub(crate) fn caching_from_proto(policy: proto::CachingPolicy) -> CachingPolicy {
    let windows = policy.hot_windows.into_iter().map(|window| HotWindow {
        min: Timestamp::from_micros(window.min),
        max: Timestamp::from_micros(window.max),
    });
    CachingPolicy {
        data_hot_span: Duration::from_micros(policy.data_hot_span),
        index_hot_span: Duration::from_micros(policy.index_hot_span),
        hot_windows: windows.collect(),
    }
}

pub(crate) fn retention_to_proto(policy: &RetentionPolicy) -> proto::RetentionPolicy {
    proto::RetentionPolicy {
        soft_delete_period: u64::try_from(policy.soft_delete_period.as_micros())
            .unwrap_or(u64::MAX),
        recoverable: policy.is_recoverable,
    }
}

pub(crate) fn retention_from_proto(policy: proto::RetentionPolicy) -> RetentionPolicy {
    RetentionPolicy {
        soft_delete_period: Duration::from_micros(policy.soft_delete_period),
        is_recoverable: policy.recoverable,
    }
}

pub(crate) fn merge_to_proto(policy: &MergePolicy) -> proto::MergePolicy {
    let (lookback, period) = match policy.lookback {
        MergeLookback::Default => ("Default", Duration::ZERO),
        MergeLookback::All => ("All", Duration::ZERO),
        MergeLookback::HotCache => ("HotCache", Duration::ZERO),
        MergeLookback::Custom(period) => ("Custom", period),
    };
    proto::MergePolicy {
        row_count_upper_bound: policy.row_count_upper_bound_for_merge,
        original_size_upper_bound: policy.original_size_mb_upper_bound_for_merge,
        max_extents: policy.max_extents_to_merge,
        max_range: policy.max_range_in_hours,
        allow_rebuild: policy.allow_rebuild,
        allow_merge: policy.allow_merge,
        lookback: lookback.to_owned(),
        lookback_period: u64::try_from(period.as_micros()).unwrap_or(u64::MAX),
    }
}

pub(crate) fn merge_from_proto(policy: proto::MergePolicy) -> Result<MergePolicy, Malformed> {
    let lookback = match policy.lookback.as_str() {
        "Default" => MergeLookback::Default,
        "All" => MergeLookback::All,
        "HotCache" => MergeLookback::HotCache,
        "Custom" => MergeLookback::Custom(Duration::from_micros(policy.lookback_period)),
        other => return Err(Malformed::new(format!("a lookback '{other}'"))),
    };
    Ok(MergePolicy {
        row_count_upper_bound_for_merge: policy.row_count_upper_bound,
        original_size_mb_upper_bound_for_merge: policy.original_size_upper_bound,
        max_extents_to_merge: policy.max_extents,
        max_range_in_hours: policy.max_range,
        allow_rebuild: policy.allow_rebuild,
        allow_merge: policy.allow_merge,
        lookback,
    })
}

pub(crate) fn streaming_to_proto(
    policy: &StreamingIngestionPolicy,
) -> proto::StreamingIngestionPolicy {
    proto::StreamingIngestionPolicy {
        is_enabled: policy.is_enabled,
    }
}

pub(crate) fn streaming_from_proto(
    policy: proto::StreamingIngestionPolicy,
) -> StreamingIngestionPolicy {
    StreamingIngestionPolicy {
        is_enabled: policy.is_enabled,
    }
}

pub(crate) fn batching_to_proto(
    policy: &IngestionBatchingPolicy,
) -> proto::IngestionBatchingPolicy {
    let span = policy.maximum_batching_time_span.as_micros();
    proto::IngestionBatchingPolicy {
        maximum_time_span: u64::try_from(span).unwrap_or(u64::MAX),
        maximum_items: policy.maximum_number_of_items,
        maximum_raw_data_size: policy.maximum_raw_data_size_mb,
    }
}

pub(crate) fn batching_from_proto(
    policy: proto::IngestionBatchingPolicy,
) -> IngestionBatchingPolicy {
    IngestionBatchingPolicy {
        maximum_batching_time_span: Duration::from_micros(policy.maximum_time_span),
        maximum_number_of_items: policy.maximum_items,
        maximum_raw_data_size_mb: policy.maximum_raw_data_size,
    }
}

pub(crate) fn principal_to_proto(principal: &DatabasePrincipal) -> proto::DatabasePrincipal {
    proto::DatabasePrincipal {
        role: principal.role.to_string(),
        principal: principal.principal.to_string(),
        notes: principal.notes.clone(),
    }
}

pub(crate) fn principal_from_proto(
    principal: proto::DatabasePrincipal,
) -> Result<DatabasePrincipal, Malformed> {
    Ok(DatabasePrincipal {
        role: name(principal.role)?,
        principal: name(principal.principal)?,
        notes: principal.notes,
    })
}

pub(crate) fn external_to_proto(table: &ExternalTable) -> proto::PutExternalTable {
    proto::PutExternalTable {
        name: table.name.to_string(),
        arrow_schema: encode_arrow(&table.schema),
        format: table.format.name().to_owned(),
        has_header: matches!(table.format, ExternalFormat::Csv { has_header: true }),
        locations: table.locations.clone(),
        docstring: table.docstring.clone(),
        folder: table.folder.clone(),
    }
}

pub(crate) fn external_from_proto(
    table: proto::PutExternalTable,
) -> Result<ExternalTable, Malformed> {
    let format = match table.format.as_str() {
        "csv" => ExternalFormat::Csv {
            has_header: table.has_header,
        },
        "json" => ExternalFormat::Json,
        "parquet" => ExternalFormat::Parquet,
        other => return Err(Malformed::new(format!("a format '{other}'"))),
    };
    Ok(ExternalTable {
        name: name(table.name)?,
        schema: Arc::new(decode_arrow(&table.arrow_schema)?),
        format,
        locations: table.locations,
        docstring: table.docstring,
        folder: table.folder,
    })
}

pub(crate) fn security_to_proto(policy: &RowLevelSecurity) -> proto::RowLevelSecurity {
    proto::RowLevelSecurity {
        enabled: policy.is_enabled,
        predicate: policy.predicate.clone(),
    }
}

pub(crate) fn security_from_proto(policy: proto::RowLevelSecurity) -> RowLevelSecurity {
    RowLevelSecurity {
        is_enabled: policy.enabled,
        predicate: policy.predicate,
    }
}
