use slipstream_model::ManualClock;

use super::*;

fn new(principal: &str) -> NewToken {
    NewToken {
        principal: principal.parse().expect("a principal"),
        groups: Vec::new(),
        cluster_roles: [ClusterRole::AllDatabasesViewer].into(),
        expires_in: None,
        notes: String::new(),
    }
}

struct Node {
    clock: Arc<ManualClock>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn node() -> Node {
    let directory = tempfile::tempdir().expect("temporary directory");
    Node {
        clock: Arc::new(ManualClock::new(Timestamp::from_micros(0))),
        path: directory.path().join("tokens.json"),
        _directory: directory,
    }
}

impl Node {
    fn tokens(&self) -> Tokens {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Tokens::open(self.path.clone(), clock).expect("readable")
    }

    fn add(&self, new: NewToken) -> (TokenRecord, String) {
        let mut file = TokenFile::read(&self.path)
            .expect("readable")
            .unwrap_or_default();
        let added = file.add(new, self.clock.now()).expect("room");
        file.write(&self.path).expect("writable");
        added
    }
}

#[test]
fn a_token_says_who_comes_and_its_secret_is_written_nowhere() {
    let node = node();
    let (record, secret) = node.add(new("aaduser=ada"));
    let text = std::fs::read_to_string(&node.path).expect("readable");
    assert!(text.contains(&record.sha256.to_string()) && !text.contains(&secret));

    let caller = node.tokens().authenticate(Some(&secret)).expect("known");
    assert_eq!(caller.principal.as_str(), "aaduser=ada");
    assert!(caller.has(ClusterRole::AllDatabasesViewer));
}

#[test]
fn without_a_file_everybody_on_this_machine_is_let_in() {
    let node = node();
    let tokens = node.tokens();
    assert!(!tokens.are_required());
    let caller = tokens.authenticate(None).expect("open");
    assert_eq!(*caller, Caller::local());
}

#[test]
fn wrong_missing_revoked_and_expired_tokens_are_refused() {
    let node = node();
    let (record, revoked) = node.add(new("aaduser=ada"));
    let (_, expiring) = node.add(NewToken {
        expires_in: Some(Duration::from_secs(60)),
        ..new("aaduser=bob")
    });
    let tokens = node.tokens();
    for wrong in [None, Some(""), Some("x"), Some(&revoked[1..])] {
        let error = tokens.authenticate(wrong).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{wrong:?}");
    }
    assert!(tokens.authenticate(Some(&revoked)).is_ok());
    assert!(tokens.authenticate(Some(&expiring)).is_ok());

    let mut file = TokenFile::read(&node.path).expect("readable").expect("one");
    assert!(file.remove(&record.id) && !file.remove(&record.id));
    file.write(&node.path).expect("writable");
    node.clock.advance(Duration::from_secs(61));
    assert!(tokens.authenticate(Some(&revoked)).is_err(), "revoked");
    assert!(tokens.authenticate(Some(&expiring)).is_err(), "expired");
}

#[test]
fn a_damaged_or_removed_file_opens_nothing() {
    let node = node();
    let (_, secret) = node.add(new("aaduser=ada"));
    let tokens = node.tokens();
    std::fs::write(&node.path, "{").expect("writable");
    node.clock.advance(Duration::from_secs(2));
    assert!(tokens.authenticate(Some(&secret)).is_ok());
    assert!(tokens.authenticate(None).is_err());
    std::fs::remove_file(&node.path).expect("there");
    node.clock.advance(Duration::from_secs(2));
    assert!(tokens.authenticate(None).is_err());
    std::fs::write(&node.path, "{").expect("writable");
    let clock = Arc::clone(&node.clock) as Arc<dyn Clock>;
    assert!(Tokens::open(node.path.clone(), clock).is_err());
}
