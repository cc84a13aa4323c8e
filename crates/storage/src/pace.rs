//! How fast the store answers, learnt from the requests that are made anyway.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::{GetResult, GetResultPayload, Result};
use slipstream_model::MovingMean;
use tokio::time::Instant;

/// A body that is shorter comes along with its first byte, and says nothing of the rate.
const RATE_BYTES_MIN: u64 = 256 << 10;

/// How fast a bucket answered lately: means in which old answers weigh less; `None` before the
/// first that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketPace {
    /// From a request to the first byte of its answer.
    pub first_byte: Option<Duration>,
    /// Bytes that the answer to one request then brings a second.
    pub bytes_per_second: Option<u64>,
}

/// Watches the answers of a store.
#[derive(Debug, Default)]
pub(crate) struct PaceMeter {
    first_byte_micros: MovingMean,
    bytes_per_second: MovingMean,
}

impl PaceMeter {
    pub(crate) fn pace(&self) -> BucketPace {
        BucketPace {
            first_byte: self.first_byte_micros.get().map(Duration::from_micros),
            bytes_per_second: self.bytes_per_second.get(),
        }
    }

    /// An answer has begun: watches its body to the end.
    pub(crate) fn watch(self: &Arc<Self>, first_byte: Duration, answer: GetResult) -> GetResult {
        self.note_first_byte(first_byte);
        let payload = match answer.payload {
            GetResultPayload::Stream(body) => GetResultPayload::Stream(self.watch_body(body)),
            // A file that is open: whoever reads it does so without this store.
            file => file,
        };
        GetResult { payload, ..answer }
    }

    fn watch_body(
        self: &Arc<Self>,
        body: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let watched = Watched {
            body,
            meter: Arc::clone(self),
            began: Instant::now(),
            bytes: 0,
        };
        stream::unfold(watched, |mut watched| async move {
            let chunk = watched.body.next().await;
            match &chunk {
                Some(Ok(bytes)) => watched.bytes += bytes.len() as u64,
                Some(Err(_)) => {}
                None => watched.end(),
            }
            chunk.map(|chunk| (chunk, watched))
        })
        .boxed()
    }

    /// One range came whole.
    pub(crate) fn note_range(&self, bytes: u64, took: Duration) {
        if bytes < RATE_BYTES_MIN {
            self.note_first_byte(took);
            return;
        }
        // What is known of the first byte may be more than this one took.
        let first_byte = self.pace().first_byte.unwrap_or_default();
        self.note_body(bytes, took.saturating_sub(first_byte).max(took / 2));
    }

    fn note_first_byte(&self, took: Duration) {
        self.first_byte_micros.note(micros(took));
    }

    fn note_body(&self, bytes: u64, took: Duration) {
        if bytes >= RATE_BYTES_MIN {
            let rate = bytes.saturating_mul(1_000_000) / micros(took).max(1);
            self.bytes_per_second.note(rate);
        }
    }
}

/// A body on its way.
struct Watched {
    body: BoxStream<'static, Result<Bytes>>,
    meter: Arc<PaceMeter>,
    began: Instant,
    bytes: u64,
}

impl Watched {
    fn end(&self) {
        self.meter.note_body(self.bytes, self.began.elapsed());
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use object_store::{Attributes, ObjectMeta};

    use super::*;

    fn answer(chunks: Vec<Result<Bytes>>) -> GetResult {
        let size = chunks
            .iter()
            .flatten()
            .map(|chunk| chunk.len() as u64)
            .sum();
        GetResult {
            payload: GetResultPayload::Stream(stream::iter(chunks).boxed()),
            meta: ObjectMeta {
                location: Path::from("a"),
                last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                size,
                e_tag: None,
                version: None,
            },
            range: 0..size,
            attributes: Attributes::default(),
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_watched_is_the_same_and_says_how_fast_it_came() {
        let meter = Arc::new(PaceMeter::default());
        assert_eq!(meter.pace(), BucketPace::default());
        let half = Bytes::from(vec![7; RATE_BYTES_MIN as usize / 2]);
        let chunks = vec![Ok(half.clone()), Ok(half.clone())];
        let watched = meter.watch(Duration::from_millis(30), answer(chunks));
        let bytes = watched.bytes().await.expect("whole");
        assert_eq!(bytes.len() as u64, RATE_BYTES_MIN);
        let pace = meter.pace();
        assert_eq!(pace.first_byte, Some(Duration::from_millis(30)));
        assert!(pace.bytes_per_second.is_some());
    }

    #[tokio::test]
    async fn a_short_body_and_one_that_breaks_off_say_nothing_of_the_rate() {
        let meter = Arc::new(PaceMeter::default());
        let short = answer(vec![Ok(Bytes::from_static(b"short"))]);
        let watched = meter.watch(Duration::from_millis(1), short);
        assert_eq!(watched.bytes().await.expect("whole").as_ref(), b"short");
        let long = Bytes::from(vec![7; RATE_BYTES_MIN as usize]);
        let broken = answer(vec![
            Ok(long),
            Err(object_store::Error::NotImplemented {
                operation: "the rest".into(),
                implementer: "the test".into(),
            }),
        ]);
        let watched = meter.watch(Duration::from_millis(1), broken);
        assert!(watched.bytes().await.is_err());
        assert_eq!(meter.pace().bytes_per_second, None);
    }

    #[test]
    fn a_range_is_a_first_byte_or_a_body() {
        let meter = PaceMeter::default();
        meter.note_range(1_000, Duration::from_millis(40));
        assert_eq!(
            meter.pace(),
            BucketPace {
                first_byte: Some(Duration::from_millis(40)),
                bytes_per_second: None,
            }
        );
        meter.note_range(10_000_000, Duration::from_millis(140));
        assert_eq!(meter.pace().bytes_per_second, Some(100_000_000));
        // Never faster than twice what was seen, whatever is known of the first byte.
        let other = PaceMeter::default();
        other.note_range(1_000, Duration::from_secs(9));
        other.note_range(1_000_000, Duration::from_secs(1));
        assert_eq!(other.pace().bytes_per_second, Some(2_000_000));
    }
}
