//! A prepared statement, whole: its SQL and the parameters bound to it.
//!
//! ```text
//! 4 bytes   length of the SQL, little-endian
//! n bytes   the SQL, UTF-8
//! the rest  the parameters, as an Arrow IPC stream; nothing when none are bound
//! ```

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use futures::{StreamExt, TryStreamExt};
use prost::bytes::Bytes;
use slipstream_query::Parameters;
use tonic::Status;

use crate::ServiceError;
use crate::arrow_ipc::{StreamBatches, check_flight_data};

/// Bytes of parameters that are held for one statement.
const PARAMETER_BYTES_MAX: usize = 256 << 20;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    sql: String,
    parameters: Option<RecordBatch>,
}

impl Handle {
    pub(super) fn new(sql: String) -> Self {
        Self {
            sql,
            parameters: None,
        }
    }

    pub(super) fn with_parameters(self, parameters: Option<RecordBatch>) -> Self {
        Self { parameters, ..self }
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    pub(super) fn row_count(&self) -> usize {
        self.parameters.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// The parameters of one execution; none when none are bound.
    pub(super) fn row(&self, row: usize) -> Result<Parameters, Status> {
        match &self.parameters {
            Some(batch) if row < batch.num_rows() => {
                Ok(Parameters::from_row(batch, row).map_err(ServiceError::from)?)
            }
            _ => Ok(Parameters::default()),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let length = u32::try_from(self.sql.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(self.sql.as_bytes());
        if let Some(batch) = &self.parameters {
            let written = StreamWriter::try_new(&mut bytes, &batch.schema())
                .and_then(|mut writer| writer.write(batch).and_then(|()| writer.finish()));
            debug_assert!(written.is_ok(), "a batch that was read can be written");
        }
        bytes.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Status> {
        let garbled = || Status::invalid_argument("the prepared statement's handle is garbled");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(garbled)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (sql, rest) = rest.split_at_checked(length).ok_or_else(garbled)?;
        let sql = String::from_utf8(sql.to_vec()).map_err(|_| garbled())?;
        let parameters = if rest.is_empty() {
            None
        } else {
            let mut reader = StreamBatches::open(rest).map_err(|_| garbled())?;
            reader.next().transpose().map_err(|_| garbled())?
        };
        Ok(Self { sql, parameters })
    }
}

/// Reads the rows of parameters that a client binds.
pub(super) async fn read_parameters(
    stream: PeekableFlightDataStream,
    rows_max: usize,
) -> Result<Option<RecordBatch>, Status> {
    let messages = stream.map(|data| data.map_err(FlightError::from).and_then(check_flight_data));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut bound: Vec<RecordBatch> = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = batches.try_next().await? {
        bytes += batch.get_array_memory_size();
        if bytes > PARAMETER_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "more than {} MiB of parameters: bind fewer, or ingest the rows",
                PARAMETER_BYTES_MAX >> 20
            )));
        }
        bound.push(batch);
        if bound.iter().map(RecordBatch::num_rows).sum::<usize>() > rows_max {
            return Err(Status::invalid_argument(format!(
                "more than {rows_max} rows of parameters: bind fewer, or ingest the rows"
            )));
        }
    }
    let Some(first) = bound.first() else {
        return Ok(None);
    };
    if first.num_columns() == 0 {
        return Ok(None);
    }
    let all = arrow::compute::concat_batches(&first.schema(), &bound);
    all.map(Some)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn a_handle_is_the_whole_statement() {
        let schema = Schema::new(vec![
            Field::new("1", DataType::Int64, true),
            Field::new("2", DataType::Utf8, true),
        ]);
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int64Array::from(vec![7])),
                Arc::new(StringArray::from(vec!["ü"])),
            ],
        )
        .expect("valid");
        let handle = Handle::new("SELECT $1, $2".into()).with_parameters(Some(batch.clone()));
        let decoded = Handle::decode(&handle.encode()).expect("whole");
        assert_eq!(decoded.sql(), "SELECT $1, $2");
        assert_eq!(decoded.parameters, Some(batch));
        assert_eq!(
            Handle::decode(&Handle::new("x".into()).encode())
                .expect("whole")
                .row_count(),
            0
        );
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [
            &b""[..],
            b"\x05\0\0\0ab",
            b"\x01\0\0\0\xff",
            b"\x01\0\0\0aXX",
        ] {
            assert!(Handle::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
