use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::*;

fn batch() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let words = (0..1_000).map(|n| format!("word {}", n % 7));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(words));
    RecordBatch::try_from_iter([("n", numbers), ("w", words)]).expect("valid")
}

fn stream(compression: Option<CompressionType>, batches: &[RecordBatch]) -> Vec<u8> {
    let options = IpcWriteOptions::default();
    let options = options.try_with_compression(compression).expect("known");
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new_with_options(&mut bytes, &batches[0].schema(), options)
        .expect("memory");
    for batch in batches {
        writer.write(batch).expect("memory");
    }
    writer.finish().expect("memory");
    bytes
}

const COMPRESSIONS: [Option<CompressionType>; 3] = [
    None,
    Some(CompressionType::LZ4_FRAME),
    Some(CompressionType::ZSTD),
];

#[test]
fn batches_come_as_they_were() {
    for compression in COMPRESSIONS {
        let batches = vec![batch(), batch().slice(3, 5), batch().slice(0, 0)];
        let bytes = stream(compression, &batches);
        let read = StreamBatches::open(&bytes[..]).expect("a stream");
        assert_eq!(read.schema(), batches[0].schema());
        let read: Vec<_> = read.collect::<Result<_, _>>().expect("whole");
        assert_eq!(read, batches, "{compression:?}");
    }
}

#[test]
fn a_stream_that_is_cut_off_gives_what_was_whole() {
    for compression in COMPRESSIONS {
        let bytes = stream(compression, &[batch(), batch()]);
        for length in (0..bytes.len()).step_by(61) {
            let Ok(read) = StreamBatches::open(&bytes[..length]) else {
                continue;
            };
            for found in read.map_while(Result::ok) {
                assert_eq!(found, batch());
            }
        }
    }
}

/// Where the lengths of compressed buffers stand: each is what it was before.
fn lengths(bytes: &[u8], length: i64) -> Vec<usize> {
    let windows = bytes.windows(8).enumerate();
    let found = windows.filter(|(_, window)| *window == length.to_le_bytes());
    found.map(|(at, _)| at).collect()
}

#[test]
fn what_a_buffer_says_of_its_size_is_looked_at_before_room_is_made() {
    for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let bytes = stream(Some(compression), &[batch()]);
        let places = lengths(&bytes, 8_000);
        assert!(!places.is_empty());
        for said in [1_i64 << 50, i64::MAX, -2, (1 << 30) + 1] {
            let mut bytes = bytes.clone();
            for at in &places {
                bytes[*at..*at + 8].copy_from_slice(&said.to_le_bytes());
            }
            let error = read(&bytes).expect_err("too much");
            let text = error.to_string();
            assert!(text.contains("1 GiB") || text.contains("nothing"), "{text}");
        }
    }
}

#[test]
fn a_message_that_says_more_than_comes_takes_no_room() {
    let whole = stream(None, &[batch()]);
    let length_at =
        |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().expect("four bytes"));
    // Behind the schema, which has no body.
    let head = 8 + length_at(4) as usize + 8;
    let message = &whole[head..head + length_at(head - 4) as usize];
    let body_length = root_as_message(message).expect("a batch").bodyLength();
    let places = lengths(message, body_length);
    assert_eq!(places.len(), 1);
    for said in [1_i64 << 50, i64::MAX, -1] {
        let mut bytes = whole.clone();
        let at = head + places[0];
        bytes[at..at + 8].copy_from_slice(&said.to_le_bytes());
        assert!(read(&bytes).is_err(), "{said}");
    }
    assert_eq!(read(&whole).expect("whole"), [batch()]);
}

fn read(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    StreamBatches::open(bytes)?.collect()
}
