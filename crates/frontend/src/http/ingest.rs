//! `POST /v1/ingest/{database}/{table}`: the body is the file.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery};
use futures::StreamExt;

use crate::metrics::Timer;
use crate::{
    AuthorizedEngine, IngestFormat, IngestReceipt, IngestRequest, IngestSource, ServiceError,
    TableMode, TextOptions,
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

fn parse(
    database: String,
    table: String,
    query: &str,
    body: Body,
) -> Result<IngestRequest, ServiceError> {
    let chunks = body.into_data_stream().map(|chunk| {
        chunk.map_err(|error| ServiceError::invalid(format!("the body broke off: {error}")))
    });
    let mut request = IngestRequest {
        database,
        table,
        source: IngestSource::Body(chunks.boxed()),
        format: None,
        source_name: "body".to_owned(),
        table_mode: TableMode::Append,
        creation_time: None,
        tags: BTreeSet::new(),
        text: TextOptions::default(),
        bad_rows_max: 0,
    };
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
                 creation_time, tag, null, max_bad_rows, header, delimiter, source_name, url"
            )));
        }
    }
    Ok(())
}
