//! One merge: some extents become one, or nothing happens.

use slipstream_catalog::{CommitError, DatabaseOp, DatabaseWriter, OpError};
use slipstream_frontend::ServiceError;
use slipstream_model::{
    DatabaseId, DatabaseName, Extent, ExtentId, TableId, TableName, TableSchema,
};

use super::read::{self, Unreadable};
use crate::cluster::commit_error;
use crate::ingest::{IngestContext, rewrite_extents};

/// Extents of a table that are to become one.
#[derive(Debug)]
pub(super) struct Merge {
    pub(super) database: DatabaseName,
    pub(super) database_id: DatabaseId,
    pub(super) table: TableName,
    pub(super) table_id: TableId,
    /// The columns of the result.
    pub(super) schema: TableSchema,
    /// At least two, in the order in which their rows are written.
    pub(super) sources: Vec<Extent>,
}

/// Why nothing happened.
#[derive(Debug)]
pub(super) enum MergeError {
    /// An extent could not be read.
    Unreadable(ExtentId, ServiceError),
    /// The table has changed meanwhile: there is another merge to plan.
    Superseded(OpError),
    /// Something else.
    Failed(ServiceError),
}

impl Merge {
    /// Merges. Uploads the result, then puts it in the place of the sources by one transaction; what
    /// is uploaded and not committed is never referred to, and is deleted one day.
    pub(super) async fn run(
        &self,
        writer: &DatabaseWriter,
        context: &IngestContext,
    ) -> Result<Vec<Extent>, MergeError> {
        let extents = self.write(context).await?;
        if let Err(error) = self.check(&extents) {
            context.ids.abandon_all(&extents);
            return Err(MergeError::Failed(error));
        }
        let add = DatabaseOp::AddExtents {
            table: self.table_id,
            schema: self.schema.clone(),
            extents: extents.clone(),
        };
        let remove = DatabaseOp::RemoveExtents {
            table: self.table_id,
            extents: self.sources.iter().map(|source| source.id).collect(),
        };
        let sources = self.sources.iter();
        let expect = DatabaseOp::ExpectTags {
            table: self.table_id,
            extents: sources
                .map(|source| (source.id, source.tags.clone()))
                .collect(),
        };
        let committed = writer.commit(vec![expect, add, remove]).await;
        match &committed {
            Ok(_) => context.ids.settle(extents.iter().map(|extent| extent.id)),
            Err(CommitError::Rejected(_)) => context.ids.abandon_all(&extents),
            Err(_) => {}
        }
        match committed {
            Ok(_) => Ok(extents),
            Err(CommitError::Rejected(
                reason @ (OpError::ExtentNotFound { .. }
                | OpError::TagsChanged { .. }
                | OpError::TableDropped(_)
                | OpError::SchemaChanged { .. }),
            )) => Err(MergeError::Superseded(reason)),
            Err(error) => Err(MergeError::Failed(commit_error(error))),
        }
    }

    async fn write(&self, context: &IngestContext) -> Result<Vec<Extent>, MergeError> {
        let unreadable = Unreadable::default();
        let bucket = context.bucket.reader();
        let rows = read::rows(
            bucket,
            self.database_id,
            &self.sources,
            &self.schema,
            &unreadable,
        );
        let newest = self.sources.iter().map(|source| source.max_created_on);
        let oldest = self.sources.iter().map(|source| source.min_created_on);
        let tags = self.sources.iter().flat_map(|source| source.tags.clone());
        let context = IngestContext {
            database: self.database_id,
            created_on: newest.max().unwrap_or(context.created_on),
            tags: tags.collect(),
            ..context.clone()
        };
        let written = rewrite_extents(&context, &self.schema, rows).await;
        let mut extents = written.map_err(|error| match unreadable.get() {
            Some(extent) => MergeError::Unreadable(*extent, error),
            None => MergeError::Failed(error),
        })?;
        let oldest = oldest.min().unwrap_or(context.created_on);
        for extent in &mut extents {
            extent.min_created_on = oldest;
        }
        Ok(extents)
    }

    /// No row may get lost, and a merge that leaves as many extents would be planned for ever.
    fn check(&self, extents: &[Extent]) -> Result<(), ServiceError> {
        let rows = |extents: &[Extent]| extents.iter().map(|extent| extent.row_count).sum::<u64>();
        let (read, written) = (rows(&self.sources), rows(extents));
        if read != written {
            return Err(ServiceError::internal(format!(
                "{read} rows were read, and {written} were written"
            )));
        }
        let (before, after) = (self.sources.len(), extents.len());
        let is_move = self.sources.iter().all(|source| source.inline.is_some());
        if after >= before && !is_move {
            return Err(ServiceError::internal(format!(
                "{before} extents would become {after}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
