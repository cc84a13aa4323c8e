//! Checkpoints and garbage ledgers, in a bucket as somebody can write them who can write the bucket:
//! frames are whole, and names are the digests of what they name.
//!
//! An input is a root, a segment and a ledger, one behind the other; of the first two the length
//! stands in front, in two bytes.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use prost::Message;
use slipstream_catalog::{DatabaseReader, DatabaseState, GarbageLedger};
use slipstream_model::{DatabaseId, Digest, Entropy, ManualClock, Timestamp, Version};
use slipstream_proto::log as proto;
use slipstream_storage::{BucketPath, BucketWriter, frame};
use tokio::runtime::{Builder, Runtime};

const ROOT_MAGIC: &[u8; 8] = b"SLPCKR01";
const SEGMENT_MAGIC: &[u8; 8] = b"SLPCKS01";
const NEWEST_MAGIC: &[u8; 8] = b"SLPCKN01";
const LEDGER_MAGIC: &[u8; 8] = b"SLPGRB01";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

pub(crate) fn run(data: &[u8]) {
    let (root, rest) = part(data);
    let (segment, ledger) = part(rest);
    RUNTIME.block_on(read(root, segment, ledger));
}

/// What the first two bytes count, and what is left.
fn part(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else {
        return (data, &[]);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    rest.split_at(length.min(rest.len()))
}

/// A bucket of always the same id.
async fn bucket() -> BucketWriter {
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
    BucketWriter::memory(clock, Entropy::from_seed(1)).await
}

async fn put(bucket: &BucketWriter, path: &BucketPath, object: &Bytes) {
    let put = bucket.put(path, object.clone()).await;
    put.expect("memory takes it");
}

async fn read(root: &[u8], segment: &[u8], ledger: &[u8]) {
    let bucket = bucket().await;
    let (bucket_id, database) = (bucket.reader().id(), DatabaseId::default());
    let id = |bytes: &[u8]| Bytes::copy_from_slice(bytes);

    let segment = frame::seal(SEGMENT_MAGIC, segment);
    let name = Digest::of(&segment);
    let segment_path = BucketPath::checkpoint_segment(database, name);
    put(&bucket, &segment_path, &segment).await;
    let (object, version, digest) = match proto::CheckpointRoot::decode(root) {
        Err(_) => (Bytes::copy_from_slice(root), 1, Bytes::new()),
        Ok(mut root) => {
            let tables = root.tables.iter_mut();
            for reference in tables.flat_map(|table| &mut table.segments) {
                reference.sha256 = id(name.as_bytes());
            }
            root.bucket_id = id(bucket_id.as_bytes());
            root.log_id = id(database.as_bytes());
            let object = frame::seal(ROOT_MAGIC, &root.encode_to_vec());
            (object, root.version, root.digest)
        }
    };
    let at = Version::new(version);
    put(&bucket, &BucketPath::checkpoint_root(database, at), &object).await;
    let newest = proto::NewestCheckpoint { version }.encode_to_vec();
    let newest = frame::seal(NEWEST_MAGIC, &newest);
    put(&bucket, &BucketPath::checkpoint_newest(database), &newest).await;
    let object = match proto::GarbageLedger::decode(ledger) {
        Err(_) => Bytes::copy_from_slice(ledger),
        Ok(mut ledger) => {
            ledger.bucket_id = id(bucket_id.as_bytes());
            ledger.log_id = id(database.as_bytes());
            ledger.version = version;
            ledger.digest = digest;
            frame::seal(LEDGER_MAGIC, &ledger.encode_to_vec())
        }
    };
    put(&bucket, &BucketPath::garbage_ledger(database), &object).await;

    let reader = DatabaseReader::new(bucket.reader().clone(), database);
    let loaded = reader.load().await.expect("memory answers");
    look_at(&loaded.state);
    let ledger = GarbageLedger::load(bucket.reader(), database).await;
    write(ledger.expect("memory answers"), &segment_path, &segment).await;
}

/// What was read is written to another bucket, and read there.
async fn write(mut ledger: GarbageLedger, segment_path: &BucketPath, segment: &Bytes) {
    let copy = bucket().await;
    // It is known to be there, so it is not written.
    put(&copy, segment_path, segment).await;
    ledger.store(&copy).await.expect("memory takes it");
    let reader = DatabaseReader::new(copy.reader().clone(), DatabaseId::default());
    let again = reader.read_checkpoint(ledger.state().version()).await;
    let again = again.expect("this program reads what it wrote");
    assert_eq!(summary(&again), summary(ledger.state()));
    let known = GarbageLedger::load(copy.reader(), DatabaseId::default()).await;
    let known = known.expect("memory answers");
    assert_eq!(known.removals(), ledger.removals());
}

fn summary(state: &DatabaseState) -> Vec<(String, u64, u64)> {
    let tables = state.tables();
    let told = tables.map(|table| {
        let extents = &table.extents;
        (table.name.to_string(), extents.len(), extents.row_count())
    });
    told.collect()
}

/// What a query and a cache ask of a database.
fn look_at(state: &DatabaseState) {
    for table in state.tables() {
        for block in table.extents.blocks() {
            for column in table.schema.columns() {
                let _ = block.summary(column.id);
            }
            for slot in block.live_slots() {
                let _ = block.extent(slot);
            }
        }
    }
}
