//! Work that computes or blocks, away from the threads that serve others.

use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use slipstream_frontend::ServiceError;
use slipstream_storage::blocking::{is_in_place, off_the_runtime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinError;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

/// Where a [`produce`]d stream's items go.
pub(crate) type Sender<T> = mpsc::Sender<Result<T, ServiceError>>;

/// Why a producer stops early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody listens any more, so there is nobody to tell either.
    Unwanted,
    /// The source is at fault.
    Failed(ServiceError),
}

impl From<ServiceError> for Stop {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error)
    }
}

/// Gives an item to whoever reads the stream; waits while it is full.
pub(crate) fn give<T>(sender: &Sender<T>, item: T) -> Result<(), Stop> {
    if is_in_place() {
        // The reader is on this very thread: waiting for it would be for ever.
        return sender.try_send(Ok(item)).map_err(|_| Stop::Unwanted);
    }
    sender.blocking_send(Ok(item)).map_err(|_| Stop::Unwanted)
}

/// The items that blocking work gives, with at most `ahead` of them waiting.
///
/// The stream ends well only when the work returned well. A decoder that panics over a damaged
/// file also closes the queue, and a queue that closes must not look like the end of the file:
/// half of it would be committed. `on_panic` says what a panic means.
pub(crate) fn produce<T: Send + 'static>(
    ahead: usize,
    on_panic: impl FnOnce(&JoinError) -> ServiceError + Send + 'static,
    work: impl FnOnce(&Sender<T>) -> Result<(), Stop> + Send + 'static,
) -> impl Stream<Item = Result<T, ServiceError>> + Send {
    let ahead = if is_in_place() {
        Semaphore::MAX_PERMITS
    } else {
        ahead
    };
    let (sender, items) = mpsc::channel(ahead);
    let worker = tokio::spawn(off_the_runtime(move || work(&sender)));
    let outcome = async move {
        match worker.await.flatten() {
            Ok(Ok(()) | Err(Stop::Unwanted)) => None,
            Ok(Err(Stop::Failed(error))) => Some(Err(error)),
            Err(error) => Some(Err(on_panic(&error))),
        }
    };
    let outcome = stream::once(outcome).filter_map(std::future::ready);
    ReceiverStream::new(items).chain(outcome)
}

/// Runs work that only uses the processor, as soon as one of the node's slots is free.
///
/// It is a task of its own: a slot that the semaphore hands over is used at once, even while
/// nobody polls the ingest, which may itself be waiting for the bucket. Slots that idle in one
/// ingest would stop all others.
pub(crate) async fn compute<T: Send + 'static>(
    slots: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServiceError> {
    let slots = Arc::clone(slots);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let slot = slots
            .acquire_owned()
            .await
            .map_err(|_| ServiceError::internal("the node is stopping"))?;
        let computed = off_the_runtime(move || {
            let computed = work();
            drop(slot);
            computed
        });
        computed.await.map_err(|error| died(&error))
    }));
    task.await.map_err(|error| died(&error))?
}

/// How many pieces of one ingest are computed at one time: one a core.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn died(error: &JoinError) -> ServiceError {
    ServiceError::internal(format!("ingestion failed: {error}. Nothing was ingested"))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn a_producer_that_panics_is_not_the_end_of_the_source() {
        let items = produce(4, died, |sender| {
            give(sender, 1)?;
            panic!("a decoder met what it did not expect");
        });
        let items: Vec<_> = items.collect().await;
        assert_eq!(items.len(), 2);
        assert!(items[0].is_ok() && items[1].is_err(), "{items:?}");
    }

    #[tokio::test]
    async fn a_failure_comes_after_what_went_well() {
        let items = produce(4, died, |sender| {
            give(sender, 1)?;
            Err(ServiceError::invalid("broken").into())
        });
        let error = items.try_collect::<Vec<_>>().await.expect_err("broken");
        assert_eq!(error.message(), "broken");
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_slot_back() {
        let slots = Arc::new(Semaphore::new(1));
        let failed = compute(&slots, || panic!("on purpose")).await;
        assert!(failed.map(|()| 0).is_err());
        assert_eq!(compute(&slots, || 7).await.expect("a free slot"), 7);
    }

    #[tokio::test]
    async fn a_slot_is_used_even_while_nobody_polls_for_the_outcome() {
        let slots = Arc::new(Semaphore::new(1));
        let held = Arc::clone(&slots).acquire_owned().await.expect("open");
        let mut waiting = Box::pin(compute(&slots, || 1));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        tokio::task::yield_now().await;
        drop(held);
        // `waiting` is first in the queue and is never polled again: it must not keep the slot.
        assert_eq!(compute(&slots, || 2).await.expect("a free slot"), 2);
        drop(waiting);
    }
}
