//! Several SQL statements as one transaction: one commit across tables, or none.
//!
//! Each statement is planned over the state that the statements before it would leave, so an
//! `INSERT` finds the table that the same request created, and a `SELECT` inside one reads the
//! rows that an earlier one wrote. Extents are uploaded on the way; they become visible with the
//! commit, all together.

mod delete;
mod entities;
mod permission;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::parser::Statement as ParsedStatement;
use datafusion::sql::sqlparser::ast::{
    AlterTableOperation, ColumnOption, ObjectName, ObjectType, Statement,
};
use slipstream_catalog::{Committed, DatabaseOp, DatabaseState, OpError};
use slipstream_frontend::{ErrorKind, Permission, ServiceError, SqlRequest};
use slipstream_model::{DatabaseName, TableId, TableName, TableSchema};
use slipstream_query::{QueryInfo, QuerySession};
use slipstream_storage::check_storable;

use crate::cluster::commit_error;
use crate::engine::LeaderEngine;
use crate::ingest::write_extents;

/// Statements in one request. Each is planned and run; more of them are a script, which the
/// client sends in pieces.
const STATEMENTS_MAX: usize = 1_000;

/// What a transaction did.
pub(crate) struct Outcome {
    /// The commit; `None` when nothing needed one (`IF NOT EXISTS` of what exists).
    pub(crate) committed: Option<Committed>,
    /// The database it was in.
    pub(crate) database: Option<String>,
    /// Rows inserted and deleted.
    pub(crate) rows: u64,
}

/// What a statement is, as far as it matters here.
pub(crate) enum Kind {
    /// It reads.
    Query,
    /// It creates or drops a database.
    Database,
    /// It changes tables or rows of one.
    Change,
}

/// Tells reading from writing, before anything is planned.
pub(crate) fn kind_of(statement: &ParsedStatement) -> Kind {
    match statement {
        ParsedStatement::Statement(statement) => match statement.as_ref() {
            Statement::CreateDatabase { .. }
            | Statement::Drop {
                object_type: ObjectType::Database,
                ..
            } => Kind::Database,
            Statement::CreateTable(_)
            | Statement::Drop {
                object_type: ObjectType::Table,
                ..
            }
            | Statement::AlterTable(_)
            | Statement::Insert(_)
            | Statement::Delete(_) => Kind::Change,
            other if entities::is_about_entities(other) => Kind::Change,
            _ => Kind::Query,
        },
        _ => Kind::Query,
    }
}

/// Whether a change has a plan, and with it parameters.
pub(crate) fn needs_plan(statement: &ParsedStatement) -> bool {
    let ParsedStatement::Statement(statement) = statement else {
        return false;
    };
    matches!(
        statement.as_ref(),
        Statement::CreateTable(_) | Statement::Insert(_) | Statement::Delete(_)
    )
}

/// Creates or drops a database. Not part of a transaction: the request holds nothing else.
pub(crate) async fn change_database(
    engine: &LeaderEngine,
    statement: &ParsedStatement,
) -> Result<Outcome, ServiceError> {
    let ParsedStatement::Statement(statement) = statement else {
        return Err(unsupported("this statement"));
    };
    match statement.as_ref() {
        Statement::CreateDatabase {
            db_name,
            if_not_exists,
            ..
        } => {
            let name = database_name(db_name)?;
            engine
                .cluster()
                .create_database(name, *if_not_exists)
                .await?;
            // A followed database of that name makes room.
            engine.registry().reconcile();
        }
        Statement::Drop {
            names, if_exists, ..
        } => {
            let [name] = &names[..] else {
                return Err(unsupported("DROP DATABASE of several databases at once"));
            };
            let dropped = database_name(name)?;
            engine.check_not_attached(dropped.as_str())?;
            engine.cluster().drop_database(dropped, *if_exists).await?;
        }
        _ => return Err(unsupported("this statement")),
    }
    Ok(Outcome {
        committed: None,
        database: None,
        rows: 0,
    })
}

/// A transaction while its statements are worked through.
pub(crate) struct Transaction<'a> {
    engine: &'a LeaderEngine,
    request: &'a SqlRequest,
    /// The database all statements are in; known with the first.
    database: Option<(String, DatabaseState)>,
    ops: Vec<DatabaseOp>,
    /// Whether its extents are new: those that come back with a table that was dropped are not.
    uploads: bool,
    rows: u64,
}

impl Drop for Transaction<'_> {
    /// What was uploaded for a transaction that was not committed never will be.
    fn drop(&mut self) {
        if let Some((_, state)) = &self.database
            && self.uploads
            && !self.ops.is_empty()
        {
            self.engine.cluster().abandon(state.id(), &self.ops);
        }
    }
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(engine: &'a LeaderEngine, request: &'a SqlRequest) -> Self {
        Self {
            engine,
            request,
            database: None,
            ops: Vec::new(),
            uploads: false,
            rows: 0,
        }
    }

    /// Runs the statements, then commits.
    pub(crate) async fn run(
        mut self,
        statements: Vec<ParsedStatement>,
    ) -> Result<Outcome, ServiceError> {
        if statements.len() > STATEMENTS_MAX {
            let message = format!("a transaction has at most {STATEMENTS_MAX} statements");
            return Err(invalid(message));
        }
        self.uploads = true;
        let count = statements.len();
        for (index, statement) in statements.into_iter().enumerate() {
            let ran = self.run_statement(statement).await;
            ran.map_err(|error| {
                if count == 1 {
                    return error;
                }
                error.context(format!(
                    "statement {} of {count}, nothing was committed",
                    index + 1
                ))
            })?;
        }
        self.commit().await
    }

    /// Makes changes that stand fast already, then commits: what commands are made of.
    pub(crate) async fn apply(mut self, ops: Vec<DatabaseOp>) -> Result<Outcome, ServiceError> {
        self.take(ops)?;
        self.commit().await
    }

    /// The same; `held` lives until it is known what became of the commit, whoever still waits
    /// for it.
    pub(crate) async fn apply_holding(
        mut self,
        ops: Vec<DatabaseOp>,
        held: impl Send + 'static,
    ) -> Result<(), ServiceError> {
        self.take(ops)?;
        let database = self.state_of(None)?.id();
        let cluster = self.engine.cluster();
        let ops = std::mem::take(&mut self.ops);
        cluster.commit_holding(database, ops, held).await
    }

    fn take(&mut self, ops: Vec<DatabaseOp>) -> Result<(), ServiceError> {
        for op in ops {
            self.state_of(None)?;
            self.check_permission(&op)?;
            self.check_change(&op)?;
            match op {
                DatabaseOp::DropColumn { .. } => self.drop_column(op)?,
                op => self.add(op)?,
            }
        }
        Ok(())
    }

    fn check_permission(&self, op: &DatabaseOp) -> Result<(), ServiceError> {
        let (name, state) = self
            .database
            .as_ref()
            .expect("the database is known before any change");
        let permission = permission::permission_for(op, state, &self.ops);
        self.request.access.check(name, permission)
    }

    /// Checks what the catalog cannot: it knows neither SQL nor Parquet.
    fn check_change(&self, op: &DatabaseOp) -> Result<(), ServiceError> {
        let storable = |schema: &arrow::datatypes::Schema| {
            check_storable(schema).map_err(|error| invalid(error.to_string()))
        };
        match op {
            DatabaseOp::CreateTable { schema, .. } => storable(&schema.arrow()),
            DatabaseOp::AddColumn { field, .. } => {
                storable(&arrow::datatypes::Schema::new(vec![field.clone()]))
            }
            DatabaseOp::PutFunction { function, .. } => Ok(QuerySession::check_function(function)?),
            DatabaseOp::SetRowLevelSecurity {
                table,
                policy: Some(policy),
            } => {
                if let Some((database, _)) = &self.database {
                    let session = self.session();
                    session.check_row_level_security(database, table.as_str(), policy)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn commit(mut self) -> Result<Outcome, ServiceError> {
        let Some((name, state)) = self.database.take() else {
            return Ok(Outcome {
                committed: None,
                database: None,
                rows: 0,
            });
        };
        if self.ops.is_empty() {
            return Ok(Outcome {
                committed: None,
                database: Some(name),
                rows: 0,
            });
        }
        // From here on it is the cluster's to know what became of them.
        let ops = std::mem::take(&mut self.ops);
        let committed = self.engine.cluster().commit_to(state.id(), ops).await?;
        Ok(Outcome {
            committed: Some(committed),
            database: Some(name),
            rows: self.rows,
        })
    }

    async fn run_statement(&mut self, statement: ParsedStatement) -> Result<(), ServiceError> {
        if let ParsedStatement::Statement(statement) = &statement
            && let ControlFlow::Break(result) = self.run_without_plan(statement)
        {
            return result;
        }
        // Planning looks into tables: what it says of them is for those who may read them.
        if let Some(database) = &self.request.database {
            self.request.access.check(database, Permission::Query)?;
        }
        let session = self.session();
        let plan = session.plan(statement).await?;
        let plan = session.bind(plan, self.request.parameters.clone())?;
        if let Some(create) = slipstream_query::create_table_parts(&plan) {
            return self.create_table(&session, create).await;
        }
        if let Some(insert) = slipstream_query::insert_parts(&plan) {
            let (database, table) = insert.table;
            let state = self.state_of(database.as_deref())?;
            let table = state
                .table(&table)
                .map(Arc::clone)
                .ok_or_else(|| rejected(OpError::TableNotFound(table)))?;
            return self
                .insert(&session, table.id, &table.schema, insert.input)
                .await;
        }
        if let Some(delete) = slipstream_query::delete_parts(&plan) {
            return self.delete(&session, delete).await;
        }
        Err(unsupported("this statement"))
    }

    /// Statements that change the catalog alone.
    fn run_without_plan(&mut self, statement: &Statement) -> ControlFlow<Result<(), ServiceError>> {
        match statement {
            Statement::Drop {
                object_type: ObjectType::Table,
                names,
                if_exists,
                ..
            } => ControlFlow::Break(names.iter().try_for_each(|name| {
                let (database, name) = self.table_name(name)?;
                self.state_of(database.as_deref())?;
                self.add(DatabaseOp::DropTable {
                    name,
                    if_exists: *if_exists,
                })
            })),
            Statement::AlterTable(alter) => {
                ControlFlow::Break(self.alter_table(&alter.name, &alter.operations))
            }
            other if entities::is_about_entities(other) => {
                ControlFlow::Break(self.change_entities(other))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn alter_table(
        &mut self,
        name: &ObjectName,
        operations: &[AlterTableOperation],
    ) -> Result<(), ServiceError> {
        let (database, table) = self.table_name(name)?;
        self.state_of(database.as_deref())?;
        for operation in operations {
            match operation {
                AlterTableOperation::EnableRowLevelSecurity => {
                    self.switch_security(name, true)?;
                    continue;
                }
                AlterTableOperation::DisableRowLevelSecurity => {
                    self.switch_security(name, false)?;
                    continue;
                }
                _ => {}
            }
            if let AlterTableOperation::DropColumn {
                column_names,
                if_exists,
                ..
            } = operation
            {
                for column in column_names {
                    self.drop_column(DatabaseOp::DropColumn {
                        table: table.clone(),
                        column: QuerySession::identifier(column),
                        if_exists: *if_exists,
                    })?;
                }
                continue;
            }
            let AlterTableOperation::AddColumn {
                if_not_exists,
                column_def,
                ..
            } = operation
            else {
                return Err(unsupported(&format!("ALTER TABLE ... {operation}")));
            };
            let mut is_nullable = true;
            for option in &column_def.options {
                match &option.option {
                    ColumnOption::Null => {}
                    ColumnOption::NotNull => is_nullable = false,
                    other => return Err(unsupported(&format!("column option {other}"))),
                }
            }
            let field = QuerySession::column_field(column_def, is_nullable)?;
            check_storable(&arrow::datatypes::Schema::new(vec![field.clone()]))
                .map_err(|error| invalid(error.to_string()))?;
            self.add(DatabaseOp::AddColumn {
                table: table.clone(),
                field,
                if_not_exists: *if_not_exists,
            })?;
        }
        Ok(())
    }

    /// Drops a column that row-level security can do without: otherwise nobody could read the
    /// table any more.
    fn drop_column(&mut self, op: DatabaseOp) -> Result<(), ServiceError> {
        let DatabaseOp::DropColumn { table, column, .. } = &op else {
            return self.add(op);
        };
        let (table, column) = (table.clone(), column.clone());
        self.add(op)?;
        let Some((database, state)) = &self.database else {
            return Ok(());
        };
        let known = state.table(table.as_str());
        let policy = known.and_then(|known| known.policies.row_level_security.as_ref());
        let Some(policy) = policy else { return Ok(()) };
        let session = self.session();
        let checked = session.check_row_level_security(database, table.as_str(), policy);
        checked.map_err(|error| {
            ServiceError::new(
                ErrorKind::Conflict,
                "column_in_use",
                format!("column '{column}' cannot be dropped: {error}"),
            )
        })
    }

    async fn create_table(
        &mut self,
        session: &QuerySession,
        create: slipstream_query::CreateTable,
    ) -> Result<(), ServiceError> {
        let (database, name) = create.name;
        let name = TableName::new(name).map_err(|error| invalid(error.to_string()))?;
        let exists = self
            .state_of(database.as_deref())?
            .table(name.as_str())
            .is_some();
        if exists && create.if_not_exists {
            return Ok(());
        }
        if exists && create.or_replace {
            self.add(DatabaseOp::DropTable {
                name: name.clone(),
                if_exists: true,
            })?;
        }
        check_storable(&create.schema).map_err(|error| invalid(error.to_string()))?;
        let schema =
            TableSchema::new(&create.schema).map_err(|error| invalid(error.to_string()))?;
        let id = TableId::new(self.engine.cluster().entropy().uuid());
        self.add(DatabaseOp::CreateTable {
            id,
            name,
            schema: schema.clone(),
            if_not_exists: false,
        })?;
        match create.input {
            Some(input) => self.insert(session, id, &schema, input).await,
            None => Ok(()),
        }
    }

    async fn insert(
        &mut self,
        session: &QuerySession,
        table: TableId,
        schema: &TableSchema,
        input: datafusion::logical_expr::LogicalPlan,
    ) -> Result<(), ServiceError> {
        self.check_insert(table)?;
        let info = self.query_info();
        let rows = session.execute(input, info).await?;
        let database = self.state_of(None)?.id();
        let context = self
            .engine
            .ingest_context(database, None, BTreeSet::new())?;
        let extents = write_extents(&context, schema, rows).await?;
        self.rows += extents.iter().map(|extent| extent.row_count).sum::<u64>();
        if extents.is_empty() {
            return Ok(());
        }
        self.add(DatabaseOp::AddExtents {
            table,
            schema: schema.clone(),
            extents,
        })
    }

    /// What the query log says of a statement that reads to write.
    fn query_info(&self) -> QueryInfo {
        QueryInfo {
            text: self.request.sql.clone(),
            client: self.request.client.clone(),
            database: self.database.as_ref().map(|(name, _)| name.clone()),
            timeout: self.request.timeout,
        }
    }

    /// The name of the transaction's database, once a statement has named it.
    fn database_name(&self) -> &str {
        let database = self.database.as_ref();
        database.map_or("", |(name, _)| name.as_str())
    }

    /// Refuses rows before they are written, rather than when they are to be committed.
    fn check_insert(&self, table: TableId) -> Result<(), ServiceError> {
        let Some((name, _)) = &self.database else {
            return Ok(());
        };
        let permission = permission::permission_to_add(table, &self.ops);
        self.request.access.check(name, permission)
    }

    /// Notes a change, and moves the state on that later statements see.
    fn add(&mut self, op: DatabaseOp) -> Result<(), ServiceError> {
        self.check_permission(&op)?;
        let (_, state) = self
            .database
            .as_mut()
            .expect("the database is known before any change");
        let added = state.preview(std::slice::from_ref(&op));
        let id = state.id();
        match added {
            Ok(next) => *state = next,
            Err(error) => {
                if self.uploads {
                    self.engine.cluster().abandon(id, &[op]);
                }
                return Err(rejected(error));
            }
        }
        self.ops.push(op);
        Ok(())
    }

    /// A session over the state so far.
    fn session(&self) -> QuerySession {
        let mut databases = self.engine.registry().states();
        databases.extend(self.engine.cluster().states());
        if let Some((name, state)) = &self.database {
            databases.insert(name.clone(), state.clone());
        }
        if self.ops.is_empty() {
            self.engine.session(self.request, databases)
        } else {
            self.engine.session_of_changes(self.request, databases)
        }
    }

    /// The state of the transaction's database, by the name a statement gives it. The first
    /// statement decides which one it is.
    fn state_of(&mut self, database: Option<&str>) -> Result<&DatabaseState, ServiceError> {
        if self.database.is_none() {
            let name = database
                .or(self.request.database.as_deref())
                .ok_or_else(|| {
                    invalid(
                        "no database is named: write database.table, or send the request with a \
                     database"
                            .to_owned(),
                    )
                })?;
            self.request.access.check_sees(name)?;
            let id = self.engine.owned(name)?;
            let state = self.engine.cluster().writer(id)?.state();
            self.database = Some((name.to_owned(), state));
        }
        let (name, state) = self.database.as_ref().expect("set above");
        match database.or(self.request.database.as_deref()) {
            Some(other) if other != name => Err(invalid(format!(
                "a transaction changes one database: '{name}' and '{other}' cannot be committed \
                 together"
            ))),
            _ => Ok(state),
        }
    }

    fn table_name(&self, name: &ObjectName) -> Result<(Option<String>, TableName), ServiceError> {
        let (database, table) = QuerySession::resolve_name(name)?;
        let table = TableName::new(table).map_err(|error| invalid(error.to_string()))?;
        Ok((database, table))
    }
}

fn database_name(name: &ObjectName) -> Result<DatabaseName, ServiceError> {
    match QuerySession::resolve_name(name)? {
        (None, name) => DatabaseName::new(name).map_err(|error| invalid(error.to_string())),
        (Some(_), _) => Err(invalid(format!("'{name}' is not the name of a database"))),
    }
}

fn rejected(error: OpError) -> ServiceError {
    commit_error(error.into())
}

fn invalid(message: String) -> ServiceError {
    ServiceError::new(ErrorKind::InvalidArgument, "invalid_argument", message)
}

fn unsupported(what: &str) -> ServiceError {
    ServiceError::new(
        ErrorKind::Unsupported,
        "unsupported",
        format!(
            "{what} is not supported: a leader takes CREATE and DROP DATABASE, CREATE and DROP \
             TABLE, ALTER TABLE ADD and DROP COLUMN, CREATE and DROP FUNCTION and POLICY, INSERT, \
             DELETE, and queries"
        ),
    )
}
