//! Stands in for the crate of this name, which hangs labels for a profiler on tasks and threads.
//!
//! vortex-io carries the labels of a task over to the tasks that it starts. Slipstream sets none,
//! so there is nothing to carry, and the original's C++ and its build by libclang are not needed.
//! Here are the three functions that vortex-io calls, and nothing else.

/// The labels of the current thread: none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Labelset;

impl Labelset {
    /// The labels that are in force now.
    pub const fn clone_from_current() -> Self {
        Self
    }

    /// Runs something under these labels.
    pub fn enter<F: FnOnce() -> R, R>(&mut self, work: F) -> R {
        work()
    }
}

/// Labels of futures.
pub mod asynchronous {
    /// A future that can carry labels.
    pub trait Label: Sized {
        /// The future under the labels that are in force now: itself.
        fn with_current_labels(self) -> Self {
            self
        }
    }

    impl<F: Future> Label for F {}
}
