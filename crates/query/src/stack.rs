//! Deep statements and the stacks they need.
//!
//! The engine walks expressions by recursion, and `a OR b OR c...` is an expression as deep as it
//! is long. A stack that overflows ends the process, not the query. So the depth of a statement
//! is bounded before it is parsed, and planning, which needs most stack, gets a thread of its own
//! with plenty. What is left runs on the threads of the runtime: see [`THREAD_STACK_BYTES`].

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::{QueryError, QueryErrorKind};

/// How many operators may follow one another, those of enclosing parentheses included. Lists in
/// `IN (...)` and rows in `VALUES` do not count, so what is written by hand or by a dashboard
/// stays below. The optimizer's time grows with the third power of this: a sum of 400 columns in
/// a filter took it 19 s in a debug build, one of 200 took 4 s.
pub(crate) const OPERATORS_MAX: usize = 500;
/// The stack of a thread that plans. Only what is touched takes memory.
const PLANNING_STACK_BYTES: usize = 256 << 20;

/// The stack that threads of a runtime need to execute the deepest statement that is taken:
/// `tokio::runtime::Builder::thread_stack_size`. Only what is touched takes memory.
pub const THREAD_STACK_BYTES: usize = 32 << 20;

/// Splits SQL into tokens, and refuses what nests too deep.
pub(crate) fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>, QueryError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
    let tokens = tokens.map_err(|error| {
        QueryError::new(
            QueryErrorKind::Syntax,
            format!("this is not valid SQL: {error}"),
        )
    })?;
    if depth(&tokens) > OPERATORS_MAX {
        let message = format!(
            "the statement nests too deep: it has more than {OPERATORS_MAX} operators in a row, \
             or too many tables or queries that build on one another. Write x IN (...) for \
             x = 1 OR x = 2..., or take it in steps"
        );
        return Err(QueryError::new(QueryErrorKind::Unsupported, message));
    }
    Ok(tokens)
}

/// What a join counts: some sixty tables in one FROM, which is also MySQL's limit. A hundred
/// overflowed 2 MiB of stack while they ran, in a debug build.
const JOIN_WEIGHT: usize = 8;
/// What a query in WITH counts, as each may read the one before: some eighty.
const WITH_WEIGHT: usize = 6;
/// What a branch of UNION counts. The optimizer puts them side by side.
const UNION_WEIGHT: usize = 2;

/// What is counted between two parentheses.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    /// Since the last comma or clause.
    operators: usize,
    /// Of the tables in this FROM.
    joins: usize,
    /// Of the queries that are put together here.
    queries: usize,
    /// Where commas stand now.
    list: List,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum List {
    /// Between columns or values, which do not build on one another.
    #[default]
    Values,
    /// Between tables.
    Tables,
    /// Between the queries of WITH.
    Queries,
}

impl Level {
    fn depth(&self) -> usize {
        self.operators + self.joins + self.queries
    }

    fn take(&mut self, token: &Token) {
        match token {
            Token::SemiColon => *self = Self::default(),
            Token::Comma => {
                self.operators = 0;
                match self.list {
                    List::Values => {}
                    List::Tables => self.joins += JOIN_WEIGHT,
                    List::Queries => self.queries += WITH_WEIGHT,
                }
            }
            Token::Word(word) => self.take_word(word.keyword),
            token => self.operators += usize::from(is_operator(token)),
        }
    }

    fn take_word(&mut self, keyword: Keyword) {
        let mut begin = |list| {
            self.operators = 0;
            self.list = list;
        };
        match keyword {
            Keyword::SELECT => {
                begin(List::Values);
                self.joins = 0;
            }
            Keyword::FROM => begin(List::Tables),
            Keyword::WITH => begin(List::Queries),
            Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER => {
                begin(List::Values);
            }
            Keyword::JOIN => {
                self.operators = 0;
                self.joins += JOIN_WEIGHT;
            }
            Keyword::UNION => self.queries += UNION_WEIGHT,
            // Both become joins.
            Keyword::INTERSECT | Keyword::EXCEPT => self.queries += JOIN_WEIGHT,
            keyword => self.operators += usize::from(is_operator_word(keyword)),
        }
    }
}

/// The most operators that follow one another without a comma or another clause between them,
/// counted together with those around the parentheses they stand in.
fn depth(tokens: &[TokenWithSpan]) -> usize {
    let (mut deepest, mut around) = (0, 0);
    let mut level = Level::default();
    let mut enclosing = Vec::new();
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => {
                around += level.depth() + 1;
                enclosing.push(std::mem::take(&mut level));
            }
            close @ (Token::RParen | Token::RBracket) => {
                let Some(outer) = enclosing.pop() else {
                    continue;
                };
                level = outer;
                around -= level.depth() + 1;
                // `a[1][2]` is one access over another.
                level.operators += usize::from(close == &Token::RBracket);
            }
            token => level.take(token),
        }
        deepest = deepest.max(around + level.depth());
    }
    deepest
}

/// Words that make a tree of syntax one level deeper.
fn is_operator_word(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::AND
            | Keyword::OR
            | Keyword::NOT
            | Keyword::IS
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::AT
            | Keyword::COLLATE
            | Keyword::CASE
            // The parser takes EXPLAIN of EXPLAIN by recursion that it does not count.
            | Keyword::EXPLAIN
    )
}

/// Signs that make a tree of syntax one level deeper. Too much is counted rather than too little.
fn is_operator(token: &Token) -> bool {
    !matches!(
        token,
        Token::Number(..)
            | Token::Char(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::Period
            | Token::Placeholder(_)
            | Token::Whitespace(_)
            | Token::EOF
    )
}

/// Runs something on a thread with a large stack, and waits for it. A panic there is an error
/// here.
///
/// Waiting blocks the caller's thread, as the work itself would: it computes and never waits.
pub(crate) fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, QueryError> + Send,
) -> Result<T, QueryError> {
    let dispatcher = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("slipstream-plan".to_owned())
            .stack_size(PLANNING_STACK_BYTES)
            .spawn_scoped(scope, || {
                tracing::dispatcher::with_default(&dispatcher, work)
            })
            .map_err(|error| {
                let message = format!("no thread could be started to plan the query: {error}");
                QueryError::new(QueryErrorKind::ResourcesExhausted, message)
            })?;
        thread.join().unwrap_or_else(|_| {
            let message = "planning the query failed over a defect of this program";
            Err(QueryError::new(QueryErrorKind::Internal, message))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth_of(sql: &str) -> usize {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
        depth(&tokens.expect("tokens"))
    }

    #[test]
    fn chains_and_parentheses_are_deep_and_lists_are_not() {
        let chain = vec!["a = 1"; 500].join(" OR ");
        assert!(depth_of(&format!("SELECT 1 WHERE {chain}")) >= 999);
        assert!(depth_of(&format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500))) >= 500);
        assert!(depth_of(&format!("SELECT {}", vec!["f(a, 1)"; 500].join(" + "))) >= 499);
        assert!(depth_of(&vec!["SELECT a FROM t"; 500].join(" UNION ALL ")) >= 499);
        let list = vec!["-1"; 5_000].join(", ");
        assert!(depth_of(&format!("SELECT 1 WHERE a IN ({list}) AND b = 2")) < 10);
        let rows = vec!["(1, 'x', -2.5)"; 5_000].join(", ");
        assert!(depth_of(&format!("INSERT INTO t VALUES {rows}")) < 10);
        assert!(depth_of(&vec!["SELECT a + b FROM t"; 5_000].join("; ")) < 10);
        let columns = vec!["a + b"; 5_000].join(", ");
        assert!(depth_of(&format!("SELECT {columns} FROM t ORDER BY {columns}")) < 10);
    }

    #[test]
    fn what_builds_on_one_another_is_deep() {
        assert!(depth_of(&format!("SELECT a{}", "[1]".repeat(500))) >= 500);
        assert!(depth_of(&format!("SELECT a{}", "::int".repeat(500))) >= 500);
        assert!(depth_of(&format!("{}SELECT 1", "EXPLAIN ".repeat(500))) >= 500);
        assert!(depth_of(&format!("SELECT 1 FROM {}", vec!["t"; 500].join(", "))) >= 499);
        let queries = vec!["a AS (SELECT 1)"; 500].join(", ");
        assert!(depth_of(&format!("WITH {queries} SELECT 1")) >= 499);
    }

    #[test]
    fn a_panic_while_planning_is_an_error() {
        let result: Result<(), _> = on_large_stack(|| panic!("a defect"));
        assert_eq!(
            result.expect_err("panicked").kind(),
            QueryErrorKind::Internal
        );
    }
}
