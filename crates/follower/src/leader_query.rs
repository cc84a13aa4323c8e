//! Queries that a follower sends on to the leader: `at_leader('SELECT ...')`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use slipstream_frontend::{Access, Caller};
use slipstream_query::{QueryError, QueryErrorKind, RemoteNode, RemoteRows};
use tonic::Code;
use tonic::transport::Channel;

use crate::following::Following;

/// The leader of one followed database, asked with the rights of whoever asks here.
#[derive(Debug)]
pub(crate) struct LeaderQuery {
    following: Arc<Following>,
    /// The caller's own token. The node's would lend its rights to everybody.
    token: Option<Arc<str>>,
    /// Whether this node asks its callers who they are.
    is_guarded: bool,
}

impl LeaderQuery {
    pub(crate) fn new(following: Arc<Following>, access: &Access) -> Self {
        Self {
            following,
            token: access.token(),
            is_guarded: **access.caller() != Caller::local(),
        }
    }

    async fn plan(
        &self,
        sql: &str,
    ) -> Result<(FlightSqlServiceClient<Channel>, FlightInfo), QueryError> {
        let source = self.following.source();
        let dialer = &self.following.context.dialer;
        let channel = dialer.connect(&source.leader_url).await;
        let channel = channel.map_err(|status| self.failed(status.message()))?;
        if self.is_guarded {
            self.check_guarded(channel.clone()).await?;
        }
        let mut client = FlightSqlServiceClient::new(channel);
        client.set_header("database", &source.original_name);
        if let Some(token) = &self.token {
            client.set_token(token.to_string());
        }
        let planned = client.execute(sql.to_owned(), None).await;
        let info = planned.map_err(|error| self.refused(&error))?;
        Ok((client, info))
    }

    /// A leader that asks nobody for a token takes everybody for its own machine's user. Whoever had to say
    /// who they are here would then see there what is kept from them here.
    async fn check_guarded(&self, channel: Channel) -> Result<(), QueryError> {
        let mut stranger = FlightSqlServiceClient::new(channel);
        match stranger.execute("SELECT 1".to_owned(), None).await {
            Err(FlightError::Tonic(status)) if status.code() == Code::Unauthenticated => Ok(()),
            Err(error) => Err(self.refused(&error)),
            Ok(_) => {
                let message = format!(
                    "leader '{}' asks nobody for a token, and this node does: what is kept from you \
                     here would not be kept there. at_leader works once the leader has --tokens",
                    self.following.source().leader
                );
                Err(QueryError::new(QueryErrorKind::Unsupported, message))
            }
        }
    }

    fn failed(&self, why: &str) -> QueryError {
        let message = format!("leader '{}': {why}", self.following.source().leader);
        QueryError::new(QueryErrorKind::Storage, message)
    }

    fn refused(&self, error: &FlightError) -> QueryError {
        let why = match error {
            FlightError::Tonic(status) => status.message().to_owned(),
            other => other.to_string(),
        };
        let message = format!("leader '{}': {why}", self.following.source().leader);
        QueryError::new(QueryErrorKind::Planning, message)
    }
}

#[async_trait]
impl RemoteNode for LeaderQuery {
    async fn schema(&self, sql: &str) -> Result<SchemaRef, QueryError> {
        let (_, info) = self.plan(sql).await?;
        let schema = info.try_decode_schema();
        schema
            .map(Arc::new)
            .map_err(|error| self.failed(&error.to_string()))
    }

    async fn run(&self, sql: &str) -> Result<RemoteRows, QueryError> {
        let (mut client, info) = self.plan(sql).await?;
        let endpoint = info.endpoint.into_iter().next();
        let ticket = endpoint.and_then(|endpoint| endpoint.ticket);
        let ticket = ticket.ok_or_else(|| self.failed("the answer has no rows to fetch"))?;
        let fetched = client.do_get(ticket).await;
        let rows = fetched.map_err(|error| self.refused(&error))?;
        let leader = self.following.source().leader.clone();
        Ok(rows
            .map_err(move |error| {
                let message = format!("leader '{leader}': {error}");
                QueryError::new(QueryErrorKind::Storage, message)
            })
            .boxed())
    }
}
