//! Commands that change something, as changes of the node.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use slipstream_catalog::{DatabaseOp, DatabaseState, PrincipalsChange, PutMode};
use slipstream_kusto::{
    Command, ExternalFormat as Format, ExternalTableDefinition, ExternalTablePutMode,
    FunctionCommand, FunctionPutMode, PolicyEntity, PrincipalsAction, PrincipalsChange as Wanted,
    RetentionPolicy as Retention, TableDefinition, TablePutMode,
};
use slipstream_model::{
    CachingPolicy, DatabasePrincipal, DatabaseRole, EntityId, EntityKind, EntityName,
    ExternalFormat, ExternalTable, FunctionName, FunctionParameter, OverrideChange, PinName,
    RetentionPolicy, RowLevelSecurity, StoredFunction, TableId, TableName, TableSchema, Version,
};

use super::extents::ExtentChange;
use super::rows::{Kind, Rows};
use super::{Context, extents, json as shapes, show, types};
use crate::{
    DatabaseChange, ErrorKind, Permission, PinChange, ServiceError, SqlRequest, UndoDropTable,
};

/// What a command answers that has nothing of its own to show.
const DONE: &[(&str, Kind)] = &[
    ("DatabaseName", Kind::Text),
    ("Version", Kind::Long),
    ("Digest", Kind::Text),
];

/// The columns that are announced before a command runs.
pub(super) fn schema() -> SchemaRef {
    Rows::new(DONE).schema()
}

impl Context<'_> {
    pub(super) async fn change(&self, command: Command) -> Result<Rows, ServiceError> {
        match command {
            Command::Show(show) => self.show(show).await,
            Command::Follower { database, change } => {
                self.engine.override_settings(&database, change).await?;
                // Whoever has just put the leader's principals aside may not see what is left.
                show::follower_databases(self, &[database]).or_else(|error| match error.kind() {
                    ErrorKind::Forbidden | ErrorKind::NotFound => Ok(Rows::new(DONE)),
                    _ => Err(error),
                })
            }
            Command::WhatIf { database, change } => {
                let preview = self.engine.preview_caching(&database, change)?;
                Ok(show::caching_preview(&preview))
            }
            Command::Warm { database, table } => {
                self.engine.warm(&database, table.as_deref())?;
                show::cache_of(self, &database, table.as_deref())
            }
            Command::CreateDatabase {
                name,
                if_not_exists,
            } => {
                let clause = if if_not_exists { "IF NOT EXISTS " } else { "" };
                self.change_databases(format!("CREATE DATABASE {clause}{}", quoted(&name)))
                    .await
            }
            Command::DropDatabase { name, if_exists } => {
                let clause = if if_exists { "IF EXISTS " } else { "" };
                self.change_databases(format!("DROP DATABASE {clause}{}", quoted(&name)))
                    .await
            }
            Command::PutTables { mode, tables } => self.put_tables(mode, tables).await,
            Command::DropTables { names, if_exists } => {
                let drop = |name: String| {
                    Ok(DatabaseOp::DropTable {
                        name: table_name(name)?,
                        if_exists,
                    })
                };
                self.commit(names.into_iter().map(drop)).await
            }
            Command::UndoDropTable {
                table,
                new_name,
                version,
            } => {
                let database = self.database_or(None)?.to_owned();
                self.access.check(&database, Permission::Administer)?;
                if self.engine.follows(&database) {
                    // The node refuses.
                    return self.commit_to(&database, std::iter::empty()).await;
                }
                let undo = UndoDropTable {
                    database,
                    table,
                    new_name,
                    version: Version::new(version),
                    access: self.access.clone(),
                };
                let recovered = self.engine.undo_drop_table(undo).await?;
                Ok(show::recovered(&recovered))
            }
            Command::Pin {
                database,
                version,
                name,
            } => {
                self.change_pin(database, name, Some(Version::new(version)))
                    .await
            }
            Command::Unpin { database, name } => self.change_pin(database, name, None).await,
            Command::RenameTable { .. } | Command::RenameColumn { .. } => Err(ServiceError::new(
                ErrorKind::Unsupported,
                "unsupported",
                "tables and columns keep their names: files are read by them",
            )),
            Command::DropColumns { table, columns } => {
                let table = table_name(table)?;
                let drop = |column| {
                    Ok(DatabaseOp::DropColumn {
                        table: table.clone(),
                        column,
                        if_exists: false,
                    })
                };
                self.commit(columns.into_iter().map(drop)).await
            }
            Command::DropExtents { extents, what_if } => {
                self.change_extents(ExtentChange::Drop(extents), what_if)
                    .await
            }
            Command::MoveExtents {
                extents,
                to,
                window,
                what_if,
            } => {
                let change = ExtentChange::Move {
                    extents,
                    to,
                    window,
                };
                self.change_extents(change, what_if).await
            }
            Command::ReplaceExtents {
                table,
                drop,
                add,
                window,
                what_if,
            } => {
                let change = ExtentChange::Replace {
                    table,
                    drop,
                    add,
                    window,
                };
                self.change_extents(change, what_if).await
            }
            Command::AlterExtentTags {
                extents,
                action,
                tags,
                window,
                what_if,
            } => {
                let change = ExtentChange::Tag {
                    extents,
                    change: extents::tags_change(action, tags),
                    window,
                };
                self.change_extents(change, what_if).await
            }
            Command::CollectGarbage { database, what_if } => {
                self.access.check(&database, Permission::Administer)?;
                if self.engine.follows(&database) {
                    // The node refuses: only its leader deletes.
                    return self.commit_to(&database, std::iter::empty()).await;
                }
                let collected = self.engine.collect_garbage(&database, what_if).await?;
                Ok(show::collected(&database, &collected))
            }
            Command::PutFunction(function) => self.put_function(function).await,
            Command::DropFunctions { names, if_exists } => {
                let drop = |name: String| {
                    Ok(DatabaseOp::DropFunction {
                        name: FunctionName::new(name).map_err(ServiceError::invalid_name)?,
                        if_exists,
                    })
                };
                self.commit(names.into_iter().map(drop)).await
            }
            Command::PutExternalTable(table) => self.put_external_table(table).await,
            Command::DropExternalTable { name, if_exists } => {
                let name = table_name(name)?;
                self.commit([Ok(DatabaseOp::DropExternalTable { name, if_exists })])
                    .await
            }
            Command::SetCachingPolicy { entity, policy } => {
                self.set_caching(entity, Some(policy)).await
            }
            Command::DeleteCachingPolicy { entity } => self.set_caching(entity, None).await,
            Command::SetRetentionPolicy {
                entity,
                policy,
                is_merge,
            } => self.set_retention(entity, Some((policy, is_merge))).await,
            Command::DeleteRetentionPolicy { entity } => self.set_retention(entity, None).await,
            Command::SetMergePolicy {
                entity,
                policy,
                is_merge,
            } => {
                self.set_merge(entity, Some((policy.as_str(), is_merge)))
                    .await
            }
            Command::DeleteMergePolicy { entity } => self.set_merge(entity, None).await,
            Command::SetIngestionBatchingPolicy {
                entity,
                policy,
                is_merge,
            } => {
                self.set_ingestion_batching(entity, Some((policy.as_str(), is_merge)))
                    .await
            }
            Command::DeleteIngestionBatchingPolicy { entity } => {
                self.set_ingestion_batching(entity, None).await
            }
            Command::SetStreamingIngestionPolicy {
                entity,
                policy,
                is_merge,
            } => {
                self.set_streaming_ingestion(entity, Some((policy.as_str(), is_merge)))
                    .await
            }
            Command::DeleteStreamingIngestionPolicy { entity } => {
                self.set_streaming_ingestion(entity, None).await
            }
            Command::SetRowLevelSecurity {
                table,
                is_enabled,
                query,
            } => {
                let policy = RowLevelSecurity {
                    is_enabled,
                    predicate: query,
                };
                let table = table_name(table)?;
                self.commit([Ok(DatabaseOp::SetRowLevelSecurity {
                    table,
                    policy: Some(policy),
                })])
                .await
            }
            Command::DeleteRowLevelSecurity { table } => {
                let table = table_name(table)?;
                let policy = None;
                self.commit([Ok(DatabaseOp::SetRowLevelSecurity { table, policy })])
                    .await
            }
            Command::ChangeDatabasePrincipals { database, change } => {
                self.change_principals(&database, change).await
            }
            Command::ChangeClusterPrincipals { .. } => Err(ServiceError::new(
                ErrorKind::Unsupported,
                "unsupported",
                "cluster roles go with tokens: 'slipstream token create --role ...' gives them and \
                 'slipstream token revoke' takes them, on the machine of the node",
            )),
        }
    }

    async fn change_databases(&self, sql: String) -> Result<Rows, ServiceError> {
        let request = SqlRequest {
            sql,
            client: self.request.client.clone(),
            ..SqlRequest::default()
        };
        self.engine.execute_sql(request).await?;
        show::run(
            self,
            slipstream_kusto::Show::Databases {
                names: Vec::new(),
                view: slipstream_kusto::DatabaseView::Basic,
            },
        )
        .await
    }

    /// Commits changes of the database that the command was sent to.
    pub(super) async fn commit(
        &self,
        ops: impl IntoIterator<Item = Result<DatabaseOp, ServiceError>>,
    ) -> Result<Rows, ServiceError> {
        let database = self.database_or(None)?.to_owned();
        self.commit_to(&database, ops).await
    }

    async fn commit_to(
        &self,
        database: &str,
        ops: impl IntoIterator<Item = Result<DatabaseOp, ServiceError>>,
    ) -> Result<Rows, ServiceError> {
        let change = DatabaseChange {
            database: database.to_owned(),
            ops: ops.into_iter().collect::<Result<_, _>>()?,
            access: self.access.clone(),
        };
        let (version, digest) = self.engine.change(change).await?;
        Ok(Rows::new(DONE).with([vec![
            database.into(),
            version.get().into(),
            digest.to_string().into(),
        ]]))
    }

    async fn change_pin(
        &self,
        database: String,
        name: String,
        version: Option<Version>,
    ) -> Result<Rows, ServiceError> {
        let change = PinChange {
            name: PinName::new(name).map_err(ServiceError::invalid_name)?,
            version,
            access: self.access.clone(),
            database,
        };
        let database = change.database.clone();
        self.engine.change_pin(change).await?;
        show::pins(self, &database)
    }

    async fn put_tables(
        &self,
        mode: TablePutMode,
        tables: Vec<TableDefinition>,
    ) -> Result<Rows, ServiceError> {
        let database = self.database_or(None)?;
        // Also when there is nothing to do: what a command takes does not depend on that.
        let permission = match mode {
            TablePutMode::Create | TablePutMode::CreateMerge => Permission::Create,
            TablePutMode::Alter | TablePutMode::AlterMerge => Permission::Administer,
        };
        self.access.check(database, permission)?;
        if self.engine.follows(database) {
            // The node refuses: nothing is created or altered here, were it there already or not.
            return self.commit(std::iter::empty()).await;
        }
        let state = self.engine.state(database)?;
        let mut ops = Vec::new();
        for table in &tables {
            self.plan_table(&state, mode, table, &mut ops)?;
        }
        if !ops.is_empty() {
            self.commit(ops.into_iter().map(Ok)).await?;
        }
        let names: Vec<_> = tables.into_iter().map(|table| table.name).collect();
        show::table_schemas(self, &names)
    }

    fn plan_table(
        &self,
        state: &DatabaseState,
        mode: TablePutMode,
        table: &TableDefinition,
        ops: &mut Vec<DatabaseOp>,
    ) -> Result<(), ServiceError> {
        if table.docstring.is_some() || table.folder.is_some() {
            return Err(ServiceError::new(
                ErrorKind::Unsupported,
                "unsupported",
                format!(
                    "table '{}': docstring and folder of tables are not kept; those of functions, \
                     and docstrings of columns, are",
                    table.name
                ),
            ));
        }
        let name = table_name(table.name.clone())?;
        let fields: Vec<_> = table.columns.iter().map(types::field).collect();
        let Some(known) = state.table(name.as_str()) else {
            if matches!(mode, TablePutMode::Alter | TablePutMode::AlterMerge) {
                return Err(ServiceError::new(
                    ErrorKind::NotFound,
                    "table_not_found",
                    format!("there is no table '{name}' to alter"),
                ));
            }
            ops.push(DatabaseOp::CreateTable {
                id: TableId::new(self.engine.new_id()),
                name,
                schema: TableSchema::new(&Schema::new(fields))
                    .map_err(|error| ServiceError::invalid(error.to_string()))?,
                if_not_exists: true,
            });
            return Ok(());
        };
        if mode == TablePutMode::Create {
            // Kusto leaves a table that is there as it is, whatever its columns.
            return Ok(());
        }
        for field in &fields {
            match known.schema.column(field.name()) {
                Some(column) if types::column_type(&column.field) != types::column_type(field) => {
                    return Err(ServiceError::new(
                        ErrorKind::Conflict,
                        "column_type_differs",
                        format!(
                            "column '{}' of table '{name}' is {}, and cannot become {}",
                            field.name(),
                            types::column_type(&column.field),
                            types::column_type(field)
                        ),
                    ));
                }
                Some(_) => {}
                None => ops.push(DatabaseOp::AddColumn {
                    table: name.clone(),
                    field: field.clone(),
                    if_not_exists: false,
                }),
            }
        }
        if mode == TablePutMode::Alter {
            let wanted = |name: &str| fields.iter().any(|field| field.name() == name);
            let columns = known.schema.columns().iter();
            let (stay, left_out): (Vec<_>, Vec<_>) =
                columns.partition(|column| wanted(column.field.name()));
            let stay = stay.iter().map(|column| column.field.name());
            let new = fields
                .iter()
                .map(|field| field.name())
                .filter(|name| known.schema.column(name).is_none());
            let order: Vec<_> = stay.chain(new).collect();
            if !order
                .iter()
                .copied()
                .eq(fields.iter().map(|field| field.name()))
            {
                let order = order.into_iter().map(String::as_str).collect::<Vec<_>>();
                return Err(ServiceError::new(
                    ErrorKind::Unsupported,
                    "unsupported",
                    format!(
                        "columns of table '{name}' keep their order, and new ones come last: it \
                         would be ({}); name them so, or create another table",
                        order.join(", ")
                    ),
                ));
            }
            ops.extend(left_out.into_iter().map(|column| DatabaseOp::DropColumn {
                table: name.clone(),
                column: column.field.name().clone(),
                if_exists: false,
            }));
        }
        Ok(())
    }

    async fn put_function(&self, wanted: FunctionCommand) -> Result<Rows, ServiceError> {
        let parameters = wanted.parameters.into_iter().map(|parameter| {
            let column = slipstream_kusto::ColumnDefinition {
                name: parameter.name,
                column_type: parameter.column_type,
                docstring: None,
            };
            FunctionParameter {
                field: Arc::new(types::field(&column)),
                default: parameter.default,
            }
        });
        let function = StoredFunction {
            name: FunctionName::new(wanted.name.clone()).map_err(ServiceError::invalid_name)?,
            parameters: parameters.collect(),
            body: wanted.body,
            docstring: wanted.docstring.unwrap_or_default(),
            folder: wanted.folder.unwrap_or_default(),
        };
        let mode = match wanted.mode {
            FunctionPutMode::Create => PutMode::Create,
            FunctionPutMode::CreateIfNotExists => PutMode::CreateIfNotExists,
            FunctionPutMode::CreateOrAlter => PutMode::CreateOrAlter,
            FunctionPutMode::Alter => PutMode::Alter,
        };
        self.commit([Ok(DatabaseOp::PutFunction {
            id: EntityId::new(self.engine.new_id()),
            function: Arc::new(function),
            mode,
        })])
        .await?;
        show::functions(self, Some(&wanted.name))
    }

    async fn put_external_table(
        &self,
        wanted: ExternalTableDefinition,
    ) -> Result<Rows, ServiceError> {
        let fields: Vec<_> = wanted.columns.iter().map(types::field).collect();
        let table = ExternalTable {
            name: table_name(wanted.name.clone())?,
            schema: Arc::new(Schema::new(fields)),
            format: match wanted.format {
                Format::Csv { header } => ExternalFormat::Csv { has_header: header },
                Format::Json => ExternalFormat::Json,
                Format::Parquet => ExternalFormat::Parquet,
            },
            locations: wanted.locations,
            docstring: wanted.docstring.unwrap_or_default(),
            folder: wanted.folder.unwrap_or_default(),
        };
        let mode = match wanted.mode {
            ExternalTablePutMode::Create => PutMode::Create,
            ExternalTablePutMode::CreateOrAlter => PutMode::CreateOrAlter,
            ExternalTablePutMode::Alter => PutMode::Alter,
        };
        self.commit([Ok(DatabaseOp::PutExternalTable {
            id: EntityId::new(self.engine.new_id()),
            table: Arc::new(table),
            mode,
        })])
        .await?;
        show::external_tables(self, Some(&wanted.name))
    }

    /// On a follower the same words set this cluster's own policy: caching is one of the few
    /// things that may be changed there (*Follower databases*).
    async fn set_caching(
        &self,
        entity: PolicyEntity,
        policy: Option<CachingPolicy>,
    ) -> Result<Rows, ServiceError> {
        let (database, entities) = self.entities(entity)?;
        if self.engine.follows(&database) {
            let change = match policy {
                Some(policy) => OverrideChange::SetCaching { entities, policy },
                None => OverrideChange::DeleteCaching { entities },
            };
            self.engine.override_settings(&database, change).await?;
            return show::follower_databases(self, &[database]);
        }
        let ops: Vec<_> = targets(entities)?
            .into_iter()
            .map(|table| {
                Ok(DatabaseOp::SetCachingPolicy {
                    table,
                    policy: policy.clone(),
                })
            })
            .collect();
        self.commit_to(&database, ops).await
    }

    async fn set_retention(
        &self,
        entity: PolicyEntity,
        wanted: Option<(Retention, bool)>,
    ) -> Result<Rows, ServiceError> {
        let (database, entities) = self.entities(entity)?;
        self.access.check_sees(&database)?;
        let state = self.engine.state(&database)?;
        let mut ops = Vec::new();
        for table in targets(entities)? {
            let known = match &table {
                Some(table) => {
                    let table = state.table(table.as_str());
                    table.and_then(|table| table.policies.retention)
                }
                None => state.retention_policy(),
            };
            let policy = wanted.as_ref().map(|(policy, is_merge)| {
                let base = known.filter(|_| *is_merge).unwrap_or_default();
                RetentionPolicy {
                    soft_delete_period: policy
                        .soft_delete_period
                        .unwrap_or(base.soft_delete_period),
                    is_recoverable: policy.is_recoverable.unwrap_or(base.is_recoverable),
                }
            });
            ops.push(Ok(DatabaseOp::SetRetentionPolicy { table, policy }));
        }
        self.commit_to(&database, ops).await
    }

    /// The policy comes as JSON; what it does not say is as it was, or as it is by default.
    async fn set_merge(
        &self,
        entity: PolicyEntity,
        wanted: Option<(&str, bool)>,
    ) -> Result<Rows, ServiceError> {
        let (database, entities) = self.entities(entity)?;
        self.access.check_sees(&database)?;
        let state = self.engine.state(&database)?;
        let mut ops = Vec::new();
        for table in targets(entities)? {
            let known = match &table {
                Some(table) => {
                    let table = state.table(table.as_str());
                    table.and_then(|table| table.policies.merge)
                }
                None => state.merge_policy(),
            };
            let policy = wanted.map(|(json, is_merge)| {
                let base = known.filter(|_| is_merge).unwrap_or_default();
                shapes::read_merge(base, json)
            });
            let policy = policy.transpose()?;
            ops.push(Ok(DatabaseOp::SetMergePolicy { table, policy }));
        }
        self.commit_to(&database, ops).await
    }

    /// As [`Self::set_merge`].
    async fn set_ingestion_batching(
        &self,
        entity: PolicyEntity,
        wanted: Option<(&str, bool)>,
    ) -> Result<Rows, ServiceError> {
        let (database, entities) = self.entities(entity)?;
        self.access.check_sees(&database)?;
        let state = self.engine.state(&database)?;
        let mut ops = Vec::new();
        for table in targets(entities)? {
            let known = match &table {
                Some(table) => {
                    let table = state.table(table.as_str());
                    table.and_then(|table| table.policies.ingestion_batching)
                }
                None => state.ingestion_batching_policy(),
            };
            let policy = wanted.map(|(json, is_merge)| {
                let base = known.filter(|_| is_merge).unwrap_or_default();
                shapes::read_ingestion_batching(base, json)
            });
            let policy = policy.transpose()?;
            ops.push(Ok(DatabaseOp::SetIngestionBatchingPolicy { table, policy }));
        }
        self.commit_to(&database, ops).await
    }

    /// As [`Self::set_merge`].
    async fn set_streaming_ingestion(
        &self,
        entity: PolicyEntity,
        wanted: Option<(&str, bool)>,
    ) -> Result<Rows, ServiceError> {
        let (database, entities) = self.entities(entity)?;
        self.access.check_sees(&database)?;
        let state = self.engine.state(&database)?;
        let mut ops = Vec::new();
        for table in targets(entities)? {
            let known = match &table {
                Some(table) => {
                    let table = state.table(table.as_str());
                    table.and_then(|table| table.policies.streaming_ingestion)
                }
                None => state.streaming_ingestion_policy(),
            };
            let policy = wanted.map(|(json, is_merge)| {
                let base = known.filter(|_| is_merge).unwrap_or_default();
                shapes::read_streaming_ingestion(base, json)
            });
            let policy = policy.transpose()?;
            ops.push(Ok(DatabaseOp::SetStreamingIngestionPolicy {
                table,
                policy,
            }));
        }
        self.commit_to(&database, ops).await
    }

    /// On a follower the same words change this cluster's own principals.
    async fn change_principals(
        &self,
        database: &str,
        wanted: Wanted<DatabaseRole>,
    ) -> Result<Rows, ServiceError> {
        let role = wanted.role;
        let with_role = |notes: &Option<String>| -> Vec<DatabasePrincipal> {
            let principals = wanted.principals.iter();
            principals
                .map(|principal| DatabasePrincipal {
                    role,
                    principal: principal.clone(),
                    notes: notes.clone(),
                })
                .collect()
        };
        let added = with_role(&wanted.notes);
        let change = match wanted.action {
            PrincipalsAction::Add => PrincipalsChange::Add(added),
            PrincipalsAction::Drop => PrincipalsChange::Drop(role, wanted.principals),
            PrincipalsAction::Set => PrincipalsChange::Set(role, added),
        };
        self.engine.change_principals(database, change).await?;
        // Whoever has just dropped themselves may not see who is left.
        show::database_principals(self, database, None).or_else(|error| match error.kind() {
            ErrorKind::Forbidden => Ok(Rows::new(DONE)),
            _ => Err(error),
        })
    }

    /// The database of an entity, and what of it is meant; nothing: the database itself.
    fn entities(&self, entity: PolicyEntity) -> Result<(String, Vec<EntityName>), ServiceError> {
        let named = |kind: EntityKind, names: Vec<String>| {
            let names = names.into_iter();
            names.map(|name| EntityName { kind, name }).collect()
        };
        Ok(match entity {
            PolicyEntity::Database(name) => (name, Vec::new()),
            PolicyEntity::Tables(names) => (
                self.database_or(None)?.to_owned(),
                named(EntityKind::Table, names),
            ),
            PolicyEntity::MaterializedViews(names) => (
                self.database_or(None)?.to_owned(),
                named(EntityKind::MaterializedView, names),
            ),
        })
    }
}

/// The tables that an owned database's policy is set for; `None` is the database itself.
fn targets(entities: Vec<EntityName>) -> Result<Vec<Option<TableName>>, ServiceError> {
    if entities.is_empty() {
        return Ok(vec![None]);
    }
    let tables = entities.into_iter().map(|entity| match entity.kind {
        EntityKind::Table => table_name(entity.name).map(Some),
        kind => Err(ServiceError::new(
            ErrorKind::Unsupported,
            "unsupported",
            format!(
                "there is no {kind} '{}': this version has none",
                entity.name
            ),
        )),
    });
    tables.collect()
}

fn table_name(name: String) -> Result<TableName, ServiceError> {
    TableName::new(name).map_err(ServiceError::invalid_name)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
