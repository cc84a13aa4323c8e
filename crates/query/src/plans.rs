//! Plans of queries that come again.
//!
//! A dashboard asks the same few questions all day, and planning a small one takes longer than running
//! it. So the plan of a query is remembered by its words, by who asks and where, and taken again as
//! long as every table that it reads is the very same: a commit to one of them, or a policy of it,
//! makes it another one. Rows are never remembered.
//!
//! Only plans of which each run is independent are taken: nodes that keep something from one run to
//! the next, or tell a scan what they found out, are planned each time, and so is what depends on the
//! time of day.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionConfig;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use slipstream_catalog::TableState;

use crate::barrier;
use crate::counters::QueryCounters;
use crate::deadline::Deadline;
use crate::stream::{Again, Execution};
use crate::table::{self, SnapshotTable};
use crate::{
    DataScope, QueryError, QueryInfo, QueryRuntime, QueryStream, SessionDatabases, SessionIdentity,
};

/// Plans that are remembered. Dashboards have some dozens of questions; a plan takes some 100 KB.
const PLANS_KEPT_MAX: usize = 256;
/// Longer texts are generated, and rarely come twice.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Nodes that keep nothing when their children are given to them anew.
const INDEPENDENT: [&str; 11] = [
    "AggregateExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "FilterExec",
    "GlobalLimitExec",
    "LocalLimitExec",
    "ProjectionExec",
    "RepartitionExec",
    barrier::NAME,
    "SortPreservingMergeExec",
];

/// What a plan depends on besides the tables it reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PlanKey {
    pub(crate) sql: String,
    pub(crate) default: Option<String>,
    pub(crate) scope: DataScope,
    pub(crate) identity: SessionIdentity,
}

/// A table that a plan reads.
#[derive(Debug)]
struct Read {
    database: String,
    table: Arc<TableState>,
}

/// A plan, as it is before it runs.
#[derive(Debug)]
struct Plan {
    reads: Vec<Read>,
    physical: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    config: SessionConfig,
    used: AtomicU64,
}

/// The remembered plans of a process.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    known: Mutex<HashMap<PlanKey, Arc<Plan>>>,
    /// Counts questions, so that the plan that was asked for longest ago can be forgotten.
    asked: AtomicU64,
}

impl Plans {
    fn find(&self, key: &PlanKey, databases: &SessionDatabases) -> Option<Arc<Plan>> {
        let plan = Arc::clone(self.known.lock().get(key)?);
        let is_same = |read: &Read| {
            let state = databases.databases.get(&read.database);
            let table = state.and_then(|state| state.table(read.table.name.as_str()));
            table.is_some_and(|table| Arc::ptr_eq(table, &read.table))
        };
        if !plan.reads.iter().all(is_same) {
            return None;
        }
        let now = self.asked.fetch_add(1, Ordering::Relaxed);
        plan.used.store(now, Ordering::Relaxed);
        Some(plan)
    }

    /// Remembers a plan that is about to run, if it can run again.
    pub(crate) fn remember(
        &self,
        key: PlanKey,
        logical: &LogicalPlan,
        physical: &Arc<dyn ExecutionPlan>,
        schema: &SchemaRef,
        config: &SessionConfig,
    ) {
        if key.sql.len() > TEXT_BYTES_MAX || !is_independent(physical) {
            return;
        }
        let Some(reads) = reads(logical) else {
            return;
        };
        // Not the one that runs: its scans hold the local files that they have opened.
        let Ok(physical) = renewed(physical, &Arc::default()) else {
            return;
        };
        let plan = Plan {
            reads,
            physical,
            schema: Arc::clone(schema),
            config: config.clone(),
            used: AtomicU64::new(self.asked.fetch_add(1, Ordering::Relaxed)),
        };
        let mut known = self.known.lock();
        if known.len() >= PLANS_KEPT_MAX && !known.contains_key(&key) {
            let used = |plan: &Arc<Plan>| plan.used.load(Ordering::Relaxed);
            let oldest = known.iter().min_by_key(|(_, plan)| used(plan));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                known.remove(&oldest);
            }
        }
        known.insert(key, Arc::new(plan));
    }
}

/// A query that was planned before, over tables that have not changed since.
#[derive(Debug)]
pub struct KnownQuery {
    runtime: Arc<QueryRuntime>,
    plan: Arc<Plan>,
    principal: String,
}

impl QueryRuntime {
    /// The plan of a request that was asked before by the same words, without parameters, by the same
    /// principal, over tables that are the same now. `None`: it has to be planned.
    pub fn known(self: &Arc<Self>, sql: &str, databases: &SessionDatabases) -> Option<KnownQuery> {
        let key = PlanKey {
            sql: sql.to_owned(),
            default: databases.default.clone(),
            scope: databases.scope,
            identity: databases.identity.clone(),
        };
        let plan = self.plans.find(&key, databases)?;
        Some(KnownQuery {
            runtime: Arc::clone(self),
            plan,
            principal: key.identity.principal,
        })
    }
}

impl KnownQuery {
    /// Runs it. Waits for its turn first; the deadline counts from here.
    ///
    /// # Errors
    /// When too many queries wait, or the deadline passes.
    pub async fn execute(self, info: QueryInfo) -> std::result::Result<QueryStream, QueryError> {
        let Self {
            runtime,
            plan,
            principal,
        } = self;
        let id = runtime.entropy.uuid_at(runtime.clock.now());
        let timeout = runtime.timeout(info.timeout);
        let entry = runtime.log.begin(id, info, principal);
        let deadline = Deadline::new(Arc::clone(&runtime.clock), timeout);
        let admitted = runtime.admission.admit(deadline.remaining()).await;
        let slot = match admitted {
            Ok(slot) => slot,
            Err(error) => {
                entry.fail(&error);
                return Err(error);
            }
        };
        entry.run();
        let counters = Arc::clone(entry.counters());
        let physical = match renewed(&plan.physical, &counters) {
            Ok(physical) => physical,
            Err(error) => {
                let error = QueryError::from(error);
                entry.fail(&error);
                return Err(error);
            }
        };
        let config = plan.config.clone().with_extension(counters);
        let context = TaskContext::new(
            None,
            id.to_string(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::clone(runtime.base.runtime_env()),
        );
        let execution = Execution {
            context: Arc::new(context),
            plan: physical,
            schema: Arc::clone(&plan.schema),
            deadline,
            entry,
            slot,
            access: Arc::clone(&runtime.scans.access),
            again: Again::Known(Arc::clone(&plan.physical)),
        };
        Ok(execution.start())
    }
}

/// The plan for another run, whose reads are counted by `counters`.
pub(crate) fn renewed(
    plan: &Arc<dyn ExecutionPlan>,
    counters: &Arc<QueryCounters>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let renew = |node: Arc<dyn ExecutionPlan>| match table::renewed_scan(&node, counters)? {
        Some(scan) => Ok(Transformed::yes(scan)),
        None => node.reset_state().map(Transformed::yes),
    };
    Arc::clone(plan).transform_up(renew).data()
}

/// Whether a plan can run again and again.
fn is_independent(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let name = plan.name();
    let is_known = table::is_renewable_scan(plan)
        || INDEPENDENT.contains(&name)
        // One that stops after some rows tells the scan when later ones come too late.
        || (name == "SortExec" && plan.fetch().is_none())
        // Nothing survived pruning.
        || name == "EmptyExec";
    is_known && plan.children().into_iter().all(is_independent)
}

/// The tables that a query reads; `None` when it reads something else as well, or depends on the time
/// or on chance.
fn reads(plan: &LogicalPlan) -> Option<Vec<Read>> {
    let mut reads = Vec::new();
    let mut is_fixed = true;
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            match provider.downcast_ref::<SnapshotTable>() {
                Some(table) if table.is_whole() => reads.push(Read {
                    database: table.database_name().to_owned(),
                    table: Arc::clone(table.state()),
                }),
                _ => is_fixed = false,
            }
        }
        node.apply_expressions(|expression| {
            is_fixed &= !expression.exists(|part| Ok(may_vary(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    });
    (visited.is_ok() && is_fixed).then_some(reads)
}

fn may_vary(expression: &Expr) -> bool {
    match expression {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        Expr::AggregateFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => true,
        _ => false,
    }
}
