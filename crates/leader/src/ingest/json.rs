//! JSON lines: one object a line.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema;
use futures::{StreamExt, TryStreamExt, stream};
use slipstream_frontend::ServiceError;
use slipstream_model::TableSchema;

use super::infer::{SAMPLE_BYTES, SAMPLE_ROWS};
use super::rejects::{Misfit, Rejects};
use super::source::ByteStream;
use super::text::{Block, BlockStream, Records, blocks};
use super::{BATCH_ROWS, BatchStream};

/// Begins to read. The first blocks are looked at when there is no table yet.
pub(super) async fn open(
    bytes: ByteStream,
    table: Option<&TableSchema>,
    rejects: Rejects,
) -> Result<(Schema, BatchStream), ServiceError> {
    let mut rest = blocks(bytes, Records::Lines);
    let mut sample: Vec<Block> = Vec::new();
    let schema = match table {
        Some(table) => table.arrow(),
        None => {
            let mut sampled = 0;
            while sampled < SAMPLE_BYTES
                && let Some(block) = rest.try_next().await?
            {
                sampled += block.bytes.len();
                sample.push(block);
            }
            Arc::new(infer(&sample, rejects.source())?)
        }
    };
    let decode = Arc::new(Decode {
        schema: Arc::clone(&schema),
        rejects,
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all: BlockStream = stream::iter(sample.into_iter().map(Ok)).chain(rest).boxed();
    let batches = all
        .map(move |block| {
            let decode = Arc::clone(&decode);
            async move {
                let block = block?;
                let decoded = tokio::task::spawn_blocking(move || decode.block(&block)).await;
                decoded.map_err(|error| ServiceError::internal(error.to_string()))?
            }
        })
        .buffered(cores)
        .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
        .try_flatten()
        .boxed();
    Ok((schema.as_ref().clone(), batches))
}

fn infer(sample: &[Block], source: &str) -> Result<Schema, ServiceError> {
    let text: Vec<u8> = sample
        .iter()
        .flat_map(|block| block.bytes.iter().copied())
        .collect();
    let (schema, _) = infer_json_schema(text.as_slice(), Some(SAMPLE_ROWS)).map_err(|error| {
        ServiceError::invalid(format!("{source} is not one JSON object a line: {error}"))
    })?;
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            other => other.clone(),
        };
        Field::new(field.name(), data_type, true)
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    if schema.fields().is_empty() {
        return Err(ServiceError::invalid(format!(
            "{source} has no columns to infer"
        )));
    }
    Ok(schema)
}

struct Decode {
    schema: SchemaRef,
    rejects: Rejects,
}

impl Decode {
    fn block(&self, block: &Block) -> Result<Vec<RecordBatch>, ServiceError> {
        match decode(&self.schema, &block.bytes) {
            Ok(batches) => Ok(batches),
            Err(_) => self.line_by_line(block),
        }
    }

    fn line_by_line(&self, block: &Block) -> Result<Vec<RecordBatch>, ServiceError> {
        let mut good = Vec::with_capacity(block.bytes.len());
        for (line, raw) in (block.first_line..).zip(block.bytes.split(|byte| *byte == b'\n')) {
            if decode(&self.schema, raw).is_ok() {
                good.extend_from_slice(raw);
                good.push(b'\n');
                continue;
            }
            let row = String::from_utf8_lossy(raw).trim_end().to_owned();
            self.rejects.add(Misfit {
                line,
                row: Some(row),
                ..self.misfit(raw)
            })?;
        }
        decode(&self.schema, &good)
            .map_err(|error| ServiceError::internal(format!("good rows do not decode: {error}")))
    }

    /// Which column of a line is to blame, and with which value.
    fn misfit(&self, raw: &[u8]) -> Misfit {
        let reason = |reason: String| Misfit {
            reason,
            ..Misfit::default()
        };
        let object: serde_json::Map<String, serde_json::Value> = match serde_json::from_slice(raw) {
            Ok(serde_json::Value::Object(object)) => object,
            Ok(_) => return reason("the line is not a JSON object".to_owned()),
            Err(error) => return reason(format!("the line is not JSON: {error}")),
        };
        for (name, value) in &object {
            let Ok(field) = self.schema.field_with_name(name) else {
                let known: Vec<_> = self
                    .schema
                    .fields()
                    .iter()
                    .map(|f| f.name().as_str())
                    .collect();
                let reason = format!("the table has no such column; it has {}", known.join(", "));
                return Misfit {
                    column: Some(name.clone()),
                    reason,
                    ..Misfit::default()
                };
            };
            let alone = serde_json::json!({ name: value }).to_string();
            let schema = Arc::new(Schema::new(vec![field.clone()]));
            if decode(&schema, alone.as_bytes()).is_err() {
                let text = match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let reason = format!("is not a {}", field.data_type());
                let column = Some(name.clone());
                return Misfit {
                    column,
                    value: Some(text),
                    reason,
                    ..Misfit::default()
                };
            }
        }
        let missing = self.schema.fields().iter().find(|field| {
            !field.is_nullable()
                && object
                    .get(field.name())
                    .is_none_or(serde_json::Value::is_null)
        });
        match missing {
            Some(field) => Misfit {
                column: Some(field.name().clone()),
                reason: "is null, and the column is NOT NULL".to_owned(),
                ..Misfit::default()
            },
            None => reason("the line does not fit the table".to_owned()),
        }
    }
}

/// Unknown names are errors: a value that is silently left out is a value lost.
fn decode(schema: &SchemaRef, mut bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut decoder = ReaderBuilder::new(Arc::clone(schema))
        .with_batch_size(BATCH_ROWS)
        .with_strict_mode(true)
        .build_decoder()?;
    let mut batches = Vec::new();
    loop {
        let read = decoder.decode(bytes)?;
        bytes = &bytes[read..];
        match decoder.flush()? {
            Some(batch) => batches.push(batch),
            None if read == 0 => return Ok(batches),
            None => {}
        }
    }
}
