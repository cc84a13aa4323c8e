//! Arrow Flight SQL: statements, prepared statements, catalogs, bulk ingestion.
//!
//! Nothing is kept between calls. A prepared statement's handle *is* the statement with the
//! parameters bound to it so far, so any node answers for any other.

mod catalog;
mod handle;
mod ingest;
mod request;
mod stream;
mod ticket;

use std::pin::Pin;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, CommandGetCatalogs, CommandGetDbSchemas,
    CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    PutResult, Ticket,
};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use crate::gate::{self, visitor_of};
use crate::metrics::Timer;
use crate::{Answer, AuthorizedEngine, Gate, NodeIdentity, ServiceError, SqlRequest};
use handle::Handle;

/// A batch of an ingest, or of bound parameters, may be this large on the wire.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Rows of parameters that one prepared update takes: each is a statement and a commit of its
/// own. More rows are an ingest.
const PARAMETER_ROWS_MAX: usize = 10_000;

type FlightStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type DoGet = Result<Response<<FlightSql as FlightService>::DoGetStream>, Status>;
type Info = Result<Response<FlightInfo>, Status>;

/// The service, over the wire.
pub(crate) fn service(gate: &Gate) -> FlightServiceServer<FlightSql> {
    let identity = gate.identity().clone();
    FlightServiceServer::new(FlightSql { identity }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The Flight SQL door. It stands behind a gate, which puts the node as the caller may use it
/// into each request.
#[derive(Debug, Clone)]
pub(crate) struct FlightSql {
    identity: NodeIdentity,
}

impl FlightSql {
    /// One endpoint, on this very node: whoever asked fetches the rows here.
    fn info<T: ProstMessageExt>(
        &self,
        ticket: T,
        schema: &Schema,
        descriptor: FlightDescriptor,
    ) -> Info {
        let ticket = Ticket::new(ticket.as_any().encode_to_vec());
        let info = FlightInfo::new()
            .try_with_schema(schema)
            .map_err(|error| Status::internal(error.to_string()))?
            .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_descriptor(descriptor);
        Ok(Response::new(info))
    }

    /// Runs a query and streams its rows; the state they came from goes with the first message.
    async fn stream(engine: &AuthorizedEngine, request: SqlRequest) -> DoGet {
        let timer = Timer::start("flight", "query");
        let result = engine.execute(request).await;
        timer.finish(&result);
        Ok(Response::new(stream::encode(result?)))
    }

    /// Runs statements that write, and says how many rows they wrote.
    async fn update(engine: &AuthorizedEngine, request: SqlRequest) -> Result<i64, Status> {
        let timer = Timer::start("flight", "update");
        let result = engine.execute(request).await;
        timer.finish(&result);
        let Answer {
            rows_written: written,
            mut rows,
            ..
        } = result?;
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            count += batch.map_err(ServiceError::from)?.num_rows() as u64;
        }
        Ok(i64::try_from(written.unwrap_or(count)).unwrap_or(i64::MAX))
    }

    /// A query is only planned here, and run when its rows are fetched. A statement that writes
    /// is run here: clients are not bound to fetch an answer that they have no use for.
    async fn info_of<T: ProstMessageExt>(
        &self,
        engine: &AuthorizedEngine,
        request: SqlRequest,
        ticket: T,
        descriptor: FlightDescriptor,
    ) -> Info {
        let description = engine.describe(request.clone()).await?;
        if description.is_query {
            return self.info(ticket, &description.schema, descriptor);
        }
        let timer = Timer::start("flight", "update");
        let result = engine.execute(request).await;
        timer.finish(&result);
        let answer = result?;
        let metadata = stream::describe(&answer);
        let schema = answer.rows.schema();
        let batches = answer
            .rows
            .collect_batches()
            .await
            .map_err(ServiceError::from)?;
        let ticket = ticket::of_answer(&schema, &batches)?;
        let mut info = self.info(ticket, &schema, descriptor)?;
        info.get_mut().app_metadata = metadata;
        Ok(info)
    }
}

fn one_batch(batch: Result<arrow::array::RecordBatch, arrow_flight::error::FlightError>) -> DoGet {
    let batch = batch.map_err(|error| Status::internal(error.to_string()))?;
    batches(batch.schema(), vec![batch])
}

fn batches(schema: SchemaRef, rows: Vec<arrow::array::RecordBatch>) -> DoGet {
    let stream = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(futures::stream::iter(rows.into_iter().map(Ok)))
        .map_err(Status::from);
    Ok(Response::new(stream.boxed()))
}

/// An Arrow schema as the IPC message that prepared statements carry.
fn schema_bytes(schema: &Schema) -> Result<prost::bytes::Bytes, Status> {
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    let message =
        arrow_flight::IpcMessage::try_from(arrow_flight::SchemaAsIpc::new(schema, &options))
            .map_err(|error| Status::internal(error.to_string()))?;
    Ok(message.0)
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    /// Clients that know user and password come here first, with the token as password, and send
    /// from then on what they are answered. Whoever gets here was authenticated already.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<FlightStream<HandshakeResponse>>, Status> {
        let token = request.metadata().get("authorization");
        let token = token.and_then(|value| gate::token_of(value.to_str().ok()?));
        let welcome = HandshakeResponse {
            protocol_version: 0,
            payload: Default::default(),
        };
        let mut response = Response::new(futures::stream::iter([Ok(welcome)]).boxed());
        let bearer = token.and_then(|token| format!("Bearer {token}").parse().ok());
        if let Some(bearer) = bearer {
            response.metadata_mut().insert("authorization", bearer);
        }
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let sql = request::sql(&request, query.query.clone())?;
        let ticket = ticket::of_query(&query.query);
        self.info_of(&visitor_of(&request)?, sql, ticket, request.into_inner())
            .await
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> DoGet {
        match ticket::read(&ticket)? {
            ticket::Content::Query(sql) => {
                Self::stream(&visitor_of(&request)?, request::sql(&request, sql)?).await
            }
            ticket::Content::Answer(batch) => one_batch(Ok(batch)),
        }
    }

    async fn do_put_statement_update(
        &self,
        ticket: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Self::update(
            &visitor_of(&request)?,
            request::sql(&request, ticket.query)?,
        )
        .await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let description = visitor_of(&request)?
            .describe(request::sql(&request, query.query.clone())?)
            .await?;
        // A statement without rows has no columns to announce: clients then run it as an update.
        let dataset_schema = if description.is_query {
            schema_bytes(&description.schema)?
        } else {
            Default::default()
        };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: Handle::new(query.query).encode(),
            dataset_schema,
            parameter_schema: schema_bytes(&description.parameters)?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let handle = Handle::decode(&query.prepared_statement_handle)?;
        let parameters = handle::read_parameters(request.into_inner(), 1).await?;
        let handle = handle.with_parameters(parameters).encode();
        Ok(DoPutPreparedStatementResult {
            prepared_statement_handle: Some(handle),
        })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let handle = Handle::decode(&query.prepared_statement_handle)?;
        let mut sql = request::sql(&request, handle.sql().to_owned())?;
        sql.parameters = handle.row(0)?;
        self.info_of(&visitor_of(&request)?, sql, query, request.into_inner())
            .await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> DoGet {
        let handle = Handle::decode(&query.prepared_statement_handle)?;
        let mut sql = request::sql(&request, handle.sql().to_owned())?;
        sql.parameters = handle.row(0)?;
        Self::stream(&visitor_of(&request)?, sql).await
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let handle = Handle::decode(&query.prepared_statement_handle)?;
        let engine = visitor_of(&request)?;
        let sql = request::sql(&request, handle.sql().to_owned())?;
        let parameters = handle::read_parameters(request.into_inner(), PARAMETER_ROWS_MAX).await?;
        let handle = handle.with_parameters(parameters);
        let mut written = 0;
        for row in 0..handle.row_count().max(1) {
            let request = SqlRequest {
                parameters: handle.row(row)?,
                ..sql.clone()
            };
            written += Self::update(&engine, request).await?;
        }
        Ok(written)
    }

    async fn do_put_statement_ingest(
        &self,
        ticket: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let timer = Timer::start("flight", "ingest");
        let engine = visitor_of(&request)?;
        let database = request::database(&request);
        let headers = request::IngestHeaders::of(&request)?;
        let batches = request.into_inner();
        let result = ingest::of_command(&engine, ticket, database, headers, batches).await;
        timer.finish(&result);
        let rows = result?.rows;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// Plain Flight: a path of database and table, then batches. Answers the receipt as JSON.
    async fn do_put_fallback(
        &self,
        request: Request<PeekableFlightDataStream>,
        _message: Any,
    ) -> Result<Response<FlightStream<PutResult>>, Status> {
        self.put_path(request).await
    }

    async fn do_put_error_callback(
        &self,
        request: Request<PeekableFlightDataStream>,
        _error: DoPutError,
    ) -> Result<Response<FlightStream<PutResult>>, Status> {
        self.put_path(request).await
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = query.into_builder().schema();
        self.info(query, &schema, request.into_inner())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _request: Request<Ticket>) -> DoGet {
        let mut builder = query.into_builder();
        builder.append(catalog::CATALOG);
        one_batch(builder.build())
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = query.clone().into_builder().schema();
        self.info(query, &schema, request.into_inner())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> DoGet {
        let engine = visitor_of(&request)?;
        let schemas = catalog::schemas(&engine, &request).await?;
        let mut builder = query.into_builder();
        for schema in schemas {
            builder.append(catalog::CATALOG, schema);
        }
        one_batch(builder.build())
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = query.clone().into_builder().schema();
        self.info(query, &schema, request.into_inner())
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> DoGet {
        let engine = visitor_of(&request)?;
        let mut builder = query.clone().into_builder();
        for table in catalog::tables(&engine, &request).await? {
            let schema = if query.include_schema {
                catalog::schema_of(&engine, &request, &table).await?
            } else {
                SchemaRef::new(Schema::empty())
            };
            builder
                .append(
                    catalog::CATALOG,
                    &table.schema,
                    &table.name,
                    &table.kind,
                    &schema,
                )
                .map_err(|error| Status::internal(error.to_string()))?;
        }
        one_batch(builder.build())
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let schema = query.into_builder().schema();
        self.info(query, &schema, request.into_inner())
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> DoGet {
        let mut builder = query.into_builder();
        for kind in catalog::TABLE_KINDS {
            builder.append(kind);
        }
        one_batch(builder.build())
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let infos = catalog::sql_info(&self.identity)?;
        let schema = query.clone().into_builder(&infos).schema();
        self.info(query, &schema, request.into_inner())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _request: Request<Ticket>) -> DoGet {
        let infos = catalog::sql_info(&self.identity)?;
        one_batch(query.into_builder(&infos).build())
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

impl FlightSql {
    async fn put_path(
        &self,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<Response<FlightStream<PutResult>>, Status> {
        let timer = Timer::start("flight", "ingest");
        let engine = visitor_of(&request)?;
        let headers = request::IngestHeaders::of(&request)?;
        let result = ingest::of_path(&engine, headers, request.into_inner()).await;
        timer.finish(&result);
        let receipt =
            serde_json::to_vec(&result?).map_err(|error| Status::internal(error.to_string()))?;
        let answer = PutResult {
            app_metadata: receipt.into(),
        };
        Ok(Response::new(futures::stream::iter([Ok(answer)]).boxed()))
    }
}
