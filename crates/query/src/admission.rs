//! How many queries run, and how many may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::{QueryError, QueryErrorKind};

/// Lets queries in, first come, first served.
#[derive(Debug)]
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    running_max: usize,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// The right to run. Dropping it lets the next query in.
#[derive(Debug)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    pub(crate) fn new(running_max: usize, waiting_max: usize) -> Self {
        let running = Arc::new(Semaphore::new(running_max.min(Semaphore::MAX_PERMITS)));
        Self {
            running,
            running_max,
            waiting: AtomicUsize::new(0),
            waiting_max,
        }
    }

    /// How many could run now.
    pub(crate) fn free(&self) -> usize {
        self.running.available_permits()
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// When too many wait already, or the time is over.
    pub(crate) async fn admit(&self, remaining: Duration) -> Result<Slot, QueryError> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(Slot(permit));
        }
        let _place = Place::take(self)?;
        let acquired = timeout(remaining, Arc::clone(&self.running).acquire_owned()).await;
        match acquired {
            Ok(Ok(permit)) => Ok(Slot(permit)),
            Ok(Err(_)) => Err(QueryError::new(
                QueryErrorKind::Cancelled,
                "the node shuts down",
            )),
            Err(_) => Err(QueryError::new(
                QueryErrorKind::DeadlineExceeded,
                format!(
                    "the query waited until its deadline while {} others ran: try again later, \
                     or allow it more time",
                    self.running_max
                ),
            )),
        }
    }
}

/// A place in the queue, given up when the wait ends in whatever way.
struct Place<'a>(&'a Admission);

impl<'a> Place<'a> {
    fn take(admission: &'a Admission) -> Result<Self, QueryError> {
        let waiting = admission.waiting.fetch_add(1, Ordering::SeqCst);
        let place = Self(admission);
        if waiting < admission.waiting_max {
            return Ok(place);
        }
        let message = format!(
            "{} queries run and {} wait, which is all this node takes: try again later",
            admission.running_max, admission.waiting_max
        );
        Err(QueryError::new(QueryErrorKind::Overloaded, message))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Duration {
        Duration::from_secs(60)
    }

    #[tokio::test]
    async fn the_one_too_many_is_refused_and_the_others_wait() {
        let admission = Arc::new(Admission::new(1, 1));
        let first = admission.admit(soon()).await.expect("free");
        let waiter = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.admit(soon()).await.map(drop) }
        });
        while admission.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let error = admission.admit(soon()).await.expect_err("full");
        assert_eq!(error.kind(), QueryErrorKind::Overloaded);
        drop(first);
        waiter.await.expect("no panic").expect("admitted");
        admission.admit(soon()).await.expect("free again");
    }

    #[tokio::test]
    async fn waiting_counts_against_the_deadline() {
        let admission = Admission::new(1, 1);
        let _first = admission.admit(soon()).await.expect("free");
        let error = admission
            .admit(Duration::from_millis(1))
            .await
            .expect_err("never free");
        assert_eq!(error.kind(), QueryErrorKind::DeadlineExceeded);
        assert_eq!(admission.waiting.load(Ordering::SeqCst), 0);
    }
}
