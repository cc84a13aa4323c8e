//! What a ticket stands for: a query that is run when its rows are fetched, or, for a statement
//! that has written already, the answer itself.
//!
//! The first byte says which: `Q`, then the SQL; `A`, then an Arrow IPC stream.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow_flight::sql::TicketStatementQuery;
use tonic::Status;

use crate::arrow_ipc::StreamBatches;

/// A ticket, read.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Query(String),
    Answer(RecordBatch),
}

pub(super) fn of_query(sql: &str) -> TicketStatementQuery {
    TicketStatementQuery {
        statement_handle: [b"Q", sql.as_bytes()].concat().into(),
    }
}

pub(super) fn of_answer(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<TicketStatementQuery, Status> {
    let mut bytes = b"A".to_vec();
    let mut write = || -> Result<(), ArrowError> {
        let mut writer = StreamWriter::try_new(&mut bytes, schema)?;
        writer.write(&concat_batches(schema, batches)?)?;
        writer.finish()
    };
    write().map_err(|error| Status::internal(error.to_string()))?;
    Ok(TicketStatementQuery {
        statement_handle: bytes.into(),
    })
}

pub(super) fn read(ticket: &TicketStatementQuery) -> Result<Content, Status> {
    let garbled = || Status::invalid_argument("the ticket is not one of this node's");
    let (kind, rest) = ticket.statement_handle.split_first().ok_or_else(garbled)?;
    match kind {
        b'Q' => String::from_utf8(rest.to_vec())
            .map(Content::Query)
            .map_err(|_| garbled()),
        b'A' => {
            let mut reader = StreamBatches::open(rest).map_err(|_| garbled())?;
            let batch = reader.next().transpose().map_err(|_| garbled())?;
            batch.map(Content::Answer).ok_or_else(garbled)
        }
        _ => Err(garbled()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::UInt64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn a_ticket_holds_a_query_or_an_answer() {
        let query = of_query("SELECT 1");
        assert_eq!(
            read(&query).expect("whole"),
            Content::Query("SELECT 1".into())
        );

        let schema = Arc::new(Schema::new(vec![Field::new(
            "rows",
            DataType::UInt64,
            true,
        )]));
        let column = Arc::new(UInt64Array::from(vec![3]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).expect("valid");
        let answer = of_answer(&schema, std::slice::from_ref(&batch)).expect("encodes");
        assert_eq!(read(&answer).expect("whole"), Content::Answer(batch));

        for bytes in [&b""[..], b"X", b"A", b"Q\xff"] {
            let ticket = TicketStatementQuery {
                statement_handle: bytes.to_vec().into(),
            };
            assert!(read(&ticket).is_err(), "{bytes:?}");
        }
    }
}
