//! Which filters Vortex may evaluate in place of DataFusion.
//!
//! Only those whose answer is the same in both. Vortex compares floats by their total order, where
//! -0.0 comes before 0.0, and its integer arithmetic fails where DataFusion's wraps around. Such a
//! filter stays with DataFusion, above the scan.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, InListExpr, Literal};
use datafusion::scalar::ScalarValue;
use vortex::expr::Expression;
use vortex_datafusion::convert::{DefaultExpressionConverter, ExpressionConverter};

use super::live_filter;

/// Converts what means the same in both, and nothing else.
pub(super) struct SameMeaning(pub(super) DefaultExpressionConverter);

impl ExpressionConverter for SameMeaning {
    fn try_convert(
        &self,
        expression: &Arc<dyn PhysicalExpr>,
        schema: &Schema,
    ) -> Result<Option<Expression>> {
        let fixed = |expression: &Arc<dyn PhysicalExpr>| self.fixed(expression, schema);
        match live_filter::convert(expression, schema, &fixed)? {
            Some(live) => Ok(Some(live)),
            None => fixed(expression),
        }
    }
}

impl SameMeaning {
    fn fixed(
        &self,
        expression: &Arc<dyn PhysicalExpr>,
        schema: &Schema,
    ) -> Result<Option<Expression>> {
        if expression.exists(|part| may_differ(part, schema))? {
            return Ok(None);
        }
        self.0.try_convert(expression, schema)
    }
}

/// Whether one node of an expression may have another value in Vortex.
fn may_differ(part: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<bool> {
    use Operator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Multiply, NotEq, Plus};
    if let Some(binary) = part.downcast_ref::<BinaryExpr>() {
        return Ok(match binary.op() {
            Plus | Minus | Multiply | Divide => true,
            Eq | NotEq | Lt | LtEq | Gt | GtEq => {
                let (left, right) = (binary.left(), binary.right());
                is_float(&left.data_type(schema)?)
                    && !is_nonzero_literal(left)
                    && !is_nonzero_literal(right)
            }
            _ => false,
        });
    }
    if let Some(list) = part.downcast_ref::<InListExpr>() {
        let is_float = is_float(&list.expr().data_type(schema)?);
        return Ok(is_float && !list.list().iter().all(is_nonzero_literal));
    }
    Ok(false)
}

fn is_float(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_float(values),
        other => other.is_floating(),
    }
}

/// Against a number that is not zero, the sign of a zero makes no difference.
fn is_nonzero_literal(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let literal = expression.downcast_ref::<Literal>().map(Literal::value);
    match literal {
        Some(ScalarValue::Float32(Some(value))) => *value != 0.0,
        Some(ScalarValue::Float64(Some(value))) => *value != 0.0,
        _ => false,
    }
}
