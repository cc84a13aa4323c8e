//! `POST /v1/ingest/{database}/{table}`: the body is the file.

use std::collections::HashMap;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, RawQuery};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use super::kusto;
use crate::metrics::Timer;
use crate::{
    AuthorizedEngine, IngestFormat, IngestReceipt, IngestRequest, IngestSource, ServiceError,
    Streaming, TableMode,
};

pub(super) async fn run(
    engine: AuthorizedEngine,
    Path((database, table)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Json<IngestReceipt>, ServiceError> {
    let timer = Timer::start("http", "ingest");
    let request = parse(database, table, query.as_deref().unwrap_or_default(), body)?;
    let result = engine.ingest(request).await;
    timer.finish(&result);
    result.map(Json)
}

/// `POST /v1/rest/ingest/{database}/{table}?streamFormat=Csv`: Kusto's streaming ingestion. What
/// it takes is durable and visible when it is answered. The ingestion properties `tags` and
/// `ingestIfNotExists` are parameters, as JSON arrays; `ingest_id` and `queued` are as above.
/// Rows are streamed where the policy allows it.
pub(super) async fn run_kusto(
    engine: Result<AuthorizedEngine, ServiceError>,
    Path((database, table)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let timer = Timer::start("http", "kusto_ingest");
    let ingesting = async {
        let engine = engine?;
        let mut request = parse(database, table, "", body)?;
        let format = query.get("streamFormat").map_or("csv", String::as_str);
        request.format = Some(match format.to_ascii_lowercase().as_str() {
            "csv" => IngestFormat::Csv,
            "json" | "multijson" | "singlejson" => IngestFormat::Jsonl,
            "parquet" => IngestFormat::Parquet,
            other => {
                return Err(ServiceError::invalid(format!(
                    "streamFormat={other}: Csv, Json or Parquet is expected"
                )));
            }
        });
        if query
            .get("mappingName")
            .is_some_and(|name| !name.is_empty())
        {
            return Err(ServiceError::invalid(
                "mappingName: there are no ingestion mappings; CSV comes in the table's order, and \
                 JSON by the columns' names",
            ));
        }
        if let Some(kind) = query.get("sourceKind")
            && !kind.eq_ignore_ascii_case("stream")
        {
            return Err(ServiceError::invalid(format!(
                "sourceKind={kind}: the rows are the body; a file that an address names is taken \
                 by POST /v1/ingest/{{database}}/{{table}}?url=..."
            )));
        }
        for (name, values) in [
            ("tags", &mut request.tags),
            ("ingestIfNotExists", &mut request.ingest_if_not_exists),
        ] {
            if let Some(text) = query.get(name) {
                *values = serde_json::from_str(text).map_err(|error| {
                    ServiceError::invalid(format!("{name}: a JSON array of texts: {error}"))
                })?;
            }
        }
        for name in ["ingest_id", "queued"] {
            if let Some(value) = query.get(name) {
                set(&mut request, name, value)?;
            }
        }
        if !request.queued {
            request.streaming = Streaming::IfEnabled;
        }
        // Kusto's CSV has no line of names, and no texts that mean null.
        request.text.header = false;
        request.text.nulls.clear();
        engine.ingest(request).await
    };
    let result = ingesting.await;
    timer.finish(&result);
    match result {
        Ok(receipt) => taken(&receipt).into_response(),
        Err(error) => kusto::failure(&error, &headers),
    }
}

/// Kusto's answer to a streaming ingestion.
fn taken(receipt: &IngestReceipt) -> Json<serde_json::Value> {
    Json(serde_json::json!({
        "Tables": [{
            "TableName": "Table_0",
            "Columns": [
                {"ColumnName": "ConsumptionMode", "DataType": "String", "ColumnType": "string"},
                {"ColumnName": "Version", "DataType": "Int64", "ColumnType": "long"},
                {"ColumnName": "RowCount", "DataType": "Int64", "ColumnType": "long"},
                {"ColumnName": "Skipped", "DataType": "String", "ColumnType": "string"},
            ],
            "Rows": [["StreamingIngestion", receipt.version, receipt.rows, receipt.skipped]],
        }]
    }))
}

fn parse(
    database: String,
    table: String,
    query: &str,
    body: Body,
) -> Result<IngestRequest, ServiceError> {
    let chunks = body.into_data_stream().map(|chunk| {
        chunk.map_err(|error| ServiceError::invalid(format!("the body broke off: {error}")))
    });
    let source = IngestSource::Body(chunks.boxed());
    let mut request = IngestRequest::append(database, table, source, "body".to_owned());
    let mut nulls = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "null" {
            nulls.push(value.into_owned());
        } else {
            set(&mut request, &name, &value)?;
        }
    }
    if !nulls.is_empty() {
        request.text.nulls = nulls;
    }
    Ok(request)
}

fn set(request: &mut IngestRequest, name: &str, value: &str) -> Result<(), ServiceError> {
    let fail = |expected: &dyn std::fmt::Display| {
        ServiceError::invalid(format!("{name}={value}: {expected}"))
    };
    let flag = || match value {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(fail(&"true or false is expected")),
    };
    match name {
        "format" => {
            request.format = Some(match value {
                "csv" => IngestFormat::Csv,
                "jsonl" => IngestFormat::Jsonl,
                "parquet" => IngestFormat::Parquet,
                "arrow" => IngestFormat::Arrow,
                _ => return Err(fail(&"csv, jsonl, parquet or arrow is expected")),
            });
        }
        "create" => {
            let mode = if flag()? {
                TableMode::CreateOrAppend
            } else {
                TableMode::Append
            };
            request.table_mode = mode;
        }
        "creation_time" => request.creation_time = Some(value.parse().map_err(|e| fail(&e))?),
        "tag" => {
            request.tags.insert(value.to_owned());
        }
        "ingest_if_not_exists" => {
            request.ingest_if_not_exists.insert(value.to_owned());
        }
        "ingest_id" => request.ingest_id = Some(value.parse().map_err(|e| fail(&e))?),
        "queued" => request.queued = flag()?,
        "streaming" => {
            request.streaming = if flag()? {
                Streaming::Asked
            } else {
                Streaming::No
            }
        }
        "max_bad_rows" => request.bad_rows_max = value.parse().map_err(|e| fail(&e))?,
        "header" => request.text.header = flag()?,
        "delimiter" => match value.as_bytes() {
            [delimiter] => request.text.delimiter = *delimiter,
            b"\\t" => request.text.delimiter = b'\t',
            _ => return Err(fail(&"one ASCII character is expected")),
        },
        "source_name" => request.source_name = value.to_owned(),
        "url" => {
            request.source = IngestSource::Url(value.to_owned());
            request.source_name = value.to_owned();
        }
        _ => {
            return Err(ServiceError::invalid(format!(
                "'{name}' is not a parameter of an ingest; there are format, create, \
                 creation_time, tag, ingest_if_not_exists, ingest_id, queued, streaming, null, \
                 max_bad_rows, header, delimiter, source_name, url"
            )));
        }
    }
    Ok(())
}
