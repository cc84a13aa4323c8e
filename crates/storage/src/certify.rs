//! Whether a store keeps the promise that commits rest on.
//!
//! Some stores that speak S3 accept `If-None-Match: *` and ignore it: two leaders would both
//! "win". So a starting leader races itself for a fresh key, and refuses to run unless exactly
//! one of its attempts is told that it won, and that one's bytes are there.

use bytes::Bytes;
use futures::future::join_all;

use crate::{BucketPath, BucketWriter, StorageError, StorageErrorKind};

/// How many attempts race. Eight were enough to make a store that loses this race lose it every
/// time (SeaweedFS issue 8800).
const RACERS: usize = 8;

pub(crate) async fn certify(bucket: &BucketWriter) -> Result<(), StorageError> {
    let path = BucketPath::certification(bucket.entropy().uuid());
    let entry = |racer: usize| Bytes::from(format!("racer {racer}"));
    let race = (0..RACERS).map(|racer| bucket.create_once(&path, entry(racer)));
    let outcomes = join_all(race).await;

    let winners: Vec<usize> = (0..RACERS)
        .filter(|racer| outcomes[*racer].is_ok())
        .collect();
    let late = bucket.create_once(&path, Bytes::from_static(b"late")).await;
    let found = bucket.try_get(&path).await?;
    if let Err(error) = bucket.remove_probe(&path).await {
        tracing::debug!(%error, %path, "could not remove the certification probe");
    }

    let complain = |what: String| {
        let message = format!(
            "the store of {} cannot hold a log: {what}. A commit needs a store where creating an \
             object that exists fails",
            bucket.name()
        );
        Err(StorageError::new(StorageErrorKind::Uncertified, message))
    };
    match winners[..] {
        [] => {
            let failure = outcomes.into_iter().find_map(Result::err);
            let failure = failure.expect("nobody won, so somebody failed");
            Err(StorageError::from_store(
                "create",
                &bucket.describe(&path),
                failure,
            ))
        }
        [_, _, ..] => complain(format!(
            "{} of {RACERS} racing creates succeeded",
            winners.len()
        )),
        [_] if late.is_ok() => complain("an object was created twice".to_owned()),
        [winner] if found.as_ref() != Some(&entry(winner)) => {
            complain("the object of the racer that won is not there".to_owned())
        }
        [_] => Ok(()),
    }
}
