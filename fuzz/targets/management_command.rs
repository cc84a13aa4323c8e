//! Texts of management commands: each is a command, or is refused with a place in it. A command
//! that this program also writes is read back as what was meant.

use slipstream_kusto::{Command, follower_command, parse, warm_command, without_secrets};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse(&text) {
        Ok(command) => read_back(&command),
        Err(error) => {
            assert!(text.is_char_boundary(error.offset), "{error:?}");
            assert!(error.line > 0 && error.column > 0, "{error:?}");
            assert!(!error.message.is_empty(), "{error:?}");
            assert_eq!(error.to_string().matches('\n').count(), 2, "{error:?}");
        }
    }
    let _ = without_secrets(&text);
}

fn read_back(command: &Command) {
    let written = match command {
        Command::Follower { database, change } => follower_command(database, change),
        Command::Warm { database, table } => warm_command(database, table.as_deref()),
        _ => return,
    };
    assert_eq!(parse(&written).as_ref(), Ok(command), "{written}");
}
