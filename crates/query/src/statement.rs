//! Kinds of statements: what reads, what changes, what is not taken at all.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::TableReference;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::logical_expr::{
    AggregateUDF, DdlStatement, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF,
    TableSource, WindowUDF, WriteOp, cast,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::{ParserOptions, SqlToRel, object_name_to_table_reference};
use datafusion::sql::sqlparser::ast::{
    ColumnDef, ColumnOption, ColumnOptionDef, Ident, ObjectName, Statement as Sql, TableFactor,
    Visit, Visitor,
};

use crate::namespace::CATALOG;
use crate::{QueryError, QueryErrorKind};

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Class {
    /// It reads.
    Query,
    /// It adds rows.
    Insert,
    /// It takes rows away.
    Delete,
    /// It makes a table.
    CreateTable,
    /// It changes something else; by which words.
    Change(String),
    /// No node takes it; by which words.
    Unsupported(String),
}

/// Tells kinds of statements apart, before anything is planned.
pub(crate) fn classify(statement: &Statement) -> Class {
    match statement {
        Statement::Statement(statement) => classify_sql(statement),
        Statement::Explain(explain) => explained(classify(&explain.statement)),
        Statement::CreateExternalTable(_) => Class::Change("CREATE EXTERNAL TABLE".to_owned()),
        Statement::CopyTo(_) => Class::Change("COPY".to_owned()),
        Statement::Reset(_) => Class::Unsupported("RESET".to_owned()),
    }
}

fn classify_sql(statement: &Sql) -> Class {
    match statement {
        Sql::Query(_)
        | Sql::ExplainTable { .. }
        | Sql::ShowTables { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowCreate { .. }
        | Sql::ShowFunctions { .. }
        | Sql::ShowVariable { .. } => Class::Query,
        Sql::Explain { statement, .. } => explained(classify_sql(statement)),
        Sql::Insert(_) => Class::Insert,
        Sql::Delete(_) => Class::Delete,
        Sql::CreateTable(_) => Class::CreateTable,
        Sql::Set(_)
        | Sql::Use(_)
        | Sql::StartTransaction { .. }
        | Sql::Commit { .. }
        | Sql::Rollback { .. }
        | Sql::Savepoint { .. }
        | Sql::Prepare { .. }
        | Sql::Execute { .. }
        | Sql::Deallocate { .. }
        | Sql::Declare { .. }
        | Sql::Call(_)
        | Sql::ShowDatabases { .. }
        | Sql::ShowSchemas { .. } => Class::Unsupported(first_words(statement)),
        _ => Class::Change(first_words(statement)),
    }
}

/// A plan of a change would be shown by names and types that are only made when it runs.
fn explained(class: Class) -> Class {
    match class {
        Class::Query => Class::Query,
        Class::Insert => Class::Change("EXPLAIN of INSERT".to_owned()),
        Class::Delete => Class::Change("EXPLAIN of DELETE".to_owned()),
        Class::CreateTable => Class::Change("EXPLAIN of CREATE TABLE".to_owned()),
        Class::Change(what) => Class::Change(format!("EXPLAIN of {what}")),
        Class::Unsupported(what) => Class::Unsupported(format!("EXPLAIN of {what}")),
    }
}

/// How the statement begins: `DROP TABLE`, `UPDATE`.
fn first_words(statement: &Sql) -> String {
    const WITH_OBJECT: [&str; 5] = ["CREATE", "DROP", "ALTER", "SHOW", "START"];
    let text = statement.to_string();
    let mut words = text.split_whitespace();
    let verb = words.next().unwrap_or_default().to_uppercase();
    if !WITH_OBJECT.contains(&verb.as_str()) {
        return verb;
    }
    let skipped = ["OR", "REPLACE", "TEMPORARY"];
    match words.find(|word| !skipped.contains(&word.to_uppercase().as_str())) {
        Some(object) => format!("{verb} {}", object.to_uppercase()),
        None => verb,
    }
}

/// The first function that is called as `database.function(...)`.
pub(crate) fn qualified_call(statement: &Statement) -> Option<String> {
    struct Find;
    impl Visitor for Find {
        type Break = String;

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
            match factor {
                TableFactor::Table {
                    name,
                    args: Some(_),
                    ..
                } if name.0.len() > 1 => ControlFlow::Break(name.to_string()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let Statement::Statement(statement) = statement else {
        return None;
    };
    match statement.visit(&mut Find) {
        ControlFlow::Break(name) => Some(name),
        ControlFlow::Continue(()) => None,
    }
}

pub(crate) fn read_only(what: &str) -> String {
    format!("{what} changes data, and only queries can run here: SELECT, EXPLAIN, SHOW, DESCRIBE")
}

pub(crate) fn unsupported(what: &str) -> String {
    let instead = match what {
        "CREATE EXTERNAL TABLE" => "ingest the file instead",
        "COPY" => "ask for the answer as CSV or Arrow, or ingest the file, instead",
        "SET" | "RESET" => "a session has no settings: send them with the request",
        "USE" => "name the database with the request, or write database.table",
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => "send parameters with the request instead",
        "UPDATE" | "MERGE" => "DELETE the rows and INSERT them anew, in one request, instead",
        "TRUNCATE" => "DELETE FROM without WHERE, or .drop extents, does that",
        "START TRANSACTION" | "BEGIN" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" => {
            "several statements in one request are one transaction"
        }
        "SHOW DATABASES" | "SHOW SCHEMAS" => "select from slipstream.databases instead",
        _ => "it is not one of the statements that a node takes",
    };
    format!("{what} is not supported: {instead}")
}

/// The tables that a statement reads, as far as they can be told; for errors only. The table that
/// `CREATE TABLE` makes is not one of them.
pub(crate) fn references(state: &SessionState, statement: &Statement) -> Vec<TableReference> {
    let mut references = state
        .resolve_table_references(statement)
        .unwrap_or_default();
    if let Statement::Statement(statement) = statement
        && let Sql::CreateTable(create) = statement.as_ref()
        && let Ok(target) = object_name_to_table_reference(create.name.clone(), true)
    {
        references.retain(|reference| reference != &target);
    }
    references
}

/// Whether the plan of `INSERT`, `DELETE` or `CREATE TABLE` is one that a leader can carry out.
pub(crate) fn check_change(plan: &LogicalPlan) -> Result<(), QueryError> {
    let fail = |what: &str| {
        Err(QueryError::new(
            QueryErrorKind::Unsupported,
            format!("{what} is not supported"),
        ))
    };
    let input = match plan {
        LogicalPlan::Dml(dml) => match &dml.op {
            WriteOp::Insert(InsertOp::Append) => &dml.input,
            WriteOp::Delete if matches!(*dml.input, LogicalPlan::Limit(_)) => {
                return fail("DELETE with LIMIT");
            }
            WriteOp::Delete => &dml.input,
            WriteOp::Insert(InsertOp::Overwrite) => return fail("INSERT OVERWRITE"),
            WriteOp::Insert(InsertOp::Replace) => return fail("REPLACE INTO"),
            op => return fail(&op.to_string()),
        },
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => {
            if create.temporary {
                return fail("CREATE TEMPORARY TABLE");
            }
            if !create.constraints.is_empty() {
                return fail("a primary key or unique constraint");
            }
            if !create.column_defaults.is_empty() {
                return fail("a column default");
            }
            &create.input
        }
        other => return fail(&other.display().to_string()),
    };
    let inner = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false);
    inner.with_allow_statements(false).verify_plan(input)?;
    Ok(())
}

/// A name in SQL: the database, when it is given, and the table.
pub(crate) type QualifiedName = (Option<String>, String);

/// `INSERT INTO`, taken apart.
#[derive(Debug, Clone)]
pub struct Insert {
    /// Database, when the statement names it, and table.
    pub table: (Option<String>, String),
    /// The rows: all columns of the table, in order and type; those that the statement leaves out
    /// are null.
    pub input: LogicalPlan,
}

/// `CREATE TABLE`, taken apart.
#[derive(Debug, Clone)]
pub struct CreateTable {
    /// Database, when the statement names it, and table.
    pub name: (Option<String>, String),
    /// Whether a table that exists already is no error.
    pub if_not_exists: bool,
    /// Whether a table that exists already is to be replaced.
    pub or_replace: bool,
    /// The columns.
    pub schema: Schema,
    /// The rows to begin with, for `AS SELECT`.
    pub input: Option<LogicalPlan>,
}

/// Takes the plan of an `INSERT` apart; `None` for other plans.
pub fn insert_parts(plan: &LogicalPlan) -> Option<Insert> {
    let LogicalPlan::Dml(dml) = plan else {
        return None;
    };
    if !matches!(dml.op, WriteOp::Insert(InsertOp::Append)) {
        return None;
    }
    Some(Insert {
        table: qualified(&dml.table_name),
        input: dml.input.as_ref().clone(),
    })
}

/// Takes the plan of a `CREATE TABLE` apart; `None` for other plans.
pub fn create_table_parts(plan: &LogicalPlan) -> Option<CreateTable> {
    let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) = plan else {
        return None;
    };
    let input = create.input.as_ref();
    let is_empty = matches!(
        input,
        LogicalPlan::EmptyRelation(relation) if !relation.produce_one_row
    );
    let schema = storable_schema(input.schema().as_arrow(), !is_empty);
    Some(CreateTable {
        name: qualified(&create.name),
        if_not_exists: create.if_not_exists,
        or_replace: create.or_replace,
        input: (!is_empty).then(|| with_types(input, &schema)),
        schema,
    })
}

/// The rows in the types of the table they are for.
fn with_types(input: &LogicalPlan, schema: &Schema) -> LogicalPlan {
    let fits = |(found, wanted): (&FieldRef, &FieldRef)| found.data_type() == wanted.data_type();
    if input
        .schema()
        .fields()
        .iter()
        .zip(schema.fields())
        .all(fits)
    {
        return input.clone();
    }
    let columns = input.schema().columns().into_iter().zip(schema.fields());
    let casts = columns.map(|(column, field)| {
        cast(Expr::Column(column), field.data_type().clone()).alias(field.name())
    });
    let projected = LogicalPlanBuilder::from(input.clone()).project(casts.collect::<Vec<_>>());
    projected
        .and_then(LogicalPlanBuilder::build)
        .unwrap_or_else(|_| input.clone())
}

/// The schema of a new table. Columns of a query say nothing of what may be inserted later, so
/// they are nullable; a column that was only ever `NULL` is text.
fn storable_schema(schema: &Schema, is_query: bool) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            other => other.clone(),
        };
        let is_nullable = is_query || field.is_nullable();
        Field::new(field.name(), data_type, is_nullable).with_metadata(field.metadata().clone())
    });
    Schema::new(fields.collect::<Vec<_>>())
}

pub(crate) fn qualified(reference: &TableReference) -> QualifiedName {
    (
        reference.schema().map(str::to_owned),
        reference.table().to_owned(),
    )
}

/// A name as SQL means it: folded unless quoted.
pub(crate) fn identifier(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

pub(crate) fn resolve_name(name: &ObjectName) -> Result<QualifiedName, QueryError> {
    let reference = object_name_to_table_reference(name.clone(), true)?;
    match reference.catalog() {
        Some(catalog) if catalog != CATALOG => Err(QueryError::new(
            QueryErrorKind::NotFound,
            format!("there is no catalog '{catalog}': write database.table"),
        )),
        _ => Ok(qualified(&reference)),
    }
}

pub(crate) fn column_field(column: &ColumnDef, is_nullable: bool) -> Result<Field, QueryError> {
    let mut column = column.clone();
    let option = if is_nullable {
        ColumnOption::Null
    } else {
        ColumnOption::NotNull
    };
    column.options = vec![ColumnOptionDef { name: None, option }];
    let options = ParserOptions::default().with_map_string_types_to_utf8view(false);
    let schema = SqlToRel::new_with_options(&NoTables::default(), options)
        .build_schema(vec![column])
        .map_err(QueryError::from)?;
    Ok(schema.field(0).clone())
}

/// A world without tables and functions, in which types still have their names.
#[derive(Debug, Default)]
struct NoTables(ConfigOptions);

impl ContextProvider for NoTables {
    fn get_table_source(&self, name: TableReference) -> EngineResult<Arc<dyn TableSource>> {
        Err(DataFusionError::Plan(format!("there is no table '{name}'")))
    }

    fn get_function_meta(&self, _: &str) -> Option<Arc<ScalarUDF>> {
        None
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.0
    }

    fn udf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
