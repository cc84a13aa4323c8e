//! How long a query may take.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use slipstream_model::Clock;
use tokio::time::timeout;

use crate::{QueryError, QueryErrorKind};

/// The end of a query's time, which began when it came.
#[derive(Clone)]
pub(crate) struct Deadline {
    clock: Arc<dyn Clock>,
    began: Duration,
    allowed: Duration,
}

impl Deadline {
    pub(crate) fn new(clock: Arc<dyn Clock>, allowed: Duration) -> Self {
        let began = clock.elapsed();
        Self {
            clock,
            began,
            allowed,
        }
    }

    /// What is left; zero when the time is over.
    pub(crate) fn remaining(&self) -> Duration {
        self.allowed
            .saturating_sub(self.clock.elapsed().saturating_sub(self.began))
    }

    /// Waits for something, but not past the end.
    pub(crate) async fn hold<F: Future>(&self, future: F) -> Result<F::Output, QueryError> {
        timeout(self.remaining(), future)
            .await
            .map_err(|_| self.exceeded())
    }

    /// Says that the time is over, if it is.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        if self.remaining().is_zero() {
            Err(self.exceeded())
        } else {
            Ok(())
        }
    }

    fn exceeded(&self) -> QueryError {
        let message = format!(
            "the query took longer than the {:?} it may take: ask for less, or allow it more time",
            self.allowed
        );
        QueryError::new(QueryErrorKind::DeadlineExceeded, message)
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline")
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use slipstream_model::{ManualClock, Timestamp};

    use super::*;

    #[tokio::test]
    async fn time_that_has_passed_is_not_given_again() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let deadline = Deadline::new(
            Arc::clone(&clock) as Arc<dyn Clock>,
            Duration::from_millis(30),
        );
        clock.advance(Duration::from_millis(20));
        assert_eq!(deadline.remaining(), Duration::from_millis(10));
        deadline.check().expect("some is left");
        clock.advance(Duration::from_millis(20));
        let error = deadline.check().expect_err("it is over");
        assert_eq!(error.kind(), QueryErrorKind::DeadlineExceeded);
        deadline
            .hold(std::future::pending::<()>())
            .await
            .expect_err("at once");
    }
}
