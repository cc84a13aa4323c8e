//! Who asks, and where: `current_principal()` and `current_cluster_endpoint()`, and the rows that
//! row-level security leaves to whoever asks.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::extensions_options;
use datafusion::config::ConfigExtension;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use slipstream_model::RowLevelSecurity;

use crate::{QueryError, QueryErrorKind, barrier};

/// Who asks, and of which cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SessionIdentity {
    /// The principal's full name: `aaduser=ada@example.org`.
    pub principal: String,
    /// How the cluster is reached; a follower's differs from its leader's.
    pub cluster_endpoint: String,
}

extensions_options! {
    /// [`SessionIdentity`] where functions can read it.
    pub(crate) struct IdentityOptions {
        pub principal: String, default = String::new()
        pub cluster_endpoint: String, default = String::new()
    }
}

impl ConfigExtension for IdentityOptions {
    const PREFIX: &'static str = "session_identity";
}

impl From<&SessionIdentity> for IdentityOptions {
    fn from(identity: &SessionIdentity) -> Self {
        Self {
            principal: identity.principal.clone(),
            cluster_endpoint: identity.cluster_endpoint.clone(),
        }
    }
}

/// The functions that say who asks.
pub(crate) fn functions() -> [Arc<ScalarUDF>; 2] {
    let function = |name, read| {
        let signature = Signature::nullary(Volatility::Stable);
        Arc::new(ScalarUDF::from(Said {
            name,
            read,
            signature,
        }))
    };
    [
        function("current_principal", |options| &options.principal),
        function("current_cluster_endpoint", |options| {
            &options.cluster_endpoint
        }),
    ]
}

/// One of the texts of [`IdentityOptions`].
#[derive(Debug)]
struct Said {
    name: &'static str,
    read: fn(&IdentityOptions) -> &String,
    signature: Signature,
}

impl PartialEq for Said {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Said {}

impl std::hash::Hash for Said {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Said {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let options = args.config_options.extensions.get::<IdentityOptions>();
        let said = options.map(|options| (self.read)(options).clone());
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(said)))
    }
}

/// A table without the rows that a policy hides from whoever asks.
pub(crate) fn secured(
    base: &SessionState,
    name: &str,
    table: Arc<dyn TableProvider>,
    policy: &RowLevelSecurity,
) -> Result<Arc<dyn TableProvider>> {
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?;
    let predicate = base.create_logical_expr(&policy.predicate, scan.schema())?;
    let plan = scan.filter(predicate)?.build()?;
    Ok(Arc::new(ViewTable::new(barrier::above(plan), None)))
}

/// Checks that a policy's predicate can be used on a table.
///
/// # Errors
/// When it is not a condition over the table's columns.
pub(crate) fn check(
    base: &SessionState,
    name: &str,
    table: Arc<dyn TableProvider>,
    policy: &RowLevelSecurity,
) -> Result<(), QueryError> {
    secured(base, name, table, policy)
        .map(drop)
        .map_err(|error| {
            let error = QueryError::from(error);
            let message = format!(
                "the row-level security of table '{name}' is no condition over its columns: {error}"
            );
            QueryError::new(QueryErrorKind::Planning, message)
        })
}
