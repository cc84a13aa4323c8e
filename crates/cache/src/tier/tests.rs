use slipstream_model::{DatabaseId, Digest, Timestamp};

use super::*;

const OWNER: &str = "follower 'a' of bucket 1";

fn wanted(bytes: &[u8]) -> HotExtent {
    HotExtent {
        database: DatabaseId::default(),
        extent: ExtentId::default(),
        size_bytes: bytes.len() as u64,
        sha256: Digest::of(bytes),
        max_created_on: Timestamp::default(),
    }
}

fn text(open: &OpenExtent) -> String {
    let mut bytes = vec![0; open.file.payload_bytes() as usize];
    open.file.read_at(0, &mut bytes).expect("whole");
    String::from_utf8(bytes).expect("text")
}

#[test]
fn what_is_here_survives_a_restart_and_what_is_unfinished_does_not() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("hot");
    let bytes = Bytes::from_static(b"rows");
    let tier = HotTier::open(path.clone(), OWNER).expect("usable");
    let kept = tier
        .insert(
            &wanted(&bytes),
            Form::Vortex,
            &Bytes::from_static(b"encoded"),
        )
        .expect("kept");
    std::fs::write(path.join(".unfinished-XYZ"), "half").expect("written");
    std::fs::write(path.join("notes.txt"), "somebody's").expect("written");
    drop(tier);
    let tier = HotTier::open(path.clone(), OWNER).expect("usable");
    assert_eq!(tier.holds(ExtentId::default()), Some(kept));
    assert_eq!(kept.sha256, Digest::of(b"rows"));
    let mut names: Vec<_> = std::fs::read_dir(&path)
        .expect("there")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    let extent = format!("{}.vortex", ExtentId::default());
    assert_eq!(names, [extent.as_str(), "notes.txt", OWNER_FILE]);

    let open = tier.open_extent(ExtentId::default()).expect("here");
    tier.evict(ExtentId::default());
    assert_eq!(tier.holds(ExtentId::default()), None);
    assert_eq!(text(&open), "encoded", "whoever has it open keeps it");
}

#[test]
fn another_form_takes_the_place_of_the_first() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().to_owned();
    let tier = HotTier::open(path.clone(), OWNER).expect("usable");
    for form in [Form::Parquet, Form::Vortex] {
        let payload = Bytes::from(form.to_string());
        tier.insert(&wanted(b"rows"), form, &payload).expect("kept");
        let open = tier.open_extent(ExtentId::default()).expect("here");
        assert_eq!((open.form, text(&open)), (form, form.to_string()));
    }
    assert_eq!(
        std::fs::read_dir(&path).expect("there").count(),
        2,
        "and the owner"
    );
}

#[test]
fn bytes_that_are_not_the_extents_do_not_enter() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().to_owned();
    let tier = Arc::new(HotTier::open(path.clone(), OWNER).expect("usable"));
    let insert = |bytes: &[u8]| {
        let mut insertion = tier.begin(wanted(b"rows"))?;
        for piece in bytes.chunks(3) {
            insertion.write(piece)?;
        }
        insertion.finish()
    };
    for wrong in [&b"rowz"[..], b"row", b"", b"rows and more"] {
        let refused = insert(wrong);
        assert!(
            matches!(refused, Err(TierError::Damaged { .. })),
            "{wrong:?}"
        );
    }
    assert_eq!(tier.holds(ExtentId::default()), None);
    let files = std::fs::read_dir(&path).expect("there").count();
    assert_eq!(files, 1, "the owner's, and no part of an extent");
    insert(b"rows").expect("the extent's");
    let open = tier.open_extent(ExtentId::default()).expect("here");
    assert_eq!((open.form, text(&open)), (Form::Parquet, "rows".to_owned()));
}

#[test]
fn a_file_that_was_cut_short_is_forgotten_when_it_is_opened_and_at_the_start() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().to_owned();
    for restarts in [false, true] {
        let mut tier = HotTier::open(path.clone(), OWNER).expect("usable");
        let bytes = Bytes::from_static(b"rows");
        tier.insert(&wanted(&bytes), Form::Parquet, &bytes)
            .expect("kept");
        let file = tier.path(ExtentId::default(), Form::Parquet);
        std::fs::write(&file, "ro").expect("written");
        if restarts {
            drop(tier);
            tier = HotTier::open(path.clone(), OWNER).expect("usable");
        } else {
            assert!(tier.open_extent(ExtentId::default()).is_none());
        }
        assert_eq!(tier.holds(ExtentId::default()), None);
        assert!(!file.exists());
    }
}

#[test]
fn a_directory_has_one_owner_and_one_process() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().to_owned();
    let tier = HotTier::open(path.clone(), OWNER).expect("usable");
    let busy = HotTier::open(path.clone(), OWNER).expect_err("it is open");
    assert!(matches!(busy, TierError::Busy { .. }), "{busy}");
    drop(tier);
    let foreign = HotTier::open(path.clone(), "follower 'b' of bucket 1").expect_err("another's");
    assert!(
        foreign.to_string().contains("follower 'a' of bucket 1"),
        "{foreign}"
    );
    drop(HotTier::open(path, OWNER).expect("it is still the first owner's"));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("file");
    std::fs::write(&path, "no directory").expect("written");
    let refused = HotTier::open(path.join("cache"), OWNER).expect_err("no directory");
    assert!(refused.to_string().contains("cache"), "{refused}");
}
