//! Filters that become known, or sharper, while a query runs.
//!
//! A join knows the keys of its smaller side before it reads the larger one, and a sort with a limit
//! soon knows what comes too late. DataFusion hands such filters to its scans; Vortex takes over only
//! what is fixed. So they are given to it as a function of its own, which asks DataFusion: rows that
//! will find no partner are left out before their other columns are decoded.

use std::fmt::{self, Debug, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, Column, DynamicFilterPhysicalExpr, InListExpr, Literal,
};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::scalar::ScalarValue;
use vortex::array::arrays::{BoolArray, ConstantArray};
use vortex::array::{ArrayRef, ExecutionCtx, IntoArray};
use vortex::arrow::ArrowSessionExt;
use vortex::buffer::BitBuffer;
use vortex::dtype::{DType, Nullability};
use vortex::error::{VortexResult, vortex_err};
use vortex::expr::{Expression, and, get_item, lit, or_collect, root};
use vortex::scalar_fn::{
    Arity, ChildName, ExecutionArgs, ScalarFnId, ScalarFnVTable, ScalarFnVTableExt,
};
use vortex::session::registry::CachedId;

/// Rows after which a filter has shown what it is good for.
const SAMPLE_ROWS: u64 = 65_536;
/// A filter that keeps more of them than this, in percent, costs more than it saves: whoever made it
/// looks at every row again.
const KEPT_PERCENT_MAX: u64 = 60;

/// Converts a filter that cannot change.
type Fixed<'a> = dyn Fn(&Arc<dyn PhysicalExpr>) -> Result<Option<Expression>> + 'a;

/// A filter that may change, for a scan of columns of `schema`. `None` when it is none, or cannot be
/// told from its columns. `fixed` converts what cannot change.
pub(super) fn convert(
    filter: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
    fixed: &Fixed<'_>,
) -> Result<Option<Expression>> {
    let Some(dynamic) = filter.downcast_ref::<DynamicFilterPhysicalExpr>() else {
        return Ok(None);
    };
    // What is computed from columns may fail for rows that the query's own filter, or a policy, leaves
    // out before it is asked.
    if !dynamic.children().iter().all(|child| child.is::<Column>()) {
        return Ok(Some(lit(true)));
    }
    if compares_floats(filter, schema) {
        return Ok(Some(lit(true)));
    }
    if let Some(keys) = keys(&dynamic.current()?, fixed)? {
        return Ok(Some(keys));
    }
    let mut positions: Vec<usize> = collect_columns(filter).iter().map(|c| c.index()).collect();
    positions.sort_unstable();
    positions.dedup();
    if positions.is_empty() {
        return Ok(None);
    }
    let schema = Arc::new(schema.project(&positions)?);
    let columns = schema.fields().iter();
    let columns: Vec<Expression> = columns
        .map(|field| get_item(field.name().as_str(), root()))
        .collect();
    let live = Live(Arc::new(State {
        filter: reassign_expr_columns(Arc::clone(filter), &schema)?,
        schema,
        seen: AtomicU64::new(0),
        kept: AtomicU64::new(0),
    }));
    Ok(Some(LiveFilter.new_expr(live, columns)))
}

/// Whether a filter that may change is over floating-point numbers. A join takes 0.0 and -0.0 for the same,
/// and the list of its keys, which it hands to the scan, does not.
pub(super) fn compares_floats(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let is_float = |child: &&Arc<dyn PhysicalExpr>| {
        child
            .data_type(schema)
            .map_or(true, |kind| has_floats(&kind))
    };
    filter
        .downcast_ref::<DynamicFilterPhysicalExpr>()
        .is_some_and(|dynamic| dynamic.children().iter().any(is_float))
}

fn has_floats(kind: &DataType) -> bool {
    match kind {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        kind => kind.is_floating(),
    }
}

/// Whether some part of a filter may change while the query runs.
pub(super) fn is_live(filter: &Arc<dyn PhysicalExpr>) -> bool {
    let is_live = |part: &Arc<dyn PhysicalExpr>| Ok(part.is::<DynamicFilterPhysicalExpr>());
    filter.exists(is_live).unwrap_or(true)
}

/// The values that a column must have one of, when a filter comes down to that: Vortex skips what
/// holds none of them by its own statistics. May let more pass than the filter does.
fn keys(filter: &Arc<dyn PhysicalExpr>, fixed: &Fixed<'_>) -> Result<Option<Expression>> {
    if let Some(list) = filter.downcast_ref::<InListExpr>() {
        return if list.negated() {
            Ok(None)
        } else {
            fixed(filter)
        };
    }
    if let Some(binary) = filter.downcast_ref::<BinaryExpr>()
        && *binary.op() == Operator::And
    {
        let (left, right) = (keys(binary.left(), fixed)?, keys(binary.right(), fixed)?);
        return Ok(match (left, right) {
            (Some(left), Some(right)) => Some(and(left, right)),
            (left, right) => left.or(right),
        });
    }
    // One branch for each partition of a join.
    if let Some(case) = filter.downcast_ref::<CaseExpr>()
        && case.else_expr().is_some_and(is_false)
    {
        let branches = case.when_then_expr().iter().map(|(_, then)| then);
        let branches = branches.filter(|then| !is_false(then));
        let branches = branches.map(|then| keys(then, fixed));
        let branches: Result<Option<Vec<Expression>>> = branches.collect();
        return Ok(branches?.and_then(or_collect));
    }
    Ok(None)
}

fn is_false(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let literal = expression.downcast_ref::<Literal>().map(Literal::value);
    matches!(literal, Some(ScalarValue::Boolean(Some(false))))
}

/// The function, as Vortex knows it.
#[derive(Debug, Clone)]
struct LiveFilter;

/// A filter, and what it was good for until now.
#[derive(Clone)]
struct Live(Arc<State>);

struct State {
    filter: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    seen: AtomicU64,
    kept: AtomicU64,
}

impl State {
    /// Whether it leaves out so little that it had better be left out itself.
    fn is_idle(&self) -> bool {
        let (seen, kept) = (
            self.seen.load(Ordering::Relaxed),
            self.kept.load(Ordering::Relaxed),
        );
        seen >= SAMPLE_ROWS && kept * 100 > seen * KEPT_PERCENT_MAX
    }

    fn note(&self, seen: usize, kept: usize) {
        self.seen.fetch_add(seen as u64, Ordering::Relaxed);
        self.kept.fetch_add(kept as u64, Ordering::Relaxed);
    }

    fn evaluate(&self, args: &dyn ExecutionArgs, ctx: &mut ExecutionCtx) -> VortexResult<ArrayRef> {
        let rows = args.row_count();
        let session = ctx.session().clone();
        let fields = self.schema.fields().iter().enumerate();
        let columns = fields.map(|(number, field)| {
            let column = args.get(number)?;
            session.arrow().execute_arrow(column, Some(field), ctx)
        });
        let columns = columns.collect::<VortexResult<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| vortex_err!("{error}"))?;
        let Ok(found) = self.filter.evaluate(&batch) else {
            // It is only a help.
            return Ok(ConstantArray::new(true, rows).into_array());
        };
        match found {
            ColumnarValue::Scalar(value) => {
                let keeps = matches!(value, ScalarValue::Boolean(Some(true)));
                Ok(ConstantArray::new(keeps, rows).into_array())
            }
            ColumnarValue::Array(values) => {
                let values = values
                    .as_boolean_opt()
                    .ok_or_else(|| vortex_err!("{} is not a condition", self.filter))?;
                let values = if values.null_count() > 0 {
                    prep_null_mask_filter(values)
                } else {
                    values.clone()
                };
                self.note(rows, values.true_count());
                Ok(BoolArray::from(BitBuffer::from(values.values().clone())).into_array())
            }
        }
    }
}

impl Debug for Live {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Display for Live {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0.filter, f)
    }
}

impl PartialEq for Live {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Live {}

impl Hash for Live {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl ScalarFnVTable for LiveFilter {
    type Options = Live;

    fn id(&self) -> ScalarFnId {
        static ID: CachedId = CachedId::new("slipstream.live_filter");
        *ID
    }

    fn arity(&self, live: &Live) -> Arity {
        Arity::Exact(live.0.schema.fields().len())
    }

    fn child_name(&self, live: &Live, child: usize) -> ChildName {
        let fields = live.0.schema.fields();
        let name = fields.get(child).map_or("", |field| field.name());
        ChildName::from(Arc::<str>::from(name))
    }

    fn return_dtype(&self, _: &Live, _: &[DType]) -> VortexResult<DType> {
        Ok(DType::Bool(Nullability::NonNullable))
    }

    fn execute(
        &self,
        live: &Live,
        args: &dyn ExecutionArgs,
        ctx: &mut ExecutionCtx,
    ) -> VortexResult<ArrayRef> {
        if live.0.is_idle() {
            return Ok(ConstantArray::new(true, args.row_count()).into_array());
        }
        live.0.evaluate(args, ctx)
    }

    /// It compares and looks up, which cannot fail for the values of a row.
    fn is_infallible(&self, _: &Live) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_expr::expressions;

    use super::*;

    fn state() -> State {
        State {
            filter: expressions::lit(true),
            schema: Arc::new(Schema::empty()),
            seen: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        }
    }

    #[test]
    fn a_filter_that_keeps_nearly_everything_is_left_out_once_that_has_shown() {
        let sample = SAMPLE_ROWS as usize;
        let useless = state();
        useless.note(sample - 1, sample - 1);
        assert!(!useless.is_idle(), "it has not shown yet");
        useless.note(1, 0);
        assert!(useless.is_idle());

        let useful = state();
        useful.note(sample, sample / 2);
        assert!(!useful.is_idle());
    }
}
