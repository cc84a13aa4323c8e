//! The interactive shell.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::client::Client;
use crate::sql::{self, SqlArgs};

/// More rows than this are counted, not shown: a terminal is no place for them.
const ROWS_SHOWN_MAX: usize = 1_000;

const HELP: &str = "\
A statement ends with ;
\\d              tables of the database
\\l              databases
\\use DATABASE   another database
\\timing         time of each answer, on or off
\\?              this help
\\q              leave (or Ctrl-D)
Ctrl-C stops a query that runs, or throws away what was typed.";

struct Shell {
    client: Client,
    args: SqlArgs,
    timing: bool,
}

/// Reads statements and runs them until the user has had enough.
pub(crate) async fn run(client: Client, args: SqlArgs) -> anyhow::Result<()> {
    let mut shell = Shell {
        client,
        args,
        timing: true,
    };
    let mut editor = DefaultEditor::new().context("this terminal cannot be read line by line")?;
    let history = history_file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    eprintln!(
        "Connected to {}. \\? for help, \\q to leave.",
        shell.args.url
    );
    let mut statement = String::new();
    loop {
        let prompt = shell.prompt(statement.is_empty());
        // Reading blocks; nothing else runs in this program meanwhile.
        match tokio::task::block_in_place(|| editor.readline(&prompt)) {
            Ok(line) => {
                if statement.is_empty() && line.trim().starts_with('\\') {
                    let _ = editor.add_history_entry(line.trim());
                    if !shell.command(line.trim()).await {
                        break;
                    }
                    continue;
                }
                if !statement.is_empty() {
                    statement.push('\n');
                }
                statement.push_str(&line);
                if is_complete(&statement) {
                    let _ = editor.add_history_entry(statement.trim());
                    shell.execute(&std::mem::take(&mut statement)).await;
                }
            }
            Err(ReadlineError::Interrupted) => statement.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("cannot read from the terminal"),
        }
    }
    if let Some(file) = &history {
        if let Some(directory) = file.parent() {
            let _ = std::fs::create_dir_all(directory);
        }
        if let Err(error) = editor.save_history(file) {
            eprintln!(
                "the history could not be saved to {}: {error}",
                file.display()
            );
        }
    }
    Ok(())
}

impl Shell {
    fn prompt(&self, is_first: bool) -> String {
        let database = self.args.database.as_deref().unwrap_or("slipstream");
        if is_first {
            format!("{database}> ")
        } else {
            format!("{}-> ", " ".repeat(database.len() - 1))
        }
    }

    /// Whether to go on.
    async fn command(&mut self, line: &str) -> bool {
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match name {
            "\\q" | "\\quit" => return false,
            "\\?" | "\\h" | "\\help" => println!("{HELP}"),
            "\\timing" => {
                self.timing = !self.timing;
                println!("timing is {}", if self.timing { "on" } else { "off" });
            }
            "\\use" | "\\c" => {
                let name = argument.trim().trim_end_matches(';');
                self.args.database = (!name.is_empty()).then(|| name.to_owned());
            }
            "\\l" => self.execute("SELECT database_name, database_access_mode, version, table_count, row_count FROM slipstream.databases ORDER BY database_name").await,
            "\\d" => self.execute("SELECT database_name, table_name, row_count, extent_count, size_bytes FROM slipstream.tables ORDER BY database_name, table_name").await,
            _ => println!("{name} is not a command; \\? lists them"),
        }
        true
    }

    async fn execute(&self, statement: &str) {
        let started = now();
        let answer = async {
            let response = sql::request(&self.client, &self.args, statement).await?;
            sql::print(response, self.args.format, ROWS_SHOWN_MAX).await
        };
        // Dropping the request closes its connection, by which the node stops the query.
        let printed = tokio::select! {
            printed = answer => printed,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("stopped");
                return;
            }
        };
        match printed {
            Ok(printed) if self.timing => {
                let version = printed
                    .version
                    .map(|v| format!(", version {v}"))
                    .unwrap_or_default();
                let lag = printed
                    .lag_ms
                    .map(|ms| format!(", {ms} ms old"))
                    .unwrap_or_default();
                let took = started.elapsed().as_secs_f64();
                eprintln!("{} rows in {took:.3} s{version}{lag}", printed.rows);
            }
            Ok(_) => {}
            Err(error) => eprintln!("error: {error:#}"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a stopwatch for the person in front of it"
)]
fn now() -> Instant {
    Instant::now()
}

/// Whether a statement ends with a semicolon outside quotes and comments. A management command
/// needs none: it ends with its line, unless a brace or a quote is open.
fn is_complete(text: &str) -> bool {
    let is_command = text.trim_start().starts_with('.');
    let mut quote = None;
    let mut ended = false;
    let mut depth = 0_usize;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => {
                quote = Some(character);
                ended = false;
            }
            (None, '-') if characters.peek() == Some(&'-') => {
                characters.by_ref().find(|c| *c == '\n');
            }
            (None, ';') => ended = true,
            (None, '{') if is_command => depth += 1,
            (None, '}') if is_command => depth = depth.saturating_sub(1),
            (None, other) if !other.is_whitespace() => ended = false,
            (None, _) => {}
        }
    }
    quote.is_none() && depth == 0 && (ended || is_command)
}

fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local").join("state"))
        })?;
    Some(state.join("slipstream").join("history"))
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn a_statement_ends_at_a_semicolon_outside_quotes_and_comments() {
        for text in [
            "SELECT 1;",
            "SELECT ';';",
            "SELECT 1; -- done",
            "SELECT 1;\n",
            ".show tables",
            ".create function f() {\n  SELECT 1\n}",
        ] {
            assert!(is_complete(text), "{text}");
        }
        for text in [
            "SELECT 1",
            "SELECT ';'",
            "SELECT 1 -- ;",
            "SELECT 'a;\nb",
            "; SELECT",
            ".create function f() {\n  SELECT 1",
            ".add database d viewers ('a",
        ] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
