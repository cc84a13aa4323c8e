//! Which extents may hold rows that a query asks for.
//!
//! Two levels, both vectorised: first over the summaries of whole blocks (a thousand extents
//! each), then over the extents of the blocks that are left. So a query of one hour in a million
//! extents looks at a thousand summaries and a block or two.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow::compute::sum;
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::scalar::ScalarValue;
use slipstream_catalog::{ColumnSummary, ExtentBlock, TableState};
use slipstream_model::{StatisticValue, TableSchema};

/// The extents of one block that a scan has to read.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    pub(crate) block: ExtentBlock,
    pub(crate) slots: Vec<usize>,
}

/// The live extents that may hold rows for a predicate, in the order of the table. Extents
/// without rows are left out.
pub(crate) fn select(table: &TableState, predicate: Option<&PruningPredicate>) -> Vec<Selected> {
    let blocks = table.extents.blocks();
    let survivors: Vec<ExtentBlock> = match predicate {
        None => blocks,
        Some(predicate) => {
            let keep = evaluate(
                predicate,
                &Summaries::new(&table.schema, &blocks),
                blocks.len(),
            );
            blocks
                .into_iter()
                .zip(keep)
                .filter(|(_, keep)| *keep)
                .map(|(block, _)| block)
                .collect()
        }
    };
    survivors
        .into_iter()
        .filter_map(|block| {
            let keep = predicate.map(|predicate| {
                let extents = Extents {
                    schema: &table.schema,
                    block: &block,
                };
                evaluate(predicate, &extents, block.len())
            });
            let wanted = |slot: &usize| {
                block.row_counts().value(*slot) > 0 && keep.as_ref().is_none_or(|keep| keep[*slot])
            };
            let slots: Vec<usize> = block.live_slots().filter(wanted).collect();
            (!slots.is_empty()).then_some(Selected { block, slots })
        })
        .collect()
}

fn evaluate(
    predicate: &PruningPredicate,
    statistics: &dyn PruningStatistics,
    count: usize,
) -> Vec<bool> {
    predicate.prune(statistics).unwrap_or_else(|error| {
        tracing::debug!(%error, "pruning failed; every extent is read");
        vec![true; count]
    })
}

/// Rows of the live extents of a block.
pub(crate) fn live_rows(block: &ExtentBlock) -> u64 {
    if block.live_count() == block.len() {
        return sum(block.row_counts()).unwrap_or(0);
    }
    block
        .live_slots()
        .map(|slot| block.row_counts().value(slot))
        .sum()
}

/// One container a block.
struct Summaries<'a> {
    schema: &'a TableSchema,
    blocks: &'a [ExtentBlock],
    rows: OnceCell<UInt64Array>,
}

impl<'a> Summaries<'a> {
    fn new(schema: &'a TableSchema, blocks: &'a [ExtentBlock]) -> Self {
        Self {
            schema,
            blocks,
            rows: OnceCell::new(),
        }
    }

    fn rows(&self) -> &UInt64Array {
        self.rows
            .get_or_init(|| UInt64Array::from_iter_values(self.blocks.iter().map(live_rows)))
    }

    fn bounds(
        &self,
        column: &Column,
        bound: impl Fn(&ColumnSummary) -> Option<&StatisticValue>,
    ) -> Option<ArrayRef> {
        let column = self.schema.column(&column.name)?;
        let summaries: Vec<_> = self
            .blocks
            .iter()
            .map(|block| block.summary(column.id))
            .collect();
        let values = summaries.iter().map(|summary| bound(summary.as_ref()?));
        StatisticValue::to_array(column.field.data_type(), values).ok()
    }
}

impl PruningStatistics for Summaries<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |summary| summary.min.as_ref())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |summary| summary.max.as_ref())
    }

    fn num_containers(&self) -> usize {
        self.blocks.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let id = self.schema.column(&column.name)?.id;
        let counts = self
            .blocks
            .iter()
            .zip(self.rows().values())
            .map(|(block, rows)| {
                // Where the column is not, it reads as null.
                block.summary(id).map_or(*rows, |summary| {
                    rows - summary.row_count + summary.null_count
                })
            });
        Some(Arc::new(UInt64Array::from_iter_values(counts)))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.rows().clone()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// One container an extent, the removed ones included.
struct Extents<'a> {
    schema: &'a TableSchema,
    block: &'a ExtentBlock,
}

impl PruningStatistics for Extents<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        let id = self.schema.column(&column.name)?.id;
        bounds(&self.block.column(id)?.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let id = self.schema.column(&column.name)?.id;
        bounds(&self.block.column(id)?.max)
    }

    fn num_containers(&self) -> usize {
        self.block.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let id = self.schema.column(&column.name)?.id;
        let rows = self.block.row_counts();
        let Some(column) = self.block.column(id) else {
            return Some(Arc::new(rows.clone()));
        };
        if column.present.count_set_bits() == self.block.len() {
            return Some(Arc::new(column.null_count.clone()));
        }
        let counts = (0..self.block.len()).map(|slot| {
            let counts = if column.present.value(slot) {
                &column.null_count
            } else {
                rows
            };
            counts.value(slot)
        });
        Some(Arc::new(UInt64Array::from_iter_values(counts)))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.block.row_counts().clone()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// Types without bounds have a null array in their place, which cannot be cast to every type.
fn bounds(array: &ArrayRef) -> Option<ArrayRef> {
    (array.data_type() != &DataType::Null).then(|| Arc::clone(array))
}
