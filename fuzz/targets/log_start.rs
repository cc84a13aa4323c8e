//! Starts of a log, in a bucket as somebody can write them who can write the bucket: frames are whole,
//! and the ids are the bucket's and the log's.
//!
//! An input is some starts, one behind the other, each with its length in front in two bytes: number 0
//! first. What is no start is written as it is.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use prost::Message;
use slipstream_catalog::{DatabaseReader, LogStart};
use slipstream_model::{DatabaseId, Entropy, ManualClock, Timestamp, Version};
use slipstream_proto::log as proto;
use slipstream_storage::{BucketPath, BucketWriter, frame};
use tokio::runtime::{Builder, Runtime};

const START_MAGIC: &[u8; 8] = b"SLPBEG01";
const STARTS_MAX: u64 = 8;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

pub(crate) fn run(data: &[u8]) {
    RUNTIME.block_on(read(data));
}

/// A bucket of always the same id.
async fn bucket() -> BucketWriter {
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
    BucketWriter::memory(clock, Entropy::from_seed(1)).await
}

async fn read(mut data: &[u8]) {
    let (bucket, database) = (bucket().await, DatabaseId::default());
    for number in 0..STARTS_MAX {
        let Some((length, rest)) = data.split_first_chunk() else {
            break;
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let (start, rest) = rest.split_at(length.min(rest.len()));
        data = rest;
        let object = match proto::LogStart::decode(start) {
            Err(_) => Bytes::copy_from_slice(start),
            Ok(mut start) => {
                start.bucket_id = Bytes::copy_from_slice(bucket.reader().id().as_bytes());
                start.log_id = Bytes::copy_from_slice(database.as_bytes());
                frame::seal(START_MAGIC, &start.encode_to_vec())
            }
        };
        let path = BucketPath::log_start(database, number);
        bucket.put(&path, object).await.expect("memory takes it");
    }

    // Nothing but starts is there: a log that begins later leads to a checkpoint that is lost.
    let reader = DatabaseReader::new(bucket.reader().clone(), database);
    let loaded = reader.load().await;
    let Ok(Some(start)) = LogStart::newest(bucket.reader(), database).await else {
        return;
    };
    assert!(
        loaded.is_err(),
        "there is no checkpoint at {}",
        start.version
    );
    let _ = start.version_before(bucket.reader(), database).await;
    let openings = start.epochs.iter().map(|opened| opened.version);
    assert!(
        openings
            .into_iter()
            .all(|version| start.is_opening(version))
    );
    write(start, database).await;
}

/// What was read is written to another bucket, and read there.
async fn write(mut start: LogStart, database: DatabaseId) {
    let copy = bucket().await;
    start.number = 0;
    let created = start.create(&copy, database).await;
    assert_eq!(created.expect("memory takes it"), start);
    let again = LogStart::newest(copy.reader(), database).await;
    assert_eq!(
        again.expect("this program reads what it wrote"),
        Some(start)
    );
    let first = BucketPath::database_commit(database, Version::FIRST);
    assert!(
        copy.reader()
            .try_get(&first)
            .await
            .expect("memory answers")
            .is_none()
    );
}
