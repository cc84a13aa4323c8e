//! What leader and follower say to each other. The first byte chooses the message. What is read is
//! written and read once more; and of events, a follower of an empty database takes what it would
//! take from a leader.

use std::fmt::Debug;

use prost::Message;
use slipstream_catalog::{Commit, DatabaseState};
use slipstream_model::{BucketId, DatabaseId, Digest};
use slipstream_proto::sync::{self, sync_event};

pub(crate) fn run(data: &[u8]) {
    let Some((choice, message)) = data.split_first() else {
        return;
    };
    match choice % 11 {
        0 => event(message),
        1 => written::<sync::SubscribeRequest>(message),
        2 => written::<sync::RenewLeaseRequest>(message),
        3 => written::<sync::RenewLeaseResponse>(message),
        4 => written::<sync::AttachFollowerRequest>(message),
        5 => written::<sync::AttachFollowerResponse>(message),
        6 => written::<sync::DetachFollowerRequest>(message),
        7 => written::<sync::DetachFollowerResponse>(message),
        8 => written::<sync::DescribeClusterRequest>(message),
        9 => written::<sync::DescribeClusterResponse>(message),
        _ => written::<sync::SyncEvent>(message),
    }
}

fn written<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        let again = M::decode(&message.encode_to_vec()[..]);
        assert_eq!(again.as_ref(), Ok(&message));
    }
}

fn event(bytes: &[u8]) {
    let Ok(event) = sync::SyncEvent::decode(bytes) else {
        return;
    };
    let state = DatabaseState::empty(BucketId::default(), DatabaseId::default());
    match event.event {
        Some(sync_event::Event::Commit(bytes)) => {
            if let Ok(commit) = Commit::decode(&bytes)
                && commit.version() > state.version()
            {
                let _ = state.apply(&commit);
            }
        }
        Some(sync_event::Event::Heartbeat(heartbeat)) => {
            let _ = Digest::from_slice(&heartbeat.digest);
        }
        _ => {}
    }
}
