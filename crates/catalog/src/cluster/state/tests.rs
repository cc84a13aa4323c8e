use super::*;
use crate::testing::{DATABASE, cluster, context, open};
use crate::{ClusterReader, ClusterWriter, CommitError};

fn name(name: &str) -> DatabaseName {
    DatabaseName::new(name).expect("a name")
}

fn create(id: DatabaseId, text: &str) -> ClusterOp {
    ClusterOp::CreateDatabase {
        id,
        name: name(text),
        if_not_exists: false,
    }
}

fn drop_database(text: &str) -> ClusterOp {
    ClusterOp::DropDatabase {
        name: name(text),
        if_exists: false,
    }
}

fn attach(follower_name: &str, configuration: &str, database_id: DatabaseId) -> ClusterOp {
    ClusterOp::AttachFollower(follower(follower_name, configuration, Some(database_id)))
}

fn follower(
    follower: &str,
    configuration: &str,
    database_id: Option<DatabaseId>,
) -> FollowerRecord {
    FollowerRecord {
        cluster: cluster(follower),
        configuration: configuration.to_owned(),
        database_id,
        sharing: Arc::default(),
        invitation: None,
        principal: None,
        attached_at: Timestamp::from_micros(7),
    }
}

fn detach(follower: &str, configuration: &str) -> ClusterOp {
    let configuration = configuration.to_owned();
    ClusterOp::DetachFollower {
        follower_cluster: cluster(follower),
        configuration,
    }
}

fn state(ops: &[ClusterOp]) -> Result<ClusterState, OpError> {
    ClusterState::empty(BucketId::default(), cluster("prod")).preview(ops)
}

fn id(number: u128) -> DatabaseId {
    DatabaseId::new(Uuid::from_u128(number))
}

#[test]
fn databases_come_and_go() {
    let after = state(&[create(id(1), "a"), create(id(2), "b"), drop_database("a")]).expect("ok");
    assert_eq!(after.databases().collect::<Vec<_>>(), [(&name("b"), id(2))]);
    assert_eq!(after.database_name(id(2)), Some(&name("b")));
    assert_eq!(after.database("a"), None);

    let twice = state(&[create(id(1), "a"), create(id(2), "a")]);
    assert_eq!(
        twice.expect_err("refused").to_string(),
        "database 'a' exists already"
    );
    assert!(state(&[create(id(1), "a"), create(id(1), "b")]).is_err());
    assert!(state(&[drop_database("a")]).is_err());
    let op = ClusterOp::DropDatabase {
        name: name("a"),
        if_exists: true,
    };
    assert!(state(&[op]).is_ok());
    let op = ClusterOp::CreateDatabase {
        id: id(3),
        name: name("a"),
        if_not_exists: true,
    };
    let kept = state(&[create(id(1), "a"), op]).expect("ok");
    assert_eq!(kept.database("a"), Some(id(1)));
}

#[test]
fn a_followed_database_stays_until_it_is_detached() {
    let followed = [
        create(id(1), "a"),
        attach("science", "x", id(1)),
        attach("bi", "x", id(1)),
        attach("bi", "y", id(1)),
    ];
    let state = state(&followed).expect("ok");
    let refused = state
        .preview(&[drop_database("a")])
        .expect_err("refused")
        .to_string();
    assert_eq!(
        refused,
        "database 'a' is followed by bi, science: detach it there first"
    );
    let detached = state
        .preview(&[detach("bi", "x"), detach("bi", "y"), detach("science", "x")])
        .expect("ok");
    assert!(detached.preview(&[drop_database("a")]).is_ok());
}

#[test]
fn attaching_again_does_nothing_and_elsewhere_is_refused() {
    let two = [
        create(id(1), "a"),
        create(id(2), "b"),
        attach("bi", "x", id(1)),
    ];
    let state = state(&two).expect("ok");
    assert_eq!(state.plan(attach("bi", "x", id(1))), Ok(vec![]));
    assert!(matches!(
        state.preview(&[attach("bi", "x", id(2))]),
        Err(OpError::ConfigurationExists { .. })
    ));
    assert!(matches!(
        state.preview(&[attach("bi", "z", id(9))]),
        Err(OpError::DatabaseNotFound(_))
    ));
    assert!(matches!(
        state.preview(&[detach("bi", "z")]),
        Err(OpError::ConfigurationNotFound { .. })
    ));
    assert_eq!(
        state
            .follower(&cluster("bi"), "x")
            .expect("attached")
            .database_id,
        Some(id(1))
    );
    assert_eq!(state.followers_of(id(2)).count(), 0);
}

#[tokio::test]
async fn the_catalog_is_read_back_and_its_older_writer_is_fenced() {
    let bucket = crate::testing::bucket().await;
    let older = ClusterWriter::open(bucket.clone(), context(2))
        .await
        .expect("opened");
    let ops = vec![create(DATABASE, "a"), attach("bi", "x", DATABASE)];
    older.commit(ops).await.expect("ok");
    // A database's log is another log.
    open(&bucket, 4).await.close().await;

    let newer = ClusterWriter::open(bucket.clone(), context(3))
        .await
        .expect("opened");
    let refused = older
        .commit(vec![create(id(9), "b")])
        .await
        .expect_err("fenced");
    assert!(matches!(refused, CommitError::Fenced { epoch } if epoch == Epoch::new(2)));
    newer.commit(vec![create(id(9), "b")]).await.expect("ok");
    newer.close().await;

    let reader = ClusterReader::new(bucket.reader().clone(), cluster("prod"));
    let read = reader
        .load()
        .await
        .expect("answered")
        .into_whole()
        .expect("whole");
    assert_eq!(
        (read.version(), read.digest()),
        (newer.state().version(), newer.state().digest())
    );
    assert_eq!(read.databases().count(), 2);
    assert_eq!(read.followers().count(), 1);
    let other = ClusterReader::new(bucket.reader().clone(), cluster("test"));
    assert_eq!(
        other.load().await.expect("answered").state.version(),
        Version::ZERO
    );
}

#[test]
fn a_configuration_that_changes_its_terms_keeps_its_place() {
    let first = follower("f", "c", Some(id(1)));
    let narrowed = FollowerRecord {
        sharing: Arc::new(TableLevelSharing {
            tables_to_include: vec!["a*".into()],
            ..TableLevelSharing::default()
        }),
        attached_at: Timestamp::from_micros(9),
        ..first.clone()
    };
    let before = state(&[create(id(1), "a"), ClusterOp::AttachFollower(first)]).expect("ok");
    let after = before
        .preview(&[ClusterOp::AttachFollower(narrowed.clone())])
        .expect("ok");
    assert_eq!(after.followers().collect::<Vec<_>>(), [&narrowed]);
    let other = FollowerRecord {
        database_id: None,
        ..narrowed
    };
    let error = after.preview(&[ClusterOp::AttachFollower(other)]);
    assert!(matches!(error, Err(OpError::ConfigurationExists { .. })));
}

#[test]
fn whoever_follows_all_databases_follows_those_created_later() {
    let all = ClusterOp::AttachFollower(follower("f", "all", None));
    let after = state(&[create(id(1), "a"), all, create(id(2), "b")]).expect("ok");
    assert_eq!(after.followers_of(id(2)).count(), 1);
    let error = after.preview(&[drop_database("b")]).expect_err("followed");
    assert!(error.to_string().contains("followed by f"), "{error}");
}

#[test]
fn an_invitation_is_there_until_it_is_revoked() {
    let invitation = InvitationRecord {
        database_id: id(1),
        token_sha256: Digest::of(b"secret"),
        sharing: Arc::default(),
        expires_at: Timestamp::from_micros(5),
        invitee: "ada".into(),
    };
    let number = Uuid::from_u128(77);
    let invite = ClusterOp::CreateInvitation {
        id: number,
        invitation: invitation.clone(),
    };
    let after = state(&[create(id(1), "a"), invite]).expect("ok");
    assert_eq!(
        after.invitations().collect::<Vec<_>>(),
        [(number, &invitation)]
    );
    let revoke = ClusterOp::RevokeInvitation { id: number };
    let after = after.preview(std::slice::from_ref(&revoke)).expect("ok");
    assert_eq!(after.invitations().len(), 0);
    let error = after.preview(&[revoke]).expect_err("gone");
    assert_eq!(error, OpError::InvitationNotFound(number));
}

#[tokio::test]
async fn a_dropped_database_is_remembered_with_its_name_and_when_that_was() {
    let context = context(1);
    let (clock, entropy) = (Arc::clone(&context.clock), context.entropy.clone());
    let bucket = BucketWriter::memory(clock, entropy).await;
    let writer = ClusterWriter::open(bucket.clone(), context).await;
    let writer = writer.expect("opened");
    let created = writer.commit(vec![create(id(1), "d"), create(id(2), "kept")]);
    created.await.expect("allowed");
    let dropped = writer.commit(vec![drop_database("d")]).await;
    let dropped = dropped.expect("allowed");
    writer.close().await;

    let reader = ClusterReader::new(bucket.reader().clone(), cluster("prod"));
    let read = reader.load().await.expect("answered").state;
    for state in [&dropped.state, &read] {
        let known: Vec<_> = state.dropped().collect();
        assert_eq!(known, [(id(1), &name("d"), dropped.version)]);
    }
    let at = reader.committed_at(dropped.version).await;
    assert_eq!(at.expect("answered"), dropped.state.committed_at());
}
