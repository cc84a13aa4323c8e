//! `.show ...`

use slipstream_model::DatabaseRole;

use super::cursor::{Cursor, Parsed};
use super::{extents, policy};
use crate::{DatabaseView, ExtentScope, PolicyTarget, Show, TableView};

const DATABASE: &str = "the name of a database";
const TABLE: &str = "the name of a table";

pub(super) fn show(c: &mut Cursor<'_>) -> Parsed<Show> {
    if c.word_opt("version") {
        return Ok(Show::Version);
    }
    if c.word_opt("cluster") {
        return cluster(c);
    }
    if c.word_opt("cache") {
        return Ok(Show::Cache);
    }
    if c.word_opt("diagnostics") {
        return Ok(Show::Diagnostics);
    }
    if c.word_opt("gc") {
        c.word("blockers")?;
        return Ok(Show::GcBlockers);
    }
    if c.word_opt("capacity") {
        return capacity(c);
    }
    if c.word_opt("queries") {
        return Ok(Show::Queries);
    }
    if c.word_opt("running") {
        c.word("queries")?;
        return Ok(Show::RunningQueries);
    }
    if c.word_opt("commands") {
        return Ok(Show::Commands);
    }
    if c.word_opt("commands-and-queries") {
        return Ok(Show::CommandsAndQueries);
    }
    if c.word_opt("databases") {
        let names = c.names_opt(DATABASE)?;
        let view = database_view(c).unwrap_or(DatabaseView::Basic);
        return Ok(Show::Databases { names, view });
    }
    if c.word_opt("database") {
        return database(c);
    }
    if c.word_opt("schema") {
        let as_json = as_json(c)?;
        let name = None;
        return Ok(Show::DatabaseSchema { name, as_json });
    }
    if c.word_opt("tables") {
        return tables(c);
    }
    if c.word_opt("table") {
        return table(c);
    }
    if c.word_opt("functions") {
        return Ok(Show::Functions);
    }
    if c.word_opt("function") {
        let name = c.name("the name of a function")?;
        return Ok(Show::Function { name });
    }
    if c.word_opt("external") {
        if c.word_opt("tables") {
            return Ok(Show::ExternalTables);
        }
        c.word("table")?;
        let name = c.name(TABLE)?;
        return Ok(Show::ExternalTable { name });
    }
    if c.word_opt("effective") {
        return effective(c);
    }
    if c.word_opt("materialized-view") {
        let name = c.name("the name of a materialized view")?;
        c.word("policy")?;
        return Ok(Show::Policy {
            entity: PolicyTarget::MaterializedView(name),
            policy: policy::kind(c)?,
            effective: false,
        });
    }
    c.word("follower")?;
    if c.word_opt("databases") {
        let names = c.names_opt(DATABASE)?;
        return Ok(Show::FollowerDatabases { names });
    }
    c.word("database")?;
    let names = vec![c.name("the name of a followed database")?];
    Ok(Show::FollowerDatabases { names })
}

fn cluster(c: &mut Cursor<'_>) -> Parsed<Show> {
    if c.word_opt("details") {
        return Ok(Show::ClusterDetails);
    }
    if c.word_opt("principals") {
        return Ok(Show::ClusterPrincipals);
    }
    if c.word_opt("extents") {
        return extents::shown(c, ExtentScope::Cluster).map(Show::Extents);
    }
    Ok(Show::Cluster)
}

fn capacity(c: &mut Cursor<'_>) -> Parsed<Show> {
    let resource = if c.sees("with") {
        None
    } else {
        c.name_opt("a resource")
    };
    if c.word_opt("with") {
        c.skip_parentheses()?;
    }
    Ok(Show::Capacity { resource })
}

const VIEWS: [(&str, DatabaseView); 5] = [
    ("details", DatabaseView::Details),
    ("datastats", DatabaseView::DataStats),
    ("identity", DatabaseView::Identity),
    ("policies", DatabaseView::Policies),
    ("verbose", DatabaseView::Verbose),
];

fn database_view(c: &mut Cursor<'_>) -> Option<DatabaseView> {
    VIEWS
        .into_iter()
        .find_map(|(word, view)| c.word_opt(word).then_some(view))
}

/// Words that may follow `database` in the place of a name: a database that is called so is
/// written in brackets.
fn is_about_own_database(c: &Cursor<'_>) -> bool {
    VIEWS.iter().any(|(word, _)| c.sees(word))
        || [
            "schema",
            "extents",
            "principals",
            "policy",
            "versions",
            "pins",
        ]
        .iter()
        .any(|word| c.sees(word))
}

fn database(c: &mut Cursor<'_>) -> Parsed<Show> {
    let name = if is_about_own_database(c) {
        None
    } else {
        c.name_opt(DATABASE)
    };
    if let Some(view) = database_view(c) {
        return Ok(Show::Database { name, view });
    }
    if c.word_opt("schema") {
        let as_json = as_json(c)?;
        return Ok(Show::DatabaseSchema { name, as_json });
    }
    if c.word_opt("versions") {
        return Ok(Show::DatabaseVersions { name });
    }
    if c.word_opt("pins") {
        return Ok(Show::DatabasePins { name });
    }
    if c.word_opt("extents") {
        return extents::shown(c, ExtentScope::Database(name)).map(Show::Extents);
    }
    if c.word_opt("policy") {
        return Ok(Show::Policy {
            entity: PolicyTarget::Database(name),
            policy: policy::kind(c)?,
            effective: false,
        });
    }
    if c.word_opt("principals") {
        let role = None;
        return Ok(Show::DatabasePrincipals {
            database: name,
            role,
        });
    }
    for role in DatabaseRole::ALL {
        if c.word_opt(role.plural()) {
            return Ok(Show::DatabasePrincipals {
                database: name,
                role: Some(*role),
            });
        }
    }
    let view = DatabaseView::Basic;
    Ok(Show::Database { name, view })
}

/// `as json`, or nothing.
fn as_json(c: &mut Cursor<'_>) -> Parsed<bool> {
    if !c.word_opt("as") {
        return Ok(false);
    }
    c.word("json")?;
    Ok(true)
}

fn tables(c: &mut Cursor<'_>) -> Parsed<Show> {
    let names = c.names_opt(TABLE)?;
    if !names.is_empty() && c.word_opt("extents") {
        return extents::shown(c, ExtentScope::Tables(names)).map(Show::Extents);
    }
    let details = c.word_opt("details");
    Ok(Show::Tables { names, details })
}

fn table(c: &mut Cursor<'_>) -> Parsed<Show> {
    if c.sign_opt('*') {
        c.word("policy")?;
        return Ok(Show::Policy {
            entity: PolicyTarget::Table(None),
            policy: policy::kind(c)?,
            effective: false,
        });
    }
    let name = c.name(TABLE)?;
    if c.word_opt("extents") {
        return extents::shown(c, ExtentScope::Tables(vec![name])).map(Show::Extents);
    }
    if c.word_opt("policy") {
        return Ok(Show::Policy {
            entity: PolicyTarget::Table(Some(name)),
            policy: policy::kind(c)?,
            effective: false,
        });
    }
    let view = if c.word_opt("details") {
        TableView::Details
    } else if c.word_opt("cslschema") {
        TableView::CslSchema
    } else if c.word_opt("schema") {
        c.words(&["as", "json"])?;
        TableView::SchemaAsJson
    } else {
        TableView::Columns
    };
    Ok(Show::Table { name, view })
}

/// `policy caching table T`.
fn effective(c: &mut Cursor<'_>) -> Parsed<Show> {
    c.word("policy")?;
    let policy = policy::kind(c)?;
    let entity = if c.word_opt("database") {
        PolicyTarget::Database(c.name_opt(DATABASE))
    } else if c.word_opt("materialized-view") {
        PolicyTarget::MaterializedView(c.name("the name of a materialized view")?)
    } else {
        c.word("table")?;
        if c.sign_opt('*') {
            PolicyTarget::Table(None)
        } else {
            PolicyTarget::Table(Some(c.name(TABLE)?))
        }
    };
    Ok(Show::Policy {
        entity,
        policy,
        effective: true,
    })
}
