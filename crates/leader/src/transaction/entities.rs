//! Statements about functions and row-level security, in the words of PostgreSQL.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    ColumnDef, CreateFunction, CreateFunctionBody, CreatePolicy, DropFunction, DropPolicy, Expr,
    ObjectName, OperateFunctionArg, Statement, Value,
};
use slipstream_catalog::{DatabaseOp, PutMode};
use slipstream_frontend::{Permission, ServiceError};
use slipstream_model::{
    EntityId, FunctionName, FunctionParameter, RowLevelSecurity, StoredFunction,
};
use slipstream_query::QuerySession;

use super::{Transaction, invalid, unsupported};

/// The predicate of a table whose security was enabled before it has a policy: as in PostgreSQL,
/// no row is shown.
const NO_ROW: &str = "FALSE";

/// Whether a statement is one of these.
pub(super) fn is_about_entities(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::CreateFunction(_)
            | Statement::DropFunction(_)
            | Statement::CreatePolicy(_)
            | Statement::DropPolicy(_)
    )
}

impl Transaction<'_> {
    /// Runs one of these statements.
    pub(super) fn change_entities(&mut self, statement: &Statement) -> Result<(), ServiceError> {
        match statement {
            Statement::CreateFunction(create) => self.create_function(create),
            Statement::DropFunction(drop) => self.drop_functions(drop),
            Statement::CreatePolicy(create) => self.create_policy(create),
            Statement::DropPolicy(drop) => self.drop_policy(drop),
            _ => Err(unsupported("this statement")),
        }
    }

    fn create_function(&mut self, create: &CreateFunction) -> Result<(), ServiceError> {
        let (database, name) = function_name(&create.name)?;
        self.state_of(database.as_deref())?;
        let parameters = create.args.as_deref().unwrap_or_default().iter();
        let function = StoredFunction {
            name,
            parameters: parameters.map(parameter).collect::<Result<_, _>>()?,
            body: body(create)?,
            docstring: String::new(),
            folder: String::new(),
        };
        QuerySession::check_function(&function)?;
        let mode = match (create.or_replace || create.or_alter, create.if_not_exists) {
            (true, _) => PutMode::CreateOrAlter,
            (false, true) => PutMode::CreateIfNotExists,
            (false, false) => PutMode::Create,
        };
        self.add(DatabaseOp::PutFunction {
            id: EntityId::new(self.engine.cluster().entropy().uuid()),
            function: Arc::new(function),
            mode,
        })
    }

    fn drop_functions(&mut self, drop: &DropFunction) -> Result<(), ServiceError> {
        for function in &drop.func_desc {
            let (database, name) = function_name(&function.name)?;
            self.state_of(database.as_deref())?;
            self.add(DatabaseOp::DropFunction {
                name,
                if_exists: drop.if_exists,
            })?;
        }
        Ok(())
    }

    fn create_policy(&mut self, create: &CreatePolicy) -> Result<(), ServiceError> {
        let CreatePolicy {
            command: None,
            to: None,
            using: Some(predicate),
            with_check: None,
            policy_type: None,
            ..
        } = create
        else {
            return Err(unsupported("a policy that is more than USING (condition)"));
        };
        let known = self.security_of(&create.table_name)?;
        if known
            .as_ref()
            .is_some_and(|known| known.predicate != NO_ROW)
        {
            return Err(invalid(format!(
                "table '{}' has a policy already, and a table has one: drop it first",
                create.table_name
            )));
        }
        let is_enabled = known.is_some_and(|known| known.is_enabled);
        let predicate = predicate.to_string();
        self.secure(&create.table_name, is_enabled, predicate)
    }

    fn drop_policy(&mut self, drop: &DropPolicy) -> Result<(), ServiceError> {
        match self.security_of(&drop.table_name)? {
            Some(known) if known.predicate != NO_ROW => {
                self.secure(&drop.table_name, known.is_enabled, NO_ROW.to_owned())
            }
            _ if drop.if_exists => Ok(()),
            _ => Err(invalid(format!(
                "table '{}' has no policy",
                drop.table_name
            ))),
        }
    }

    /// `ALTER TABLE ... ENABLE ROW LEVEL SECURITY`, and `DISABLE`.
    pub(super) fn switch_security(
        &mut self,
        table: &ObjectName,
        is_enabled: bool,
    ) -> Result<(), ServiceError> {
        let known = self.security_of(table)?;
        let predicate = known.map_or_else(|| NO_ROW.to_owned(), |known| known.predicate);
        self.secure(table, is_enabled, predicate)
    }

    fn security_of(
        &mut self,
        table: &ObjectName,
    ) -> Result<Option<RowLevelSecurity>, ServiceError> {
        let (database, table) = self.table_name(table)?;
        self.state_of(database.as_deref())?;
        // Also when there is nothing to change: what a policy says is for those who may change it.
        if let Some((name, _)) = &self.database {
            self.request.access.check(name, Permission::Administer)?;
        }
        let state = self.state_of(database.as_deref())?;
        let table = state.table(table.as_str());
        Ok(table.and_then(|table| table.policies.row_level_security.clone()))
    }

    fn secure(
        &mut self,
        table: &ObjectName,
        is_enabled: bool,
        predicate: String,
    ) -> Result<(), ServiceError> {
        let (database, table) = self.table_name(table)?;
        self.state_of(database.as_deref())?;
        let policy = RowLevelSecurity {
            is_enabled,
            predicate,
        };
        let session = self.session();
        if let Some((database, _)) = &self.database {
            session.check_row_level_security(database, table.as_str(), &policy)?;
        }
        // Off and without a policy is what a table is like that nobody secured.
        let is_nothing = !policy.is_enabled && policy.predicate == NO_ROW;
        self.add(DatabaseOp::SetRowLevelSecurity {
            table,
            policy: (!is_nothing).then_some(policy),
        })
    }
}

fn function_name(name: &ObjectName) -> Result<(Option<String>, FunctionName), ServiceError> {
    let (database, name) = QuerySession::resolve_name(name)?;
    let name = FunctionName::new(name).map_err(ServiceError::invalid_name)?;
    Ok((database, name))
}

fn parameter(argument: &OperateFunctionArg) -> Result<FunctionParameter, ServiceError> {
    let name = argument.name.clone().ok_or_else(|| {
        invalid(format!(
            "a parameter of type {} has no name",
            argument.data_type
        ))
    })?;
    let column = ColumnDef {
        name,
        data_type: argument.data_type.clone(),
        options: Vec::new(),
    };
    let default = argument.default_expr.as_ref().map(literal).transpose()?;
    Ok(FunctionParameter {
        field: Arc::new(QuerySession::column_field(&column, true)?),
        default,
    })
}

/// The text of a constant, without quotes.
fn literal(expression: &Expr) -> Result<String, ServiceError> {
    match expression {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Ok(text.clone()),
            Value::Number(text, _) => Ok(text.clone()),
            Value::Boolean(value) => Ok(value.to_string()),
            other => Err(invalid(format!("the default {other} is not a constant"))),
        },
        Expr::UnaryOp { .. } => Ok(expression.to_string()),
        other => Err(invalid(format!("the default {other} is not a constant"))),
    }
}

/// `AS $$ SELECT ... $$`, or the same in quotes.
fn body(create: &CreateFunction) -> Result<String, ServiceError> {
    let text = match &create.function_body {
        Some(
            CreateFunctionBody::AsBeforeOptions { body, .. }
            | CreateFunctionBody::AsAfterOptions(body),
        ) => match body {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Some(text.clone()),
                Value::DollarQuotedString(text) => Some(text.value.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    text.ok_or_else(|| unsupported("a function whose text is not AS $$ SELECT ... $$"))
}
