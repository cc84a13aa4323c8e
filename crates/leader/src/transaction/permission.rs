//! What it takes to make each change.

use slipstream_catalog::{DatabaseOp, DatabaseState, PutMode};
use slipstream_frontend::Permission;
use slipstream_model::TableId;

/// The permission for a change to a database as it is. `before` are the changes of the same
/// transaction: whoever may create a table may fill it in the same breath.
pub(super) fn permission_for(
    op: &DatabaseOp,
    state: &DatabaseState,
    before: &[DatabaseOp],
) -> Permission {
    match op {
        DatabaseOp::CreateTable { .. } => Permission::Create,
        DatabaseOp::AddExtents { table, .. } => permission_to_add(*table, before),
        DatabaseOp::IngestOnce { .. } | DatabaseOp::NoteIngests { .. } => Permission::Ingest,
        DatabaseOp::PutFunction { function, mode, .. } => {
            of_put(*mode, state.function(function.name.as_str()).is_some())
        }
        DatabaseOp::PutExternalTable { table, mode, .. } => {
            of_put(*mode, state.external_table(table.name.as_str()).is_some())
        }
        DatabaseOp::DropTable { .. }
        | DatabaseOp::AddColumn { .. }
        | DatabaseOp::DropColumn { .. }
        | DatabaseOp::ExpectTags { .. }
        | DatabaseOp::RemoveExtents { .. }
        | DatabaseOp::MoveExtents { .. }
        | DatabaseOp::DropFunction { .. }
        | DatabaseOp::DropExternalTable { .. }
        | DatabaseOp::SetCachingPolicy { .. }
        | DatabaseOp::SetRetentionPolicy { .. }
        | DatabaseOp::SetMergePolicy { .. }
        | DatabaseOp::SetIngestionBatchingPolicy { .. }
        | DatabaseOp::SetStreamingIngestionPolicy { .. }
        | DatabaseOp::SetRowLevelSecurity { .. }
        | DatabaseOp::PutPin { .. }
        | DatabaseOp::DropPin { .. }
        | DatabaseOp::AlterExtentTags { .. }
        | DatabaseOp::ChangePrincipals(_) => Permission::Administer,
    }
}

/// The permission to add rows to a table.
pub(super) fn permission_to_add(table: TableId, before: &[DatabaseOp]) -> Permission {
    let is_new = before
        .iter()
        .any(|op| matches!(op, DatabaseOp::CreateTable { id, .. } if *id == table));
    if is_new {
        Permission::Create
    } else {
        Permission::Ingest
    }
}

fn of_put(mode: PutMode, is_there: bool) -> Permission {
    match mode {
        PutMode::Create | PutMode::CreateIfNotExists => Permission::Create,
        PutMode::CreateOrAlter if !is_there => Permission::Create,
        PutMode::CreateOrAlter | PutMode::Alter => Permission::Administer,
    }
}
