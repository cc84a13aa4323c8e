//! One request's view of the databases, and its way from SQL to rows.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::common::TableReference;
use datafusion::execution::context::{SQLOptions, SessionConfig};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, SessionStateDefaults};
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{ColumnDef, Ident, ObjectName};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use futures::executor::block_on;
use parking_lot::Mutex;
use slipstream_model::{RowLevelSecurity, StoredFunction};

use crate::admission::Slot;
use crate::barrier::{self, PushThroughBarriers};
use crate::deadline::Deadline;
use crate::identity::IdentityOptions;
use crate::log::QueryEntry;
use crate::namespace::{CATALOG, Catalogs, NO_DATABASE, Namespace};
use crate::plans::PlanKey;
use crate::scope::{self, Scoped};
use crate::statement::{self, Class};
use crate::stream::{Again, Execution};
use crate::system::SystemSchema;
use crate::table::{ResolveScans, ShareOutMany, ShowLimits};
use crate::travel::{self, Older};
use crate::{
    ClusterView, OlderState, OlderVersions, Parameters, QueryError, QueryErrorKind, QueryOptions,
    QueryRuntime, QueryStream, RemoteNode, SessionDatabases,
};
use crate::{bill, bounds, functions, identity, parameters, remote, stack};

/// Rows of a join's smaller side, by the number of tasks, up to which it is not shared out.
const JOIN_BUILD_ROWS: usize = 1_000_000;
/// DataFusion's own threshold.
const JOIN_BUILD_ROWS_MIN: usize = 128 << 10;
/// What such a row takes, for the threshold in bytes.
const JOIN_BUILD_ROW_BYTES: usize = 64;
/// Keys of a join's smaller side that are handed to the scan of the other one by one.
const JOIN_KEYS_MAX: usize = 1_000;

/// A scan of less is one task's: many small queries at one time keep every core busy, and sharing one
/// out costs a third of it.
const SCAN_BYTES_MIN: usize = 8 << 20;

/// How deep expressions and subqueries may nest. Deeper ones overflow the stack of a thread
/// before they are planned; nobody writes them by hand.
const NESTING_MAX: usize = 50;

/// About a query, for the query log.
#[derive(Debug, Clone, Default)]
pub struct QueryInfo {
    /// The SQL as the client sent it.
    pub text: String,
    /// Which door and client: `http 127.0.0.1:50123`.
    pub client: String,
    /// The request's database.
    pub database: Option<String>,
    /// How long the client allows; the node's own deadline also holds.
    pub timeout: Option<Duration>,
}

/// One request over immutable snapshots.
///
/// ```text
/// parse ─▶ plan or plan_read_only ─▶ bind ─▶ execute ─▶ QueryStream
/// ```
#[derive(Debug)]
pub struct QuerySession {
    pub(crate) runtime: Arc<QueryRuntime>,
    state: SessionState,
    pub(crate) names: Arc<Namespace>,
    /// Who asks, and of what.
    key: PlanKey,
    leader: Option<Arc<dyn RemoteNode>>,
    history: Option<Arc<dyn OlderVersions>>,
    default: Option<String>,
    /// What must live as long as the rows of what was planned: older versions are held.
    held: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// The state that sessions are copied from.
pub(crate) fn base_state(options: &QueryOptions, environment: Arc<RuntimeEnv>) -> SessionState {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, NO_DATABASE)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(options.target_partitions)
        // The catalog has them; footers need not be read for them.
        .with_collect_statistics(false);
    let settings = config.options_mut();
    settings.execution.time_zone = Some("UTC".to_owned());
    // A table's columns come back with the types they were declared with, and text in CREATE
    // TABLE is the type that every client knows.
    settings.execution.parquet.schema_force_view_types = false;
    settings.sql_parser.map_string_types_to_utf8view = false;

    // Below this a join builds one table for all tasks, and its other side need not be shared out
    // among them, which costs more than it gains as long as there are few.
    let optimizer = &mut settings.optimizer;
    let rows = (JOIN_BUILD_ROWS / options.target_partitions.max(1)).max(JOIN_BUILD_ROWS_MIN);
    optimizer.hash_join_single_partition_threshold_rows = rows;
    optimizer.hash_join_single_partition_threshold = rows * JOIN_BUILD_ROW_BYTES;
    // So many keys of a join's smaller side are looked for by the scan of the other itself, which
    // skips what holds none of them.
    optimizer.hash_join_inlist_pushdown_max_distinct_values = JOIN_KEYS_MAX;
    optimizer.repartition_file_min_size = SCAN_BYTES_MIN;

    // See `table::scan` for why it stands exactly there.
    let mut optimizer = PhysicalOptimizer::new();
    let first = optimizer
        .rules
        .iter()
        .position(|rule| rule.name() == "aggregate_statistics");
    let first = first.map_or(0, |position| position + 1);
    optimizer.rules.insert(first, Arc::new(ResolveScans));
    let mut rules = optimizer.rules.iter();
    let last = rules.rposition(|rule| rule.name().starts_with("FilterPushdown"));
    if let Some(last) = last {
        optimizer.rules.insert(last, Arc::new(ShowLimits));
    }

    for rule in &mut optimizer.rules {
        if ShareOutMany::replaces(rule.as_ref()) {
            *rule = Arc::new(ShareOutMany::default());
        }
    }

    // Neither file formats nor table factories: nothing outside the catalog can be named.
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(environment)
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(scalar_functions())
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(SessionStateDefaults::default_table_functions())
        .with_optimizer_rule(Arc::new(PushThroughBarriers))
        .with_physical_optimizer_rules(optimizer.rules)
        .with_query_planner(Arc::new(barrier::Planner))
        .build()
}

/// DataFusion's functions, and those that say who asks.
fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let functions = SessionStateDefaults::default_scalar_functions();
    let bounded = functions.into_iter().map(bounds::bounded);
    bounded.chain(identity::functions()).collect()
}

impl QuerySession {
    pub(crate) fn new(
        runtime: Arc<QueryRuntime>,
        databases: SessionDatabases,
        cluster: Arc<dyn ClusterView>,
    ) -> Self {
        let mut visible = databases.metadata_only.clone();
        visible.extend(databases.databases.clone());
        let system = SystemSchema::new(visible, cluster, Arc::clone(&runtime.log));
        let SessionDatabases {
            default,
            databases,
            followed,
            identity,
            leader,
            history,
            scope,
            as_of,
            ..
        } = databases;
        let key = PlanKey {
            sql: String::new(),
            default: default.clone(),
            scope,
            identity: identity.clone(),
        };
        let default_name = default.clone();
        let mut names =
            Namespace::new(default_name, &databases, &followed, system, scope, &runtime);
        if let Some((name, state)) = default.as_deref().zip(as_of) {
            names = names.as_of(name, state);
        }
        let mut state = runtime.base.clone();
        let options = state.config_mut().options_mut();
        options.extensions.insert(IdentityOptions::from(&identity));
        if let Some(database) = default.as_ref().and_then(|name| databases.get(name)) {
            functions::register(&mut state, database);
        }
        state.register_udtf(scope::FUNCTION, Arc::new(Scoped(Arc::clone(&names))));
        if let Some(default) = &default {
            let options = state.config_mut().options_mut();
            options.catalog.default_schema.clone_from(default);
        }
        state.register_catalog_list(Arc::new(Catalogs(Arc::clone(&names))));
        Self {
            runtime,
            state,
            names,
            key,
            leader,
            history,
            default,
            held: Mutex::default(),
        }
    }

    /// Reads SQL: one statement, or several separated by `;`.
    ///
    /// # Errors
    /// When it is not SQL; the message says where.
    pub fn parse(sql: &str) -> Result<Vec<Statement>, QueryError> {
        let (statements, _) = Self::parse_clauses(sql)?;
        Ok(statements)
    }

    /// The same, and how many tables are named there as they were at an older version.
    pub(crate) fn parse_clauses(sql: &str) -> Result<(Vec<Statement>, usize), QueryError> {
        let (tokens, clauses) = travel::take_clauses(stack::tokens(sql)?)?;
        let statements = DFParserBuilder::new(tokens)
            .with_dialect(&GenericDialect {})
            .with_recursion_limit(NESTING_MAX)
            .build()
            .and_then(|mut parser| parser.parse_statements());
        match statements {
            Ok(statements) => Ok((Vec::from(statements), clauses)),
            Err(error) if clauses == 0 => Err(QueryError::syntax(&error)),
            Err(error) => {
                let error = QueryError::syntax(&error);
                let message = format!(
                    "{error}. FOR VERSION AS OF and FOR TIMESTAMP AS OF stand right after the name \
                     of a table, before its alias"
                );
                Err(QueryError::new(error.kind(), message))
            }
        }
    }

    /// The name of a database or table as SQL means it: folded unless quoted. The first part is
    /// the database, when there are two.
    ///
    /// # Errors
    /// When it has more than `cluster.database.table`.
    pub fn resolve_name(name: &ObjectName) -> Result<(Option<String>, String), QueryError> {
        statement::resolve_name(name)
    }

    /// A name as SQL means it: folded unless quoted.
    pub fn identifier(name: &Ident) -> String {
        statement::identifier(name)
    }

    /// A column of `CREATE TABLE` or `ALTER TABLE ADD COLUMN` as an Arrow field.
    ///
    /// # Errors
    /// When the type is not known.
    pub fn column_field(column: &ColumnDef, is_nullable: bool) -> Result<Field, QueryError> {
        statement::column_field(column, is_nullable)
    }

    /// The statement's parameters in order, as fields named `$1` or `$name`; type `Null` where
    /// the statement leaves it open.
    ///
    /// # Errors
    /// When one parameter is used as two types.
    pub fn parameter_schema(plan: &LogicalPlan) -> Result<Schema, QueryError> {
        stack::on_large_stack(|| parameters::parameter_schema(plan))
    }

    /// Whether a statement changes something, told from its words alone.
    pub fn is_write(statement: &Statement) -> bool {
        let class = statement::classify(statement);
        !matches!(class, Class::Query | Class::Unsupported(_))
    }

    /// Plans a query, or what a leader can do itself: `INSERT`, `DELETE` and `CREATE TABLE`, which
    /// [`insert_parts`](crate::insert_parts), [`delete_parts`](crate::delete_parts) and
    /// [`create_table_parts`](crate::create_table_parts) take apart.
    ///
    /// # Errors
    /// When a name is unknown or types do not fit; `Unsupported` for every other statement.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan, QueryError> {
        match statement::classify(&statement) {
            Class::Query => self.plan_read_only(statement).await,
            Class::Insert | Class::Delete | Class::CreateTable => {
                let plan = self.logical_plan(statement).await?;
                statement::check_change(&plan)?;
                Ok(plan)
            }
            Class::Change(what) | Class::Unsupported(what) => Err(QueryError::new(
                QueryErrorKind::Unsupported,
                statement::unsupported(&what),
            )),
        }
    }

    /// Plans a query, and nothing that is not one.
    ///
    /// # Errors
    /// When a name is unknown or types do not fit; `ReadOnly` for statements that change
    /// something, naming the kind; `Unsupported` for those that no node takes.
    pub async fn plan_read_only(&self, statement: Statement) -> Result<LogicalPlan, QueryError> {
        let read_only = |what: &str| {
            Err(QueryError::new(
                QueryErrorKind::ReadOnly,
                statement::read_only(what),
            ))
        };
        match statement::classify(&statement) {
            Class::Query => {}
            Class::Insert => return read_only("INSERT"),
            Class::Delete => return read_only("DELETE"),
            Class::CreateTable => return read_only("CREATE TABLE"),
            Class::Change(what) => return read_only(&what),
            Class::Unsupported(what) => {
                let message = statement::unsupported(&what);
                return Err(QueryError::new(QueryErrorKind::Unsupported, message));
            }
        }
        let plan = self.logical_plan(statement).await?;
        // What looks like a query may still write: `SELECT ... INTO`.
        no_writes().verify_plan(&plan).map_err(|error| {
            let message = format!("only queries can run here: {}", QueryError::from(error));
            QueryError::new(QueryErrorKind::ReadOnly, message)
        })?;
        Ok(plan)
    }

    async fn logical_plan(&self, mut statement: Statement) -> Result<LogicalPlan, QueryError> {
        let mut state = self.state.clone();
        let (calls, older) = stack::on_large_stack(|| {
            let calls = remote::calls(&statement)?;
            let older = travel::redirect(&mut statement, self.default.as_deref())?;
            Ok((calls, older))
        })?;
        remote::register(&mut state, calls, self.leader.as_ref()).await?;
        let names = self.names_with(&mut state, older).await?;
        stack::on_large_stack(|| {
            if let Some(name) = statement::qualified_call(&statement) {
                let message = format!(
                    "{name}(...): functions are called by their bare name, and only those of the \
                     request's own database"
                );
                return Err(QueryError::new(QueryErrorKind::Unsupported, message));
            }
            // Only a failure needs them, but planning consumes the statement.
            let references = statement::references(&state, &statement);
            block_on(state.statement_to_plan(statement)).map_err(|error| {
                let is_function = |reference: &&TableReference| {
                    state.table_functions().contains_key(reference.table())
                };
                let mut missing = references
                    .iter()
                    .filter(|reference| !is_function(reference))
                    .filter_map(|reference| names.explain_missing(reference));
                missing.next().unwrap_or_else(|| QueryError::from(error))
            })
        })
    }

    /// What can be named, with some databases as they were.
    async fn names_with(
        &self,
        state: &mut SessionState,
        older: BTreeMap<String, Older>,
    ) -> Result<Arc<Namespace>, QueryError> {
        if older.is_empty() {
            return Ok(Arc::clone(&self.names));
        }
        let history = self.history.as_ref().ok_or_else(|| {
            let message = "only the newest version of a database can be read here";
            QueryError::new(QueryErrorKind::Unsupported, message)
        })?;
        let mut states = Vec::with_capacity(older.len());
        for (schema, Older { database, point }) in older {
            let newest = self.names.newest(&database)?;
            let OlderState { state, hold } = history.at(&database, newest, point).await?;
            self.held.lock().extend(hold);
            states.push((schema, database, state));
        }
        let names = self.names.with_older(states);
        state.register_catalog_list(Arc::new(Catalogs(Arc::clone(&names))));
        Ok(names)
    }

    /// Checks that the text of a function is one query. Whether its names are there is told when
    /// it is called: they may come later.
    ///
    /// # Errors
    /// When it cannot be kept; the message says why.
    pub fn check_function(function: &StoredFunction) -> Result<(), QueryError> {
        functions::check(function)
    }

    /// Checks that a policy's predicate is a condition over a table's columns.
    ///
    /// # Errors
    /// When there is no such table, or the predicate does not fit it.
    pub fn check_row_level_security(
        &self,
        database: &str,
        table: &str,
        policy: &RowLevelSecurity,
    ) -> Result<(), QueryError> {
        let provider = self.names.unsecured(database, table).ok_or_else(|| {
            let message = format!("there is no table '{table}' in database '{database}'");
            QueryError::new(QueryErrorKind::NotFound, message)
        })?;
        stack::on_large_stack(|| identity::check(&self.runtime.base, table, provider, policy))
    }

    /// Puts values in the place of the parameters.
    ///
    /// # Errors
    /// When there are too few values, or one that cannot be read as the type expected there.
    pub fn bind(
        &self,
        plan: LogicalPlan,
        parameters: Parameters,
    ) -> Result<LogicalPlan, QueryError> {
        stack::on_large_stack(|| parameters::bind(plan, parameters))
    }

    /// Runs a plan. Waits for its turn first; the deadline counts from here.
    ///
    /// The rows come from a task of the current tokio runtime, which ends with the stream.
    ///
    /// # Errors
    /// When too many queries wait, the deadline passes, or the plan cannot be made executable.
    pub async fn execute(
        &self,
        plan: LogicalPlan,
        info: QueryInfo,
    ) -> Result<QueryStream, QueryError> {
        self.run(plan, info, None).await
    }

    /// The same, of a plan that is all that the text says, without parameters. It is remembered, so
    /// that [`QueryRuntime::known`] finds it when the same is asked again.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_and_remember(
        &self,
        plan: LogicalPlan,
        info: QueryInfo,
    ) -> Result<QueryStream, QueryError> {
        let sql = info.text.clone();
        let key = (!self.calls_stored_function(&sql)).then(|| PlanKey {
            sql,
            ..self.key.clone()
        });
        self.run(plan, info, key).await
    }

    /// Whether a text may call a function of the default database, whose own text is not in the plan.
    fn calls_stored_function(&self, sql: &str) -> bool {
        let state = self.default.as_deref().map(|name| self.names.newest(name));
        let Some(Ok(state)) = state else {
            return false;
        };
        if state.functions().len() == 0 {
            return false;
        }
        let sql = sql.to_lowercase();
        let mut functions = state.functions();
        functions.any(|function| sql.contains(&function.entity.name.to_string().to_lowercase()))
    }

    async fn run(
        &self,
        plan: LogicalPlan,
        info: QueryInfo,
        key: Option<PlanKey>,
    ) -> Result<QueryStream, QueryError> {
        let runtime = &self.runtime;
        let id = runtime.entropy.uuid_at(runtime.clock.now());
        let timeout = runtime.timeout(info.timeout);
        let entry = runtime.log.begin(id, info, self.principal());
        let deadline = Deadline::new(Arc::clone(&runtime.clock), timeout);
        match self.prepare(&plan, &entry, &deadline).await {
            Ok((physical, slot, state)) => {
                let schema = output_schema(&plan, &physical.schema());
                if let Some(key) = key {
                    let config = state.config();
                    runtime
                        .plans
                        .remember(key, &plan, &physical, &schema, config);
                }
                let context = state.task_ctx();
                let execution = Execution {
                    context,
                    plan: physical,
                    schema,
                    deadline,
                    entry,
                    slot,
                    access: Arc::clone(&runtime.scans.access),
                    again: Again::Planned {
                        state: Box::new(state),
                        plan,
                    },
                };
                let held = std::mem::take(&mut *self.held.lock());
                Ok(execution.start().holding(held))
            }
            Err(error) => {
                entry.fail(&error);
                Err(error)
            }
        }
    }

    pub(crate) fn principal(&self) -> String {
        let options = &self.state.config().options().extensions;
        let identity = options.get::<IdentityOptions>();
        identity.map_or_else(String::new, |identity| identity.principal.clone())
    }

    async fn prepare(
        &self,
        plan: &LogicalPlan,
        entry: &QueryEntry,
        deadline: &Deadline,
    ) -> Result<(Arc<dyn ExecutionPlan>, Slot, SessionState), QueryError> {
        let slot = self.runtime.admission.admit(deadline.remaining()).await?;
        entry.run();
        let state = self.query_state(entry);
        let physical = stack::on_large_stack(|| Ok(block_on(state.create_physical_plan(plan))?))?;
        let physical = match plan {
            LogicalPlan::Explain(explain) => {
                let inner = &explain.plan;
                let query =
                    stack::on_large_stack(|| Ok(block_on(state.create_physical_plan(inner))?))?;
                bill::with_bill(physical, &query, &self.runtime.scans, state.task_ctx()).await?
            }
            _ => physical,
        };
        deadline.check()?;
        Ok((physical, slot, state))
    }

    /// The session's state for one query: its own counters, and its own `now()`.
    pub(crate) fn query_state(&self, entry: &QueryEntry) -> SessionState {
        let mut state = self.state.clone();
        state.mark_start_execution();
        let now = DateTime::from_timestamp_micros(self.runtime.clock.now().as_micros());
        state.execution_props_mut().query_execution_start_time = now;
        state
            .config_mut()
            .set_extension(Arc::clone(entry.counters()));
        state
    }
}

fn no_writes() -> SQLOptions {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
}

/// The columns as planning announced them. Where the optimizer found out that a column may hold
/// nulls after all, it may.
fn output_schema(plan: &LogicalPlan, physical: &SchemaRef) -> SchemaRef {
    let announced = plan.schema().as_arrow();
    if announced.fields().len() != physical.fields().len() {
        return Arc::clone(physical);
    }
    let fields = announced.fields().iter().zip(physical.fields());
    let fields: Vec<Field> = fields
        .map(|(announced, physical)| {
            let is_nullable = announced.is_nullable() || physical.is_nullable();
            announced
                .as_ref()
                .clone()
                .with_data_type(physical.data_type().clone())
                .with_nullable(is_nullable)
        })
        .collect();
    Arc::new(Schema::new_with_metadata(
        fields,
        announced.metadata().clone(),
    ))
}
