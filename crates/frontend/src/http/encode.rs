//! Rows as bytes, batch by batch: JSON, JSON lines, CSV, Arrow.
//!
//! What they cost is known after the last of them, so it stands there, for clients that ask for it:
//!
//! * JSON: `{"rows": [...], "statistics": {...}}` instead of the rows alone.
//! * JSON lines: a last line, `{"statistics": {...}}`.
//! * Arrow: a second stream after the first one's end, of one row and one column, `statistics`,
//!   which holds the same JSON. Readers of the first stop before it.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::{JsonArray, LineDelimited};
use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use futures::{Stream, StreamExt};
use slipstream_query::{QueryError, QueryMeter, QueryStatistics};

use crate::{ErrorKind, ServiceError};

/// What a client may accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerFormat {
    Json,
    JsonLines,
    Csv,
    Arrow,
}

impl AnswerFormat {
    const ALL: [Self; 4] = [Self::Json, Self::JsonLines, Self::Csv, Self::Arrow];

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Refuses statistics where there is no place for them.
    pub(super) fn check_statistics(self) -> Result<(), ServiceError> {
        match self {
            Self::Csv => Err(ServiceError::new(
                ErrorKind::InvalidArgument,
                "not_acceptable",
                "CSV has no place for statistics: accept JSON, JSON lines or Arrow",
            )),
            Self::Json | Self::JsonLines | Self::Arrow => Ok(()),
        }
    }

    /// What stands before the rows when statistics follow them.
    const fn opening(self) -> &'static str {
        match self {
            Self::Json => "{\"rows\":",
            Self::JsonLines | Self::Csv | Self::Arrow => "",
        }
    }

    /// The statistics, after the rows.
    fn closing(self, statistics: &QueryStatistics) -> Result<Vec<u8>, ArrowError> {
        let json = serde_json::to_string(statistics)
            .map_err(|error| ArrowError::JsonError(error.to_string()))?;
        match self {
            Self::Json => Ok(format!(",\"statistics\":{json}}}\n").into_bytes()),
            Self::JsonLines => Ok(format!("{{\"statistics\":{json}}}\n").into_bytes()),
            Self::Arrow => stream_of_text("statistics", json),
            Self::Csv => Ok(Vec::new()),
        }
    }

    /// The first type of the `Accept` header that can be given; JSON when it takes anything.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ServiceError> {
        let Some(accept) = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
        else {
            return Ok(Self::Json);
        };
        let wanted = accept.split(',').map(|part| {
            part.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        });
        for wanted in wanted {
            if matches!(wanted.as_str(), "*/*" | "application/*") {
                return Ok(Self::Json);
            }
            if let Some(format) = Self::ALL.into_iter().find(|f| f.content_type() == wanted) {
                return Ok(format);
            }
        }
        let offered = Self::ALL.map(Self::content_type).join(", ");
        Err(ServiceError::new(
            ErrorKind::InvalidArgument,
            "not_acceptable",
            format!("Accept: {accept} is none of {offered}"),
        ))
    }
}

/// Turns batches into chunks of a body.
pub(super) enum Encoder {
    Json { has_rows: bool },
    JsonLines,
    Csv { header: bool, schema: SchemaRef },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Encoder {
    pub(super) fn new(format: AnswerFormat, schema: SchemaRef) -> Result<Self, ServiceError> {
        Ok(match format {
            AnswerFormat::Json => Self::Json { has_rows: false },
            AnswerFormat::JsonLines => Self::JsonLines,
            AnswerFormat::Csv => {
                if let Some(nested) = schema.fields().iter().find(|f| f.data_type().is_nested()) {
                    return Err(ServiceError::new(
                        ErrorKind::InvalidArgument,
                        "not_acceptable",
                        format!(
                            "CSV cannot hold column '{}' of type {}: accept JSON or Arrow",
                            nested.name(),
                            nested.data_type()
                        ),
                    ));
                }
                Self::Csv {
                    header: true,
                    schema,
                }
            }
            AnswerFormat::Arrow => {
                let writer = StreamWriter::try_new(Vec::new(), &schema);
                Self::Arrow(Box::new(
                    writer.map_err(|e| ServiceError::internal(e.to_string()))?,
                ))
            }
        })
    }

    /// The chunks of the body. Ends with an error when the query does, which breaks the transfer:
    /// a client never takes half an answer for a whole one.
    pub(super) fn encode(
        self,
        rows: impl Stream<Item = Result<RecordBatch, QueryError>> + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
        enum Step<S> {
            Rows(Encoder, S),
            Done,
        }
        futures::stream::unfold(Step::Rows(self, Box::pin(rows)), |step| async move {
            let Step::Rows(mut encoder, mut rows) = step else {
                return None;
            };
            let chunk = match rows.next().await {
                Some(Ok(batch)) => encoder.batch(&batch),
                Some(Err(error)) => {
                    tracing::warn!(%error, "an answer broke off");
                    return Some((Err(std::io::Error::other(error)), Step::Done));
                }
                None => {
                    let end = encoder.end().map_err(std::io::Error::other);
                    return Some((end.map(Bytes::from), Step::Done));
                }
            };
            match chunk {
                Ok(chunk) => Some((Ok(chunk.into()), Step::Rows(encoder, rows))),
                Err(error) => {
                    tracing::warn!(%error, "an answer could not be encoded");
                    Some((Err(std::io::Error::other(error)), Step::Done))
                }
            }
        })
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Json { has_rows } => {
                if batch.num_rows() == 0 {
                    return Ok(Vec::new());
                }
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, JsonArray>(Vec::new());
                writer.write(batch)?;
                writer.finish()?;
                let mut array = writer.into_inner();
                // One array over all batches: its brackets and commas are ours.
                array.truncate(array.trim_ascii_end().len() - 1);
                array[0] = if *has_rows { b',' } else { b'[' };
                *has_rows = true;
                Ok(array)
            }
            Self::JsonLines => {
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, LineDelimited>(Vec::new());
                writer.write(batch)?;
                writer.finish()?;
                Ok(writer.into_inner())
            }
            Self::Csv { header, .. } => csv_chunk(batch, std::mem::take(header)),
            Self::Arrow(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    fn end(self) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Json { has_rows: true } => Ok(b"]\n".to_vec()),
            Self::Json { has_rows: false } => Ok(b"[]\n".to_vec()),
            Self::JsonLines | Self::Csv { header: false, .. } => Ok(Vec::new()),
            Self::Csv {
                header: true,
                schema,
            } => csv_chunk(&RecordBatch::new_empty(schema), true),
            Self::Arrow(mut writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }
}

/// A body with what its query cost after the rows. Nothing comes after an error: the transfer ends
/// with it.
pub(super) fn with_statistics(
    format: AnswerFormat,
    body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    meter: QueryMeter,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let opening = Bytes::from_static(format.opening().as_bytes());
    let closing = async move {
        let closing = format.closing(&meter.read());
        closing.map(Bytes::from).map_err(std::io::Error::other)
    };
    futures::stream::iter([Ok(opening)])
        .chain(body)
        .chain(futures::stream::once(closing))
}

/// An Arrow stream of one text.
fn stream_of_text(column: &str, text: String) -> Result<Vec<u8>, ArrowError> {
    let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8, false)]));
    let texts = Arc::new(StringArray::from(vec![text]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![texts])?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.into_inner()
}

fn csv_chunk(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut chunk = Vec::new();
    csv::WriterBuilder::new()
        .with_header(header)
        .build(&mut chunk)
        .write(batch)?;
    Ok(chunk)
}

#[cfg(test)]
mod tests;
