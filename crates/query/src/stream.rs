//! The answer of a query while it is computed.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::admission::Slot;
use crate::counters::{QueryCounters, QueryMeter, QueryStatistics};
use crate::deadline::Deadline;
use crate::error::{is_decoding_failure, is_local_failure};
use crate::log::QueryEntry;
use crate::table::check_extents;
use crate::{ExtentAccess, QueryError, QueryErrorKind, plans};

/// Batches that are computed ahead of the client. One is being sent while the next is computed;
/// more would only hold memory that no limit knows of.
const BATCHES_AHEAD_MAX: usize = 2;

/// The rows of an answer, as they come.
///
/// The query runs in a task of its own: it meets its deadline also when nobody asks for rows, and
/// a panic in it is an error here. Dropping the stream stops it and gives back its memory and its
/// slot.
pub struct QueryStream {
    schema: SchemaRef,
    source: Source,
    /// What must live as long as rows are read, such as the pins that a lease names.
    held: Vec<Box<dyn Any + Send>>,
}

enum Source {
    Ready(std::vec::IntoIter<RecordBatch>),
    Running(Running),
}

struct Running {
    id: Uuid,
    counters: Arc<QueryCounters>,
    messages: mpsc::Receiver<Message>,
    /// Stops the query when the stream is dropped.
    _task: AbortOnDropHandle<()>,
    has_ended: bool,
}

/// The end is said, so that a task that vanishes is not taken for a complete answer.
enum Message {
    Batch(RecordBatch),
    Failed(QueryError),
    Complete,
}

impl QueryStream {
    /// An answer that is known already.
    pub fn from_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self {
            schema,
            source: Source::Ready(batches.into_iter()),
            held: Vec::new(),
        }
    }

    /// The same rows, with something that is dropped when they are.
    #[must_use]
    pub fn holding(mut self, guard: impl Any + Send) -> Self {
        self.held.push(Box::new(guard));
        self
    }

    /// The columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The id in `slipstream.queries`; `None` for an answer that no query computed.
    pub fn query_id(&self) -> Option<Uuid> {
        match &self.source {
            Source::Ready(_) => None,
            Source::Running(running) => Some(running.id),
        }
    }

    /// What the query has cost so far.
    pub fn statistics(&self) -> QueryStatistics {
        self.meter().read()
    }

    /// The same, for when the rows have been handed on.
    pub fn meter(&self) -> QueryMeter {
        match &self.source {
            Source::Ready(_) => QueryMeter::default(),
            Source::Running(running) => QueryMeter::new(&running.counters),
        }
    }

    /// Everything at once, for small answers.
    ///
    /// # Errors
    /// When the query fails.
    pub async fn collect_batches(mut self) -> Result<Vec<RecordBatch>, QueryError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

impl fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryStream")
            .field("id", &self.query_id())
            .finish_non_exhaustive()
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let running = match &mut self.source {
            Source::Ready(batches) => return Poll::Ready(batches.next().map(Ok)),
            Source::Running(running) => running,
        };
        if running.has_ended {
            return Poll::Ready(None);
        }
        let message = ready!(running.messages.poll_recv(context));
        running.has_ended = !matches!(message, Some(Message::Batch(_)));
        Poll::Ready(match message {
            Some(Message::Batch(batch)) => Some(Ok(batch)),
            Some(Message::Failed(error)) => Some(Err(error)),
            Some(Message::Complete) => None,
            None => {
                let message = "the query was stopped before it was complete";
                Some(Err(QueryError::new(QueryErrorKind::Cancelled, message)))
            }
        })
    }
}

/// A query that is planned and has its slot.
pub(crate) struct Execution {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) context: Arc<TaskContext>,
    /// The columns that the client was told of.
    pub(crate) schema: SchemaRef,
    pub(crate) deadline: Deadline,
    pub(crate) entry: QueryEntry,
    pub(crate) slot: Slot,
    /// Where extents are, for when one turns out to be damaged.
    pub(crate) access: Arc<dyn ExtentAccess>,
    /// What to plan again, for when a local form turns out to be damaged.
    pub(crate) again: Again,
}

/// A query as it was before it ran.
pub(crate) enum Again {
    /// It is planned once more.
    Planned {
        state: Box<SessionState>,
        plan: LogicalPlan,
    },
    /// It had a plan already.
    Known(Arc<dyn ExecutionPlan>),
}

impl Again {
    /// Another plan. What could not be read of the disk is read from the bucket by it: the cache has
    /// forgotten it.
    async fn plan(
        &self,
        counters: &Arc<QueryCounters>,
    ) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        Ok(match self {
            Self::Planned { state, plan } => state.create_physical_plan(plan).await?,
            Self::Known(plan) => plans::renewed(plan, counters)?,
        })
    }
}

impl Execution {
    /// Starts the query in a task of the current runtime.
    pub(crate) fn start(self) -> QueryStream {
        let (sender, messages) = mpsc::channel(BATCHES_AHEAD_MAX);
        let schema = Arc::clone(&self.schema);
        let id = self.entry.id();
        let counters = Arc::clone(self.entry.counters());
        let task = AbortOnDropHandle::new(tokio::spawn(self.run(sender)));
        let running = Running {
            id,
            counters,
            messages,
            _task: task,
            has_ended: false,
        };
        QueryStream {
            schema,
            source: Source::Running(running),
            held: Vec::new(),
        }
    }

    async fn run(self, sender: mpsc::Sender<Message>) {
        // Batches that are always ready do not keep the timeout from looking: sending yields.
        let work = AssertUnwindSafe(self.send_batches(&sender)).catch_unwind();
        let result = match self.deadline.hold(work).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(failure))) => Err(self.explain(failure).await),
            Ok(Err(panic)) => Err(self.explain(Failure::Panic(panic_message(&*panic))).await),
            Err(too_late) => Err(too_late),
        };
        // Memory and slot are given back before anybody is told: a client that reads slowly must
        // not keep the next query waiting.
        let Self {
            plan,
            context,
            entry,
            slot,
            again,
            ..
        } = self;
        drop((plan, context, slot, again));
        let last = match result {
            Ok(()) => {
                entry.complete();
                Message::Complete
            }
            Err(error) => {
                entry.fail(&error);
                Message::Failed(error)
            }
        };
        // Nobody listens any more: there is nobody to tell.
        let _ = sender.send(last).await;
    }

    /// Runs the plan. A local form that cannot be read is no reason to fail as long as the client has
    /// had no row: the query begins again, and reads that extent from the bucket.
    async fn send_batches(&self, sender: &mpsc::Sender<Message>) -> Result<(), Failure> {
        let mut has_sent = false;
        let first = Arc::clone(&self.plan);
        match self.send_batches_of(first, sender, &mut has_sent).await {
            Err(failure) if !has_sent && failure.is_of_local_form() => {
                tracing::warn!(query = %self.entry.id(), "a query begins again without a damaged file");
                let again = self.again.plan(self.entry.counters()).await?;
                self.send_batches_of(again, sender, &mut has_sent).await
            }
            outcome => outcome,
        }
    }

    async fn send_batches_of(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        sender: &mpsc::Sender<Message>,
        has_sent: &mut bool,
    ) -> Result<(), Failure> {
        let mut batches = execute_stream(plan, Arc::clone(&self.context))?;
        while let Some(batch) = batches.next().await {
            let batch = conform(batch?, &self.schema)?;
            self.entry.counters().add_rows(batch.num_rows());
            *has_sent = true;
            if sender.send(Message::Batch(batch)).await.is_err() {
                let message = "the client went away";
                return Err(QueryError::new(QueryErrorKind::Cancelled, message).into());
            }
        }
        Ok(())
    }

    async fn explain(&self, failure: Failure) -> QueryError {
        explain(failure, &self.entry, self.access.as_ref(), &self.deadline).await
    }
}

/// What to tell the client. Bytes that make no sense are traced to the extent they came from.
pub(crate) async fn explain(
    failure: Failure,
    entry: &QueryEntry,
    access: &dyn ExtentAccess,
    deadline: &Deadline,
) -> QueryError {
    let is_suspicious = match &failure {
        Failure::Known(_) => false,
        Failure::Engine(error) => is_decoding_failure(error),
        Failure::Panic(_) => true,
    };
    if is_suspicious {
        let opened = entry.counters().opened();
        for extent in &opened {
            access.forget(&extent.location, extent.size_bytes);
        }
        let check = check_extents(access.store().as_ref(), &opened);
        if let Ok(Some(fault)) = deadline.hold(check).await {
            tracing::error!(query = %entry.id(), %fault, "an extent is damaged");
            return QueryError::from(&fault);
        }
    }
    match failure {
        Failure::Known(error) => error,
        Failure::Engine(error) => QueryError::from(error),
        Failure::Panic(message) => {
            tracing::error!(query = %entry.id(), %message, "a query panicked");
            let message = format!("the query failed over a defect of this program: {message}");
            QueryError::new(QueryErrorKind::Internal, message)
        }
    }
}

/// Why a query failed.
pub(crate) enum Failure {
    Known(QueryError),
    Engine(DataFusionError),
    Panic(String),
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::Known(error)
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self::Engine(error)
    }
}

impl Failure {
    /// Whether it is about bytes of the local disk.
    fn is_of_local_form(&self) -> bool {
        match self {
            Self::Engine(error) => is_local_failure(error),
            Self::Known(_) | Self::Panic(_) => false,
        }
    }
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned())
}

/// The columns under the schema that the client was told of: the optimizer may know more, such
/// as that a column holds no nulls here.
fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Failure> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Failure::Engine(error.into()))
}
