//! Work that takes long, away from the threads that serve others.

use std::cell::Cell;

use tokio::task::JoinError;

thread_local! {
    static IS_IN_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// From now on, whatever this thread hands to [`off_the_runtime`] runs on this thread. For a
/// simulation, whose one thread is the whole cluster: when another thread is done with its work
/// depends on the machine, and a seed would not give the same run twice.
#[doc(hidden)]
pub fn run_in_place() {
    IS_IN_PLACE.set(true);
}

/// Whether [`run_in_place`] was said on this thread.
#[doc(hidden)]
pub fn is_in_place() -> bool {
    IS_IN_PLACE.get()
}

/// Runs work that computes or blocks on a thread for such work.
///
/// # Errors
/// When it panics, or the runtime goes away.
pub async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_in_place() {
        // A task all the same: a panic ends there.
        tokio::spawn(async move { work() }).await
    } else {
        tokio::task::spawn_blocking(work).await
    }
}

#[cfg(test)]
mod tests {
    use std::thread::current;

    use super::*;

    #[tokio::test]
    async fn work_leaves_the_thread_unless_it_is_told_to_stay() {
        let here = current().id();
        let there = off_the_runtime(|| current().id()).await.expect("done");
        assert_ne!(there, here);
        run_in_place();
        let there = off_the_runtime(|| current().id()).await.expect("done");
        assert_eq!(there, here);
        assert!(off_the_runtime(|| panic!("on purpose")).await.is_err());
        IS_IN_PLACE.set(false);
    }
}
