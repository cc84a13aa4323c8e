//! Who may do what: *.show database principals*, *.show cluster principals*.

use slipstream_model::{DatabaseRole, PrincipalName};

use crate::command::Context;
use crate::command::rows::{Cell, Kind, Rows};
use crate::{ClusterPermission, ServiceError};

use Kind::Text;

/// *Manage database security roles*.
const PRINCIPALS: &[(&str, Kind)] = &[
    ("Role", Text),
    ("PrincipalType", Text),
    ("PrincipalDisplayName", Text),
    ("PrincipalObjectId", Text),
    ("PrincipalFQN", Text),
    ("Notes", Text),
];

pub(in crate::command) fn database_principals(
    context: &Context<'_>,
    database: &str,
    role: Option<DatabaseRole>,
) -> Result<Rows, ServiceError> {
    let principals = context.engine.principals(database)?;
    let wanted = principals
        .iter()
        .filter(|known| role.is_none_or(|role| role == known.role));
    let rows = wanted.map(|known| {
        let role = format!("Database {database} {}", known.role);
        row(role, &known.principal, known.notes.as_deref())
    });
    Ok(Rows::new(PRINCIPALS).with(rows))
}

pub(super) fn cluster_principals(context: &Context<'_>) -> Result<Rows, ServiceError> {
    context.access.caller().check(ClusterPermission::Monitor)?;
    let mut rows = Rows::new(PRINCIPALS);
    for token in context.engine.tokens() {
        for role in &token.cluster_roles {
            rows.push(row(role.to_string(), &token.principal, Some(&token.notes)));
        }
    }
    Ok(rows)
}

fn row(role: String, principal: &PrincipalName, notes: Option<&str>) -> Vec<Cell> {
    let kind = format!("AAD {}", principal.kind());
    vec![
        role.into(),
        kind.into(),
        principal.id().into(),
        principal.id().into(),
        principal.as_str().into(),
        notes.unwrap_or_default().into(),
    ]
}
