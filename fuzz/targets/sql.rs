//! SQL: taken apart into statements, or refused. On a thread with the stack that a node's threads
//! have.

use slipstream_query::{QuerySession, THREAD_STACK_BYTES, take_settings};

pub(crate) fn run(data: &[u8]) {
    let sql = String::from_utf8_lossy(data).into_owned();
    let thread = std::thread::Builder::new()
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || take_apart(&sql))
        .expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn take_apart(sql: &str) {
    match QuerySession::parse(sql) {
        Ok(mut statements) => {
            for statement in &statements {
                let _ = QuerySession::is_write(statement);
            }
            let _ = take_settings(&mut statements);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
