//! Extents that go from one table to another.
//!
//! An extent's file names its columns, and what the catalog says of them goes by the columns'
//! numbers, which are each table's own. So what is said is put under the other table's numbers;
//! the file stays as it is.

use std::collections::BTreeMap;

use slipstream_model::{ColumnId, ColumnStatistics, Extent, ExtentId};

use super::TableState;
use crate::OpError;

impl TableState {
    /// Some of the table's extents, as another table has them.
    pub(super) fn moved_to(&self, to: &Self, ids: &[ExtentId]) -> Result<Vec<Extent>, OpError> {
        let columns = self.columns_of(to)?;
        let extents = self
            .extents
            .get_all(ids)
            .map_err(|extent| OpError::ExtentNotFound {
                table: self.name.clone(),
                extent,
            })?;
        let moved = extents.into_iter().map(|extent| {
            self.check_dropped_columns(to, &extent)?;
            let mut known: Vec<ColumnStatistics> = extent
                .columns
                .iter()
                .filter_map(|column| {
                    let id = *columns.get(&column.id)?;
                    Some(ColumnStatistics {
                        id,
                        ..column.clone()
                    })
                })
                .collect();
            known.sort_unstable_by_key(|column| column.id);
            Ok(Extent {
                columns: known.into(),
                ..extent
            })
        });
        let moved = moved.collect::<Result<Vec<_>, OpError>>()?;
        to.check_required_columns(&moved)?;
        Ok(moved)
    }

    /// The number that each column has in another table.
    fn columns_of(&self, to: &Self) -> Result<BTreeMap<ColumnId, ColumnId>, OpError> {
        let number = |column: &slipstream_model::Column| {
            let (name, data_type) = (column.field.name(), column.field.data_type());
            match to.schema.column(name) {
                Some(same) if same.field.data_type() == data_type => Ok((column.id, same.id)),
                Some(other) => {
                    let other = other.field.data_type();
                    let reason =
                        format!("its column '{name}' is {data_type}, and the other's is {other}");
                    Err(self.not_movable(to, reason))
                }
                None => {
                    let reason = format!("the latter has no column '{name}'");
                    Err(self.not_movable(to, reason))
                }
            }
        };
        self.schema.columns().iter().map(number).collect()
    }

    /// A file may hold a column that its table has dropped. In another table it would be read
    /// again, unless the name is taken there for good.
    fn check_dropped_columns(&self, to: &Self, extent: &Extent) -> Result<(), OpError> {
        let mut held = self.schema.dropped().iter();
        let revived = held.find(|column| {
            let mut dropped = to.schema.dropped().iter();
            let name = column.field.name();
            // What an extent holds is forgotten with its second move, but never what its table lost.
            (extent.column(column.id).is_some() || to.schema.column(name).is_some())
                && !dropped.any(|other| other.field.name() == column.field.name())
        });
        let Some(column) = revived else {
            return Ok(());
        };
        let reason = format!(
            "extent {} still holds column '{}', which was dropped: insert its rows there instead",
            extent.id,
            column.field.name()
        );
        Err(self.not_movable(to, reason))
    }

    fn not_movable(&self, to: &Self, reason: String) -> OpError {
        OpError::NotMovable {
            from: self.name.clone(),
            to: to.name.clone(),
            reason,
        }
    }
}
