use proptest::prelude::*;

use super::*;

fn source() -> Source {
    Source {
        size_bytes: 7,
        sha256: Digest::of(b"extent"),
    }
}

/// A payload in which every byte tells where it is.
fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn written(payload: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("file");
    let mut file = File::create(&path).expect("made");
    let mut writer = CheckedWriter::new(&mut file);
    // In pieces that end anywhere.
    for piece in payload.chunks(10_007) {
        writer.write(piece).expect("written");
    }
    let (_, bytes) = writer.finish(&source()).expect("written");
    assert_eq!(bytes, file_bytes(payload.len() as u64));
    assert_eq!(std::fs::metadata(&path).expect("there").len(), bytes);
    (directory, path)
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path);
    let file = file.expect("writable");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("readable");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

#[test]
fn an_empty_payload_is_whole() {
    let (_directory, path) = written(&[]);
    let file = CheckedFile::open(path).expect("whole");
    assert_eq!((file.payload_bytes(), file.source()), (0, source()));
    file.read_at(0, &mut []).expect("nothing is there");
    assert!(file.read_at(0, &mut [0]).is_err());
}

#[test]
fn a_file_of_any_shorter_length_is_not_whole() {
    let payload = payload(BLOCK_BYTES as usize + 100);
    let (_directory, path) = written(&payload);
    let length = file_bytes(payload.len() as u64);
    for kept in [
        0,
        1,
        TRAILER_BYTES - 1,
        TRAILER_BYTES,
        length / 2,
        length - 1,
    ] {
        let whole = std::fs::read(&path).expect("readable");
        let cut = path.with_extension("cut");
        std::fs::write(&cut, &whole[..kept as usize]).expect("written");
        assert!(
            matches!(
                CheckedFile::open(cut),
                Err(CheckedFileError::Damaged { .. })
            ),
            "{kept} bytes"
        );
    }
}

#[test]
fn a_flip_in_hashes_or_trailer_is_noticed_at_once() {
    let length = BLOCK_BYTES as usize + 100;
    for at in length as u64..file_bytes(length as u64) {
        let (_directory, path) = written(&payload(length));
        flip(&path, at);
        assert!(CheckedFile::open(path).is_err(), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_is_what_was_written(
        length in 1_usize..300_000,
        from in 0.0..1.0_f64,
        share in 0.0..1.0_f64,
    ) {
        let payload = payload(length);
        let (_directory, path) = written(&payload);
        let file = CheckedFile::open(path).expect("whole");
        let from = (length as f64 * from) as usize;
        let wanted = ((length - from) as f64 * share) as usize;
        let mut into = vec![0; wanted];
        file.read_at(from as u64, &mut into).expect("readable");
        prop_assert_eq!(&into, &payload[from..from + wanted]);
    }

    #[test]
    fn a_flipped_bit_is_noticed_by_whoever_reads_near_it_and_by_nobody_else(
        at in 0_u64..300_000,
    ) {
        let payload = payload(300_000);
        let (_directory, path) = written(&payload);
        flip(&path, at);
        let file = CheckedFile::open(path).expect("the payload is not looked at");
        let (mut here, mut all) = ([0], vec![0; payload.len()]);
        prop_assert!(file.read_at(at, &mut here).is_err());
        prop_assert!(file.read_at(0, &mut all).is_err());
        let elsewhere = (at + 2 * BLOCK_BYTES) % 300_000;
        let is_same_block = elsewhere / BLOCK_BYTES == at / BLOCK_BYTES;
        prop_assert_eq!(file.read_at(elsewhere, &mut here).is_err(), is_same_block);
    }
}
