//! The state of a database, and how operations and records change it.

mod movement;
mod tags;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use slipstream_model::{
    BucketId, CachingPolicy, Column, ColumnId, DatabaseId, DatabasePrincipal, Digest, EntityId,
    EntityKind, Epoch, Extent, ExtentId, ExternalTable, IngestId, IngestionBatchingPolicy,
    MergePolicy, PinName, RetentionPolicy, StoredFunction, StreamingIngestionPolicy, TableId,
    TableLevelSharing, TableName, TablePolicies, TableSchema, Timestamp, Version,
};
use slipstream_storage::{BucketPath, BucketReader, BucketWriter};
use uuid::Uuid;

use super::DatabaseRecord as Record;
use super::stored::{Stored, StoredSet};
use crate::extents::check_extents;
use crate::log::{self, Chain, LogRecord, LogState, SubjectFate};
use crate::op::{DATABASE_PRINCIPALS_MAX, PINS_MAX};
use crate::{
    CatalogError, Commit, CorruptLog, DatabaseOp, ExtentSet, LogStart, OpError, PrincipalsChange,
    RecentIngests, checkpoint,
};

/// All tables of a database at one version. Immutable; clones in O(1).
#[derive(Debug, Clone)]
pub struct DatabaseState {
    chain: Chain,
    by_id: OrdMap<TableId, Arc<TableState>>,
    by_name: OrdMap<TableName, Arc<TableState>>,
    functions: StoredSet<StoredFunction>,
    external_tables: StoredSet<ExternalTable>,
    caching: Option<Arc<CachingPolicy>>,
    retention: Option<RetentionPolicy>,
    merge: Option<MergePolicy>,
    ingestion_batching: Option<IngestionBatchingPolicy>,
    streaming_ingestion: Option<StreamingIngestionPolicy>,
    principals: Arc<Vec<DatabasePrincipal>>,
    pins: Arc<BTreeMap<PinName, Version>>,
    /// What of the database is held; `None`: everything.
    sharing: Option<Arc<TableLevelSharing>>,
}

/// One table at one version.
#[derive(Debug, Clone)]
pub struct TableState {
    /// Its id; a table dropped and created again has another.
    pub id: TableId,
    /// Its name.
    pub name: TableName,
    /// Its columns.
    pub schema: TableSchema,
    /// Its extents.
    pub extents: ExtentSet,
    /// Its policies.
    pub policies: Arc<TablePolicies>,
    /// The newest ingests that came with an id.
    pub ingests: RecentIngests,
}

impl DatabaseState {
    /// A database before its first commit.
    pub fn empty(bucket: BucketId, id: DatabaseId) -> Self {
        Self::at(Chain::start(bucket, id.as_uuid()))
    }

    /// A database of which only some entities are held. Its version and digest are those of the
    /// whole: of what is left out the digests are kept, and nothing else.
    pub fn empty_within(
        bucket: BucketId,
        id: DatabaseId,
        sharing: &Arc<TableLevelSharing>,
    ) -> Self {
        Self::empty(bucket, id).within(sharing)
    }

    /// The same database before its first commit, with the same filters.
    pub(crate) fn beginning(&self) -> Self {
        self.moved_to(Chain::start(self.bucket_id(), self.chain.log_id))
    }

    /// Whether a subject is one that may be told of: it is not left out.
    pub(crate) fn tells_of(&self, subject: Uuid) -> bool {
        self.sharing.is_none() || subject.is_nil() || self.has(subject)
    }

    fn has(&self, subject: Uuid) -> bool {
        self.by_id.contains_key(&TableId::new(subject))
            || self.functions.contains(subject)
            || self.external_tables.contains(subject)
    }

    /// Whether another state is of the same database, and leaves out the same.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.id() == other.id()
            && self.bucket_id() == other.bucket_id()
            && self.sharing == other.sharing
    }

    /// The same filters at another place in the history, without any entities yet.
    pub(crate) fn moved_to(&self, chain: Chain) -> Self {
        Self {
            sharing: self.sharing.clone(),
            ..Self::at(chain)
        }
    }

    pub(crate) fn at(chain: Chain) -> Self {
        Self {
            chain,
            by_id: OrdMap::new(),
            by_name: OrdMap::new(),
            functions: StoredSet::default(),
            external_tables: StoredSet::default(),
            caching: None,
            retention: None,
            merge: None,
            ingestion_batching: None,
            streaming_ingestion: None,
            principals: Arc::default(),
            pins: Arc::default(),
            sharing: None,
        }
    }

    /// Leaves out from here on what `sharing` does not allow. For a state without entities.
    pub(crate) fn within(mut self, sharing: &Arc<TableLevelSharing>) -> Self {
        debug_assert!(self.by_id.is_empty(), "what is there is not filtered");
        self.sharing = (!sharing.is_everything()).then(|| Arc::clone(sharing));
        self
    }

    /// Whether only some entities of the database are held.
    pub fn is_filtered(&self) -> bool {
        self.sharing.is_some()
    }

    /// The database.
    pub fn id(&self) -> DatabaseId {
        DatabaseId::new(self.chain.log_id)
    }

    /// The bucket it is in.
    pub fn bucket_id(&self) -> BucketId {
        self.chain.bucket_id
    }

    /// How many commits have made it what it is.
    pub fn version(&self) -> Version {
        self.chain.version
    }

    /// How many writers have opened it.
    pub fn epoch(&self) -> Epoch {
        self.chain.epoch
    }

    /// Covers the whole history up to this version: equal digests mean equal databases.
    pub fn digest(&self) -> Digest {
        self.chain.digest
    }

    /// The leader's clock at the newest commit. Never goes back.
    pub fn committed_at(&self) -> Timestamp {
        self.chain.committed_at
    }

    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&Arc<TableState>> {
        self.by_name.get(name)
    }

    /// The table of an id.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<TableState>> {
        self.by_id.get(&id)
    }

    /// All tables, by name.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = &Arc<TableState>> {
        self.by_name.values()
    }

    /// The function of a name.
    pub fn function(&self, name: &str) -> Option<&Stored<StoredFunction>> {
        self.functions.get(name)
    }

    /// All functions, by name.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = &Stored<StoredFunction>> {
        self.functions.all()
    }

    /// The external table of a name.
    pub fn external_table(&self, name: &str) -> Option<&Stored<ExternalTable>> {
        self.external_tables.get(name)
    }

    /// All external tables, by name.
    pub fn external_tables(&self) -> impl ExactSizeIterator<Item = &Stored<ExternalTable>> {
        self.external_tables.all()
    }

    /// Who may do what in the database, as its leader says.
    pub fn principals(&self) -> &[DatabasePrincipal] {
        &self.principals
    }

    /// The versions of which nothing is deleted, by the names that they were pinned as.
    pub fn pins(&self) -> &BTreeMap<PinName, Version> {
        &self.pins
    }

    /// How long rows are kept, for tables without a policy of their own.
    pub fn retention_policy(&self) -> Option<RetentionPolicy> {
        self.retention
    }

    /// Which extents are merged, for tables without a policy of their own.
    pub fn merge_policy(&self) -> Option<MergePolicy> {
        self.merge
    }

    /// How queued ingests are put together, for tables without a policy of their own.
    pub fn ingestion_batching_policy(&self) -> Option<IngestionBatchingPolicy> {
        self.ingestion_batching
    }

    /// Whether rows may be streamed in, for tables without a policy of their own.
    pub fn streaming_ingestion_policy(&self) -> Option<StreamingIngestionPolicy> {
        self.streaming_ingestion
    }

    /// Which extents are hot, for tables without a policy of their own.
    pub fn caching_policy(&self) -> Option<&CachingPolicy> {
        self.caching.as_deref()
    }

    pub(crate) fn set_caching_policy(&mut self, policy: Option<CachingPolicy>) {
        self.caching = policy.map(Arc::new);
    }

    pub(crate) fn set_retention_policy(&mut self, policy: Option<RetentionPolicy>) {
        self.retention = policy;
    }

    pub(crate) fn set_merge_policy(&mut self, policy: Option<MergePolicy>) {
        self.merge = policy;
    }

    pub(crate) fn set_ingestion_batching_policy(
        &mut self,
        policy: Option<IngestionBatchingPolicy>,
    ) {
        self.ingestion_batching = policy;
    }

    pub(crate) fn set_streaming_ingestion_policy(
        &mut self,
        policy: Option<StreamingIngestionPolicy>,
    ) {
        self.streaming_ingestion = policy;
    }

    pub(crate) fn set_principals(&mut self, principals: Vec<DatabasePrincipal>) {
        self.principals = Arc::new(principals);
    }

    pub(crate) fn set_pins(&mut self, pins: BTreeMap<PinName, Version>) {
        self.pins = Arc::new(pins);
    }

    /// Puts a function in, in place of the one with its id.
    pub(crate) fn put_function(&mut self, function: Stored<StoredFunction>) {
        self.functions.put(function);
    }

    /// Puts an external table in, in place of the one with its id.
    pub(crate) fn put_external_table(&mut self, table: Stored<ExternalTable>) {
        self.external_tables.put(table);
    }

    /// The record of a new pin; `None` when it is there already.
    fn plan_pin(&self, name: PinName, version: Version) -> Result<Option<Record>, OpError> {
        if version == Version::ZERO || version > self.version() {
            return Err(OpError::NoSuchVersion {
                wanted: version,
                newest: self.version(),
            });
        }
        match self.pins.get(&name) {
            Some(known) if *known == version => Ok(None),
            Some(known) => Err(OpError::PinExists(name, *known)),
            None if self.pins.len() >= PINS_MAX => Err(OpError::TooManyPins),
            None => Ok(Some(Record::PutPin(name, version))),
        }
    }

    fn apply_pin(&mut self, name: PinName, version: Version) -> Result<SubjectFate, OpError> {
        let pins = Arc::make_mut(&mut self.pins);
        if let Some(known) = pins.insert(name.clone(), version) {
            return Err(OpError::PinExists(name, known));
        }
        if pins.len() > PINS_MAX {
            return Err(OpError::TooManyPins);
        }
        Ok(SubjectFate::Lives)
    }

    fn apply_unpin(&mut self, name: PinName) -> Result<SubjectFate, OpError> {
        match Arc::make_mut(&mut self.pins).remove(&name) {
            Some(_) => Ok(SubjectFate::Lives),
            None => Err(OpError::PinNotFound(name)),
        }
    }

    /// The records of a change of principals.
    fn plan_principals(&self, change: PrincipalsChange) -> Result<Vec<Record>, OpError> {
        let (dropped, added): (Vec<_>, Vec<_>) = match change {
            PrincipalsChange::Add(added) => (Vec::new(), added),
            PrincipalsChange::Drop(role, names) => {
                let known = self.principals.iter();
                let dropped = known.filter(|p| p.role == role && names.contains(&p.principal));
                (dropped.cloned().collect(), Vec::new())
            }
            PrincipalsChange::Set(role, added) => {
                let known = self.principals.iter().filter(|known| known.role == role);
                let stays = |known: &&DatabasePrincipal| {
                    !added.iter().any(|p| p.principal == known.principal)
                };
                (known.filter(stays).cloned().collect(), added)
            }
        };
        let mut records = Vec::new();
        if !dropped.is_empty() {
            records.push(Record::DropPrincipals(dropped));
        }
        let new: Vec<_> = added
            .into_iter()
            .filter(|p| !self.principals.contains(p))
            .collect();
        if !new.is_empty() {
            records.push(Record::AddPrincipals(new));
        }
        Ok(records)
    }

    fn apply_principals(
        &mut self,
        dropped: &[DatabasePrincipal],
        added: Vec<DatabasePrincipal>,
    ) -> Result<(), OpError> {
        let is_same = |a: &DatabasePrincipal, b: &DatabasePrincipal| {
            (a.role, &a.principal) == (b.role, &b.principal)
        };
        let principals = Arc::make_mut(&mut self.principals);
        principals.retain(|known| {
            !dropped.iter().any(|p| is_same(known, p)) && !added.iter().any(|p| is_same(known, p))
        });
        principals.extend(added);
        if principals.len() > DATABASE_PRINCIPALS_MAX {
            return Err(OpError::TooManyPrincipals);
        }
        Ok(())
    }

    /// Whether an entity of that name is held when there is one.
    pub(crate) fn holds(&self, kind: EntityKind, name: &str) -> bool {
        let sharing = self.sharing.as_deref();
        sharing.is_none_or(|sharing| sharing.allows(kind, name))
    }

    /// The state after a commit. Verifies that the commit belongs to this bucket and database,
    /// that it is the next version, that it continues this very history, and that its records
    /// give the digests that it states.
    ///
    /// # Errors
    /// When anything differs; the error names the object and what differs.
    pub fn apply(&self, commit: &Commit) -> Result<Self, CorruptLog> {
        log::apply(self, commit)
    }

    /// What the state would be after some operations, for planning the later statements of a
    /// transaction. Version and digest stay.
    ///
    /// # Errors
    /// When an operation would be refused.
    pub fn preview(&self, ops: &[DatabaseOp]) -> Result<Self, OpError> {
        log::preview(self, ops.iter().cloned())
    }

    /// The digest over all records of a table since it was made.
    pub fn table_digest(&self, id: TableId) -> Option<Digest> {
        self.chain.subjects.get(&id.as_uuid()).copied()
    }

    /// The extents that some table has here and none has in a later state: what was taken out of
    /// the database in between. An extent that only moved is not among them.
    pub fn removed_until(&self, later: &Self) -> Vec<ExtentId> {
        let mut ids = Vec::new();
        for block in self.tables().flat_map(|table| table.extents.blocks()) {
            let of_files = |slot: &usize| block.inline(*slot).is_none();
            let slots = block.live_slots().filter(of_files);
            ids.extend(slots.map(|slot| block.id(slot)));
        }
        let tables = later.tables();
        let held: HashSet<ExtentId> = tables
            .flat_map(|table| table.extents.held_of(&ids))
            .collect();
        ids.retain(|id| !held.contains(id));
        ids
    }

    /// The segments that it shares with checkpoints in the bucket.
    pub fn stored_segments(&self) -> impl Iterator<Item = Digest> {
        let blocks = self
            .tables()
            .flat_map(|table| table.extents.sealed().iter());
        blocks.filter_map(|block| block.segment().stored())
    }

    /// What of it stands in files: without the rows that were streamed in and are not moved yet. Version
    /// and digest are those of the whole; no commit goes on from it.
    #[must_use]
    pub fn without_streamed_rows(&self) -> Self {
        let has_streamed = |table: &&Arc<TableState>| table.extents.inline().extents > 0;
        let streamed: Vec<_> = self.tables().filter(has_streamed).collect();
        let mut stored = self.clone();
        for table in streamed {
            let extents = table.extents.without_inline();
            stored.put(TableState {
                extents,
                ..TableState::clone(table)
            });
        }
        stored
    }

    /// Puts a table in, in place of the one with its id.
    pub(crate) fn put(&mut self, table: TableState) {
        let table = Arc::new(table);
        self.by_name.insert(table.name.clone(), Arc::clone(&table));
        self.by_id.insert(table.id, table);
    }

    fn named(&self, name: &TableName) -> Result<&Arc<TableState>, OpError> {
        self.table(name.as_str())
            .ok_or_else(|| OpError::TableNotFound(name.to_string()))
    }

    /// An id that a table has is nobody else's.
    fn check_new_id(&self, kind: EntityKind, id: EntityId) -> Result<(), OpError> {
        if self.by_id.contains_key(&TableId::new(id.as_uuid())) {
            return Err(OpError::EntityIdInUse(kind, id));
        }
        Ok(())
    }

    fn alive(&self, id: TableId) -> Result<&Arc<TableState>, OpError> {
        self.table_by_id(id).ok_or(OpError::TableDropped(id))
    }
}

impl LogState for DatabaseState {
    type Op = DatabaseOp;
    type Record = Record;

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn chain_mut(&mut self) -> &mut Chain {
        &mut self.chain
    }

    fn commit_path(&self, version: Version) -> BucketPath {
        BucketPath::database_commit(self.id(), version)
    }

    fn plan(&self, op: DatabaseOp) -> Result<Vec<(Uuid, Record)>, OpError> {
        let planned = match op {
            DatabaseOp::CreateTable {
                id,
                name,
                schema,
                if_not_exists,
            } => {
                if if_not_exists && self.table(name.as_str()).is_some() {
                    None
                } else {
                    Some((id, Record::CreateTable { name, schema }))
                }
            }
            DatabaseOp::DropTable { name, if_exists } => match self.named(&name) {
                Err(_) if if_exists => None,
                found => Some((found?.id, Record::DropTable)),
            },
            DatabaseOp::AddColumn {
                table,
                field,
                if_not_exists,
            } => {
                let table = self.named(&table)?;
                if table.schema.column(field.name()).is_some() {
                    if if_not_exists {
                        return Ok(Vec::new());
                    }
                    let column = field.name().clone();
                    return Err(OpError::ColumnExists {
                        table: table.name.clone(),
                        column,
                    });
                }
                let id = ColumnId(table.schema.next_column_id());
                Some((
                    table.id,
                    Record::AddColumn(Column {
                        id,
                        field: Arc::new(field),
                    }),
                ))
            }
            DatabaseOp::DropColumn {
                table,
                column,
                if_exists,
            } => {
                let table = self.named(&table)?;
                match table.schema.column(&column) {
                    Some(known) => Some((table.id, Record::DropColumn(known.id))),
                    None if if_exists => None,
                    None => {
                        return Err(OpError::ColumnNotFound {
                            table: table.name.clone(),
                            column,
                        });
                    }
                }
            }
            DatabaseOp::AddExtents {
                table,
                schema,
                extents,
            } => {
                self.alive(table)?.check_written_with(&schema, &extents)?;
                (!extents.is_empty()).then_some((table, Record::AddExtents(extents)))
            }
            DatabaseOp::ExpectTags { table, extents } => {
                self.alive(table)?.expect_tags(&extents)?;
                None
            }
            DatabaseOp::RemoveExtents { table, extents } => {
                self.alive(table)?;
                (!extents.is_empty()).then_some((table, Record::RemoveExtents(extents)))
            }
            DatabaseOp::MoveExtents { from, to, extents } => {
                let moved = self.alive(from)?.moved_to(self.alive(to)?, &extents)?;
                if moved.is_empty() {
                    return Ok(Vec::new());
                }
                return Ok(vec![
                    (from.as_uuid(), Record::RemoveExtents(extents)),
                    (to.as_uuid(), Record::AddExtents(moved)),
                ]);
            }
            DatabaseOp::SetCachingPolicy {
                table: Some(table),
                policy,
            } => {
                let table = self.named(&table)?;
                let is_new = table.policies.caching != policy;
                is_new.then(|| (table.id, Record::SetCachingPolicy(policy)))
            }
            DatabaseOp::SetCachingPolicy {
                table: None,
                policy,
            } => {
                let is_new = self.caching_policy() != policy.as_ref();
                is_new.then(|| (TableId::default(), Record::SetCachingPolicy(policy)))
            }
            DatabaseOp::SetRowLevelSecurity { table, policy } => {
                let table = self.named(&table)?;
                let is_new = table.policies.row_level_security != policy;
                is_new.then(|| (table.id, Record::SetRowLevelSecurity(policy)))
            }
            DatabaseOp::SetRetentionPolicy {
                table: Some(table),
                policy,
            } => {
                let table = self.named(&table)?;
                let is_new = table.policies.retention != policy;
                is_new.then(|| (table.id, Record::SetRetentionPolicy(policy)))
            }
            DatabaseOp::SetRetentionPolicy {
                table: None,
                policy,
            } => {
                if policy.is_some_and(|policy| policy.soft_delete_period.is_zero()) {
                    return Err(OpError::NothingRetained);
                }
                let is_new = self.retention != policy;
                is_new.then(|| (TableId::default(), Record::SetRetentionPolicy(policy)))
            }
            DatabaseOp::SetMergePolicy {
                table: Some(table),
                policy,
            } => {
                let table = self.named(&table)?;
                let is_new = table.policies.merge != policy;
                is_new.then(|| (table.id, Record::SetMergePolicy(policy)))
            }
            DatabaseOp::SetMergePolicy {
                table: None,
                policy,
            } => {
                let is_new = self.merge != policy;
                is_new.then(|| (TableId::default(), Record::SetMergePolicy(policy)))
            }
            DatabaseOp::SetIngestionBatchingPolicy {
                table: Some(table),
                policy,
            } => {
                let table = self.named(&table)?;
                let is_new = table.policies.ingestion_batching != policy;
                is_new.then(|| (table.id, Record::SetIngestionBatchingPolicy(policy)))
            }
            DatabaseOp::SetIngestionBatchingPolicy {
                table: None,
                policy,
            } => {
                let is_new = self.ingestion_batching != policy;
                is_new.then(|| {
                    let record = Record::SetIngestionBatchingPolicy(policy);
                    (TableId::default(), record)
                })
            }
            DatabaseOp::SetStreamingIngestionPolicy {
                table: Some(table),
                policy,
            } => {
                let table = self.named(&table)?;
                let is_new = table.policies.streaming_ingestion != policy;
                is_new.then(|| (table.id, Record::SetStreamingIngestionPolicy(policy)))
            }
            DatabaseOp::SetStreamingIngestionPolicy {
                table: None,
                policy,
            } => {
                let is_new = self.streaming_ingestion != policy;
                is_new.then(|| {
                    let record = Record::SetStreamingIngestionPolicy(policy);
                    (TableId::default(), record)
                })
            }
            DatabaseOp::IngestOnce { table, tags, ids } => {
                if let Some(table) = self.table(table.as_str()) {
                    table.check_lacks(&tags, &ids)?;
                }
                None
            }
            DatabaseOp::NoteIngests { table, ingests } => {
                self.alive(table)?;
                (!ingests.is_empty()).then_some((table, Record::NoteIngests(ingests)))
            }
            DatabaseOp::ChangePrincipals(change) => {
                let records = self.plan_principals(change)?.into_iter();
                return Ok(records.map(|record| (Uuid::nil(), record)).collect());
            }
            DatabaseOp::PutPin { name, version } => {
                let planned = self.plan_pin(name, version)?.into_iter();
                return Ok(planned.map(|record| (Uuid::nil(), record)).collect());
            }
            DatabaseOp::DropPin { name } => {
                if !self.pins.contains_key(&name) {
                    return Err(OpError::PinNotFound(name));
                }
                return Ok(vec![(Uuid::nil(), Record::DropPin(name))]);
            }
            DatabaseOp::AlterExtentTags {
                table,
                extents,
                change,
            } => {
                let records = self.alive(table)?.plan_tags(&extents, &change)?.into_iter();
                return Ok(records.map(|record| (table.as_uuid(), record)).collect());
            }
            DatabaseOp::PutFunction { id, function, mode } => {
                self.check_new_id(EntityKind::Function, id)?;
                let planned = self.functions.plan_put(id, &function, mode)?;
                let record = |id| (id, Record::PutFunction(function));
                return Ok(planned.map(record).into_iter().collect());
            }
            DatabaseOp::DropFunction { name, if_exists } => {
                let planned = self.functions.plan_drop(name.as_str(), if_exists)?;
                let record = |id| (id, Record::DropFunction);
                return Ok(planned.map(record).into_iter().collect());
            }
            DatabaseOp::PutExternalTable { id, table, mode } => {
                self.check_new_id(EntityKind::ExternalTable, id)?;
                if self.by_name.contains_key(&table.name) {
                    return Err(OpError::TableExists(table.name.clone()));
                }
                let planned = self.external_tables.plan_put(id, &table, mode)?;
                let record = |id| (id, Record::PutExternalTable(table));
                return Ok(planned.map(record).into_iter().collect());
            }
            DatabaseOp::DropExternalTable { name, if_exists } => {
                let planned = self.external_tables.plan_drop(name.as_str(), if_exists)?;
                let record = |id| (id, Record::DropExternalTable);
                return Ok(planned.map(record).into_iter().collect());
            }
        };
        Ok(planned
            .into_iter()
            .map(|(table, record)| (table.as_uuid(), record))
            .collect())
    }

    fn apply_record(&mut self, subject: Uuid, record: Record) -> Result<SubjectFate, OpError> {
        let record = match record {
            Record::PutFunction(function) => return self.functions.apply_put(subject, function),
            Record::DropFunction => return self.functions.apply_drop(subject),
            Record::PutExternalTable(table) => {
                if self.by_name.contains_key(&table.name) {
                    return Err(OpError::TableExists(table.name.clone()));
                }
                return self.external_tables.apply_put(subject, table);
            }
            Record::DropExternalTable => return self.external_tables.apply_drop(subject),
            Record::AddPrincipals(added) if subject.is_nil() => {
                self.apply_principals(&[], added)?;
                return Ok(SubjectFate::Lives);
            }
            Record::DropPrincipals(dropped) if subject.is_nil() => {
                self.apply_principals(&dropped, Vec::new())?;
                return Ok(SubjectFate::Lives);
            }
            Record::SetRetentionPolicy(policy) if subject.is_nil() => {
                self.set_retention_policy(policy);
                return Ok(SubjectFate::Lives);
            }
            Record::SetMergePolicy(policy) if subject.is_nil() => {
                self.set_merge_policy(policy);
                return Ok(SubjectFate::Lives);
            }
            Record::SetIngestionBatchingPolicy(policy) if subject.is_nil() => {
                self.set_ingestion_batching_policy(policy);
                return Ok(SubjectFate::Lives);
            }
            Record::SetStreamingIngestionPolicy(policy) if subject.is_nil() => {
                self.set_streaming_ingestion_policy(policy);
                return Ok(SubjectFate::Lives);
            }
            Record::SetCachingPolicy(policy) if subject.is_nil() => {
                self.set_caching_policy(policy);
                return Ok(SubjectFate::Lives);
            }
            Record::PutPin(name, version) if subject.is_nil() => {
                return self.apply_pin(name, version);
            }
            Record::DropPin(name) if subject.is_nil() => return self.apply_unpin(name),
            record => record,
        };
        let id = TableId::new(subject);
        if let Record::CreateTable { name, schema } = record {
            if id == TableId::default() || self.by_id.contains_key(&id) {
                return Err(OpError::TableIdInUse(id));
            }
            if self.by_name.contains_key(&name) || self.external_table(name.as_str()).is_some() {
                return Err(OpError::TableExists(name));
            }
            let extents = ExtentSet::empty(schema.clone());
            self.put(TableState {
                id,
                name,
                schema,
                extents,
                policies: Arc::default(),
                ingests: RecentIngests::default(),
            });
            return Ok(SubjectFate::Lives);
        }
        let table = Arc::clone(self.alive(id)?);
        // The record stands in the commit that comes next.
        let version = self.chain.version.next();
        match table.changed_by(record, version)? {
            Some(changed) => {
                self.put(changed);
                Ok(SubjectFate::Lives)
            }
            None => {
                self.by_id.remove(&id);
                self.by_name.remove(&table.name);
                Ok(SubjectFate::Ends)
            }
        }
    }

    fn leaves_out(&self, subject: Uuid, records: &[Bytes]) -> Result<bool, String> {
        if self.sharing.is_none() || subject.is_nil() {
            return Ok(false);
        }
        if self.has(subject) {
            return Ok(false);
        }
        let first = records.first().map(Record::decode).transpose()?;
        let named = first.as_ref().and_then(Record::named);
        Ok(named.is_none_or(|(kind, name)| !self.holds(kind, name)))
    }

    fn fate(record: &Record) -> SubjectFate {
        match record {
            Record::DropTable | Record::DropFunction | Record::DropExternalTable => {
                SubjectFate::Ends
            }
            _ => SubjectFate::Lives,
        }
    }

    async fn load_checkpoint(&self, bucket: &BucketReader) -> Result<Option<Self>, CatalogError> {
        checkpoint::load_newest(bucket, self).await
    }

    async fn load_start(
        &self,
        bucket: &BucketReader,
        above: Version,
    ) -> Result<Option<Self>, CatalogError> {
        match LogStart::newest(bucket, self.id()).await? {
            Some(start) if start.version > above => {
                start.state(bucket, &self.beginning()).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn write_checkpoint(&self, bucket: &BucketWriter) -> Result<bool, CatalogError> {
        checkpoint::write(bucket, self).await.map(|()| true)
    }
}

impl TableState {
    /// The table with none but one of its extents: what is read to write that one anew.
    pub fn with_only(&self, extent: Extent) -> Self {
        Self {
            extents: ExtentSet::of_one(self.schema.clone(), extent),
            ..self.clone()
        }
    }

    /// Refuses what the table has: a tag of one of its extents, or the id of an ingest that it
    /// remembers.
    fn check_lacks(&self, tags: &[String], ids: &[IngestId]) -> Result<(), OpError> {
        let known = ids.iter().find_map(|id| Some((id, self.ingests.get(id)?)));
        if let Some((id, (version, _))) = known {
            return Err(OpError::IngestedBefore {
                table: self.name.clone(),
                id: id.clone(),
                version: *version,
            });
        }
        match tags.iter().find(|tag| self.extents.has_tag(tag)) {
            Some(tag) => Err(OpError::TagExists {
                table: self.name.clone(),
                tag: tag.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The table after a record of the commit with a version; `None` once it is dropped.
    fn changed_by(&self, record: Record, version: Version) -> Result<Option<Self>, OpError> {
        let mut table = self.clone();
        match record {
            Record::CreateTable { .. } => return Err(OpError::TableIdInUse(self.id)),
            Record::DropTable => return Ok(None),
            Record::PutFunction(_) | Record::DropFunction => {
                return Err(OpError::WrongSubject("function"));
            }
            Record::PutExternalTable(_) | Record::DropExternalTable => {
                return Err(OpError::WrongSubject("external table"));
            }
            Record::AddPrincipals(_)
            | Record::DropPrincipals(_)
            | Record::PutPin(..)
            | Record::DropPin(_) => {
                return Err(OpError::WrongSubject("database"));
            }
            Record::SetRetentionPolicy(policy) => {
                Arc::make_mut(&mut table.policies).retention = policy;
            }
            Record::SetMergePolicy(policy) => {
                Arc::make_mut(&mut table.policies).merge = policy;
            }
            Record::SetIngestionBatchingPolicy(policy) => {
                Arc::make_mut(&mut table.policies).ingestion_batching = policy;
            }
            Record::SetStreamingIngestionPolicy(policy) => {
                Arc::make_mut(&mut table.policies).streaming_ingestion = policy;
            }
            Record::NoteIngests(ingests) => {
                for ingest in ingests {
                    table.ingests.note(version, ingest);
                }
            }
            Record::SetCachingPolicy(policy) => {
                Arc::make_mut(&mut table.policies).caching = policy;
            }
            Record::SetRowLevelSecurity(policy) => {
                Arc::make_mut(&mut table.policies).row_level_security = policy;
            }
            Record::AddColumn(column) => {
                if column.id.0 != self.schema.next_column_id() {
                    let reason = format!("its id {} is not the table's next one", column.id.0);
                    return Err(self.schema_changed(&column, reason));
                }
                let field = column.field.as_ref().clone();
                table.schema = self.schema.with_added_column(field)?;
                table.extents.set_schema(table.schema.clone());
            }
            Record::DropColumn(id) => {
                let column = self.schema.columns().iter().find(|known| known.id == id);
                let name = column.map(|column| column.field.name().as_str());
                table.schema = self.schema.without_column(name.unwrap_or_default())?;
                table.extents.set_schema(table.schema.clone());
            }
            Record::AddExtents(extents) => {
                check_extents(&self.schema, &extents).map_err(|(extent, reason)| {
                    OpError::InvalidExtent {
                        table: self.name.clone(),
                        extent,
                        reason,
                    }
                })?;
                table
                    .extents
                    .add(extents)
                    .map_err(|extent| OpError::ExtentExists {
                        table: self.name.clone(),
                        extent,
                    })?;
                if table.extents.inline().are_too_many() {
                    return Err(OpError::StreamedRowsFull(self.name.clone()));
                }
            }
            Record::AlterExtentTags { extents, tags } => {
                table.alter_tags(&extents, &tags)?;
            }
            Record::RemoveExtents(ids) => {
                table
                    .extents
                    .remove(&ids)
                    .map_err(|extent| OpError::ExtentNotFound {
                        table: self.name.clone(),
                        extent,
                    })?;
            }
        }
        Ok(Some(table))
    }

    /// Whether the columns that extents hold are still what they were when they were written.
    fn check_written_with(&self, written: &TableSchema, extents: &[Extent]) -> Result<(), OpError> {
        for column in written.columns() {
            if !extents
                .iter()
                .any(|extent| extent.column(column.id).is_some())
            {
                continue;
            }
            let now = self.schema.columns().iter().find(|now| now.id == column.id);
            let reason = match now {
                None => "it is not there any more".to_owned(),
                Some(now) if now.field.data_type() != column.field.data_type() => {
                    let (now, was) = (now.field.data_type(), column.field.data_type());
                    format!("its type is {now}, and it was {was}")
                }
                Some(_) => continue,
            };
            return Err(self.schema_changed(column, reason));
        }
        self.check_required_columns(extents)
    }

    /// Whether extents hold every column that is `NOT NULL`.
    fn check_required_columns(&self, extents: &[Extent]) -> Result<(), OpError> {
        let required = self
            .schema
            .columns()
            .iter()
            .filter(|column| !column.field.is_nullable());
        for column in required {
            let is_filled = |extent: &Extent| match extent.column(column.id) {
                Some(statistics) => statistics.null_count == 0,
                None => extent.row_count == 0,
            };
            if let Some(extent) = extents.iter().find(|extent| !is_filled(extent)) {
                return Err(OpError::InvalidExtent {
                    table: self.name.clone(),
                    extent: extent.id,
                    reason: format!("column '{}' is NOT NULL", column.field.name()),
                });
            }
        }
        Ok(())
    }

    fn schema_changed(&self, column: &Column, reason: String) -> OpError {
        let (table, column) = (self.name.clone(), column.field.name().clone());
        OpError::SchemaChanged {
            table,
            column,
            reason,
        }
    }
}

#[cfg(test)]
mod tests;
