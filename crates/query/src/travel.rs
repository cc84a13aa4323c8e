//! Tables as they were: `FROM t FOR VERSION AS OF 3`, `FROM t FOR TIMESTAMP AS OF '2013-01-31'`.
//!
//! The parser takes no such clause in the dialect that is spoken here. So a clause is put, before
//! anything is parsed, into the form of one that stands at the same place and that nothing else
//! uses: `PARTITION ("...")`. Planning takes it out again, and lets the name stand for the table of
//! a schema of its own: the database at that version.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use async_trait::async_trait;
use chrono::{NaiveDate, NaiveDateTime};
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, TableAlias, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use slipstream_catalog::{
    CatalogError, DatabaseState, DroppedTable, History, HistoryError, VersionSummary,
};
use slipstream_model::{Timestamp, Version};

use crate::namespace::CATALOG;
use crate::statement::{self, Class};
use crate::{QueryError, QueryErrorKind, Statement};

/// Databases at versions that one query reads: each may have to be read from the log first.
const OLDER_MAX: usize = 8;

/// How times may be written that do not say their zone, which is UTC then.
const TIME_FORMATS: [&str; 4] = [
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
];

/// Which older version is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PointInTime {
    /// That one.
    Version(Version),
    /// The newest that was committed by then.
    Time(Timestamp),
}

impl fmt::Display for PointInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "VERSION AS OF {version}"),
            Self::Time(time) => write!(f, "TIMESTAMP AS OF {time}"),
        }
    }
}

impl PointInTime {
    /// Reads back what `Display` wrote.
    fn read(text: &str) -> Option<Self> {
        if let Some(version) = text.strip_prefix("VERSION AS OF ") {
            return version.parse().ok().map(Version::new).map(Self::Version);
        }
        let time = text.strip_prefix("TIMESTAMP AS OF ")?;
        time.parse().ok().map(Self::Time)
    }
}

/// A database as it was.
#[derive(Debug)]
pub struct OlderState {
    /// What it was.
    pub state: DatabaseState,
    /// What must live as long as its rows are read, such as the pin that a lease names.
    pub hold: Option<Box<dyn Any + Send>>,
}

/// Who knows the older versions of databases.
#[async_trait]
pub trait OlderVersions: fmt::Debug + Send + Sync {
    /// A database at an older version. `newest` is what the request would read of it else; what is
    /// left out there is left out of the answer.
    ///
    /// # Errors
    /// `VersionNotFound` and `VersionNotKept`, or when the bucket cannot be read.
    async fn at(
        &self,
        database: &str,
        newest: &DatabaseState,
        point: PointInTime,
    ) -> Result<OlderState, QueryError>;
}

/// Which version is meant.
///
/// # Errors
/// As [`OlderVersions::at`].
pub async fn older_version(
    history: &History,
    database: &str,
    newest: &DatabaseState,
    point: PointInTime,
) -> Result<Version, QueryError> {
    match point {
        PointInTime::Version(version) => Ok(version),
        PointInTime::Time(time) => {
            let version = history.version_at(newest, time).await;
            version.map_err(|error| explain(database, &error))
        }
    }
}

/// The same on a node that follows the database, and may be behind: it does not take the newest version that
/// it has for the newest of a time at which there was another one.
///
/// # Errors
/// As [`OlderVersions::at`]; and when there was another one.
pub async fn followed_version(
    history: &History,
    database: &str,
    newest: &DatabaseState,
    point: PointInTime,
) -> Result<Version, QueryError> {
    let version = older_version(history, database, newest, point).await?;
    if let PointInTime::Time(time) = point
        && version == newest.version()
    {
        let checked = history.check_newest_at(newest, time).await;
        checked.map_err(|error| explain(database, &error))?;
    }
    Ok(version)
}

/// A database at a version.
///
/// # Errors
/// As [`OlderVersions::at`].
pub async fn older_state(
    history: &History,
    database: &str,
    newest: &DatabaseState,
    version: Version,
) -> Result<DatabaseState, QueryError> {
    let state = history.state_at(newest, version).await;
    state.map_err(|error| explain(database, &error))
}

/// The table of a name that a version dropped, or the version after it.
///
/// # Errors
/// As [`OlderVersions::at`].
pub async fn dropped_table(
    history: &History,
    database: &str,
    newest: &DatabaseState,
    name: &str,
    version: Version,
) -> Result<Option<DroppedTable>, QueryError> {
    let dropped = history.dropped_table(newest, name, version).await;
    dropped.map_err(|error| explain(database, &error))
}

/// What the newest commits of a database did, newest first.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn version_summaries(
    history: &History,
    database: &str,
    newest: &DatabaseState,
    count: usize,
) -> Result<Vec<VersionSummary>, QueryError> {
    let summaries = history.summaries(newest, count).await;
    summaries.map_err(|error| explain(database, &error))
}

fn explain(database: &str, error: &HistoryError) -> QueryError {
    use QueryErrorKind as Kind;
    let kind = match error {
        HistoryError::NotKept { .. } | HistoryError::TooFar { .. } => Kind::VersionNotKept,
        HistoryError::Catalog(CatalogError::Corrupt(_)) => Kind::DataCorrupt,
        HistoryError::Catalog(_) => Kind::Storage,
        _ => Kind::VersionNotFound,
    };
    QueryError::new(kind, format!("database '{database}': {error}"))
}

/// Puts the clauses of a text into the form that the parser takes, and counts them.
///
/// # Errors
/// When one names no version and no time.
pub(crate) fn take_clauses(
    tokens: Vec<TokenWithSpan>,
) -> Result<(Vec<TokenWithSpan>, usize), QueryError> {
    if !tokens.iter().any(|token| is_word(token, Keyword::OF)) {
        return Ok((tokens, 0));
    }
    let (mut taken, mut count) = (Vec::with_capacity(tokens.len()), 0);
    let mut rest = &tokens[..];
    while let Some(first) = rest.first() {
        let Some((point, length)) = clause(rest)? else {
            taken.push(first.clone());
            rest = &rest[1..];
            continue;
        };
        let parts = [
            Token::make_word("PARTITION", None),
            Token::LParen,
            Token::make_word(&point.to_string(), Some('"')),
            Token::RParen,
        ];
        let parts = parts.into_iter();
        taken.extend(parts.map(|part| TokenWithSpan::new(part, first.span)));
        rest = &rest[length..];
        count += 1;
    }
    Ok((taken, count))
}

fn is_word(token: &TokenWithSpan, keyword: Keyword) -> bool {
    matches!(&token.token, Token::Word(word) if word.keyword == keyword)
}

/// The clause that some tokens begin with, and how many of them it is.
fn clause(tokens: &[TokenWithSpan]) -> Result<Option<(PointInTime, usize)>, QueryError> {
    let begins = tokens.first().is_some_and(|t| is_word(t, Keyword::FOR));
    if !begins {
        return Ok(None);
    }
    let is_blank = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let mut words = tokens
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, token)| !is_blank(token));
    let is_version = match words.next() {
        Some((_, token)) if is_word(token, Keyword::VERSION) => true,
        Some((_, token))
            if is_word(token, Keyword::TIMESTAMP) || is_word(token, Keyword::SYSTEM_TIME) =>
        {
            false
        }
        _ => return Ok(None),
    };
    for wanted in [Keyword::AS, Keyword::OF] {
        let next = words.next();
        if !next.is_some_and(|(_, token)| is_word(token, wanted)) {
            return Ok(None);
        }
    }
    let mut value = words.next();
    // `AS OF TIMESTAMP '...'`
    if !is_version && value.is_some_and(|(_, token)| is_word(token, Keyword::TIMESTAMP)) {
        value = words.next();
    }
    let end = Token::EOF;
    let (position, token) = match value {
        Some((position, token)) => (position, &token.token),
        None => (tokens.len(), &end),
    };
    let point = match token {
        Token::Number(text, _) if is_version => {
            let version = text.parse().ok().map(Version::new);
            version.map(PointInTime::Version)
        }
        Token::SingleQuotedString(text) if !is_version => moment(text).map(PointInTime::Time),
        _ => None,
    };
    let wanted = if is_version {
        "FOR VERSION AS OF takes the number of a version"
    } else {
        "FOR TIMESTAMP AS OF takes a time such as '2013-01-31T12:00:00Z'"
    };
    let message = || format!("{wanted}, as a constant: {token} is none");
    let point = point.ok_or_else(|| QueryError::new(QueryErrorKind::Syntax, message()))?;
    Ok(Some((point, position + 1)))
}

fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let mut formats = TIME_FORMATS.iter();
    let time = formats.find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let midnight = || {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        day.and_hms_opt(0, 0, 0)
    };
    let time = time.or_else(midnight)?;
    Some(Timestamp::from_micros(time.and_utc().timestamp_micros()))
}

/// A database at a version, as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Older {
    pub(crate) database: String,
    pub(crate) point: PointInTime,
}

/// Lets every name with a clause stand for the table of a schema of its own; which schemas those
/// are, by their names.
///
/// # Errors
/// When a clause stands where none can.
pub(crate) fn redirect(
    statement: &mut Statement,
    default: Option<&str>,
) -> Result<BTreeMap<String, Older>, QueryError> {
    let mut redirect = Redirect {
        default,
        older: BTreeMap::new(),
    };
    if let ControlFlow::Break(error) = visit(statement, &mut redirect) {
        return Err(*error);
    }
    let older = redirect.older;
    if older.len() > OLDER_MAX {
        let message = format!("a query reads at most {OLDER_MAX} older versions of databases");
        return Err(QueryError::new(QueryErrorKind::Planning, message));
    }
    if !older.is_empty() && matches!(statement::classify(statement), Class::Delete) {
        let message = "DELETE reads and changes the newest version: FOR VERSION AS OF stands in \
                       queries, and in those of INSERT and CREATE TABLE";
        return Err(QueryError::new(QueryErrorKind::Unsupported, message));
    }
    Ok(older)
}

fn visit(statement: &mut Statement, redirect: &mut Redirect<'_>) -> ControlFlow<Box<QueryError>> {
    match statement {
        Statement::Statement(statement) => VisitMut::visit(&mut **statement, redirect),
        Statement::Explain(explain) => visit(&mut explain.statement, redirect),
        _ => ControlFlow::Continue(()),
    }
}

struct Redirect<'a> {
    default: Option<&'a str>,
    older: BTreeMap<String, Older>,
}

impl VisitorMut for Redirect<'_> {
    type Break = Box<QueryError>;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Box<QueryError>> {
        let TableFactor::Table {
            name,
            alias,
            args,
            partitions,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        if partitions.is_empty() {
            return ControlFlow::Continue(());
        }
        let clause = std::mem::take(partitions);
        match self.take(name, alias, args.is_some(), &clause) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

impl Redirect<'_> {
    fn take(
        &mut self,
        name: &mut ObjectName,
        alias: &mut Option<TableAlias>,
        is_call: bool,
        clause: &[Ident],
    ) -> Result<(), QueryError> {
        let unsupported = |message| Err(QueryError::new(QueryErrorKind::Unsupported, message));
        let point = match clause {
            [one] => PointInTime::read(&one.value),
            _ => None,
        };
        let Some(point) = point else {
            return unsupported(format!(
                "{name} PARTITION is not supported: say in WHERE which rows are wanted"
            ));
        };
        if is_call {
            return unsupported(format!(
                "FOR {point} is of tables, and {name}(...) is a function"
            ));
        }
        let (database, table) = statement::resolve_name(name)?;
        let database = database.or_else(|| self.default.map(str::to_owned));
        let database = database.ok_or_else(|| {
            let message = format!(
                "table '{table}' is looked for in no database: name one in the request, or write \
                 database.{table}"
            );
            QueryError::new(QueryErrorKind::NotFound, message)
        })?;
        // No database has such a name: it ends with a blank.
        let schema = format!("{database} {point} ");
        let parts = [CATALOG, schema.as_str(), table.as_str()];
        let parts = parts.map(|part| Ident::with_quote('"', part));
        *name = ObjectName::from(Vec::from(parts));
        alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: Ident::with_quote('"', table),
            columns: Vec::new(),
            at: None,
        });
        self.older.insert(schema, Older { database, point });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QuerySession;

    fn redirected(sql: &str) -> Result<(String, Vec<Older>), QueryError> {
        let mut statements = QuerySession::parse(sql)?;
        let mut statement = statements.remove(0);
        let older = redirect(&mut statement, Some("d"))?;
        Ok((statement.to_string(), older.into_values().collect()))
    }

    fn version(database: &str, version: u64) -> Older {
        Older {
            database: database.to_owned(),
            point: PointInTime::Version(Version::new(version)),
        }
    }

    fn time(time: &str) -> Older {
        Older {
            database: "d".to_owned(),
            point: PointInTime::Time(time.parse().expect("a time")),
        }
    }

    #[test]
    fn each_table_has_a_clause_of_its_own_and_keeps_its_name() {
        let (text, older) = redirected(
            "SELECT t.a FROM T FOR VERSION AS OF 3 JOIN e.u FOR /* this */ version\n AS OF 12 AS v \
             ON t.a = v.a JOIN t AS now ON now.a = t.a",
        )
        .expect("SQL");
        assert_eq!(older, [version("d", 3), version("e", 12)]);
        assert!(
            text.contains(r#"cluster"."d VERSION AS OF 3 "."t" AS "t" JOIN"#),
            "{text}"
        );
        assert!(
            text.contains(r#""e VERSION AS OF 12 "."u" AS v ON"#),
            "{text}"
        );
        assert!(text.contains("JOIN t AS now"), "{text}");
    }

    #[test]
    fn clauses_are_found_in_subqueries_and_in_what_is_explained() {
        for sql in [
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM t FOR VERSION AS OF 3)",
            "EXPLAIN SELECT 1 FROM t FOR VERSION AS OF 3",
            "WITH w AS (SELECT 1 FROM t FOR VERSION AS OF 3) SELECT * FROM w",
            "INSERT INTO t SELECT * FROM t FOR VERSION AS OF 3",
            "CREATE TABLE u AS SELECT * FROM t FOR VERSION AS OF 3",
        ] {
            let (_, older) = redirected(sql).expect(sql);
            assert_eq!(older, [version("d", 3)], "{sql}");
        }
        let (text, older) = redirected("SELECT 'for version as of 3' FROM t").expect("SQL");
        assert!(older.is_empty(), "{text}");
    }

    #[test]
    fn times_are_read_with_a_zone_or_in_utc() {
        for (text, expected) in [
            ("'2013-01-31T12:00:00+02:00'", "2013-01-31T10:00:00Z"),
            ("'2013-01-31 12:00:00.5'", "2013-01-31T12:00:00.5Z"),
            ("TIMESTAMP '2013-01-31 12:00'", "2013-01-31T12:00:00Z"),
            ("'2013-01-31'", "2013-01-31T00:00:00Z"),
        ] {
            for word in ["TIMESTAMP", "SYSTEM_TIME"] {
                let sql = format!("SELECT * FROM t FOR {word} AS OF {text} WHERE a = 1");
                let (_, older) = redirected(&sql).expect(&sql);
                assert_eq!(older, [time(expected)], "{sql}");
            }
        }
    }

    #[test]
    fn what_is_no_version_and_no_time_is_refused() {
        for (clause, words) in [
            ("VERSION AS OF 'x'", "the number of a version"),
            ("VERSION AS OF -1", "the number of a version"),
            ("VERSION AS OF 1.5", "the number of a version"),
            ("VERSION AS OF", "the number of a version"),
            ("TIMESTAMP AS OF 'yesterday'", "takes a time such as"),
            ("TIMESTAMP AS OF 3", "takes a time such as"),
            ("VERSION AS OF 3 + 1", "right after the name of a table"),
        ] {
            let error = redirected(&format!("SELECT * FROM t FOR {clause}"));
            let error = error.expect_err("no clause");
            assert_eq!(error.kind(), QueryErrorKind::Syntax, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        for sql in [
            "SELECT * FROM t AS x FOR VERSION AS OF 3",
            "SELECT * FROM f(1) FOR VERSION AS OF 3",
            "SELECT * FROM t WHERE a = 1 FOR VERSION AS OF 3",
        ] {
            let error = redirected(sql).expect_err("misplaced");
            assert_eq!(error.kind(), QueryErrorKind::Syntax, "{error}");
        }
        let many = (1..10).map(|n| format!("t FOR VERSION AS OF {n} AS t{n}"));
        let many = format!("SELECT 1 FROM {}", many.collect::<Vec<_>>().join(", "));
        for sql in [
            "DELETE FROM t FOR VERSION AS OF 3",
            "DELETE FROM t WHERE a IN (SELECT a FROM t FOR VERSION AS OF 3)",
            "SELECT * FROM t PARTITION (p)",
            many.as_str(),
        ] {
            redirected(sql).expect_err("refused");
        }
    }
}
