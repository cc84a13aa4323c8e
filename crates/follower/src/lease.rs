//! Tells the leader which versions this node still reads, or keeps.
//!
//! On a task and a connection of its own: a sync stream that is busy or stuck must never cost
//! the lease (SlateDB issue 1888).

use std::sync::Arc;
use std::time::Duration;

use slipstream_catalog::DatabaseState;
use slipstream_proto::sync::RenewLeaseRequest;
use slipstream_proto::sync::metadata_sync_client::MetadataSyncClient;
use tokio::sync::watch;
use tonic::Status;

use crate::following::{Following, Served};
use crate::link::{self, LeaderChannel};

/// The pause before a renewal that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// A lease is renewed this many times within its life, so that two renewals may be lost.
const RENEWALS_PER_LEASE: u32 = 3;
/// Between two renewals at least and at most, whatever a leader says of its leases.
const RENEWAL_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(600));

/// Renews the lease of a followed database for as long as it is followed. What is pinned is leased from the
/// start: a first synchronisation may take longer than the lease of a node's last process lives on.
pub(crate) async fn run(following: Arc<Following>) {
    let mut client = None;
    let mut changes = following.changes();
    loop {
        let mut is_served = following.served().state.is_some();
        if !is_served && following.lowest_needed(None).is_none() {
            // Nothing is read before the first synchronisation.
            first_synchronisation(&mut changes).await;
            is_served = true;
        }
        let pause = match renew(&following, &mut client).await {
            Ok(pause) => {
                if following.lease_failure.lock().take().is_some() {
                    tracing::info!(database = %following.source().database, "the lease is renewed again");
                }
                pause
            }
            Err(status) => {
                client = None;
                following.note_lease(None);
                note_failure(&following, &status);
                RETRY
            }
        };
        let jitter = 0.8 + 0.4 * following.context.entropy.fraction();
        tokio::select! {
            biased;
            () = following.context.clock.sleep(pause.mul_f64(jitter)) => {}
            () = following.renew.notified() => {}
            // Right after the first synchronisation the leader should know.
            () = first_synchronisation(&mut changes), if !is_served => {}
        }
    }
}

async fn first_synchronisation(changes: &mut watch::Receiver<Served>) {
    // It ends with what is followed, and so does this task.
    let _ = changes.wait_for(|served| served.state.is_some()).await;
}

async fn renew(
    following: &Following,
    client: &mut Option<MetadataSyncClient<LeaderChannel>>,
) -> Result<Duration, Status> {
    let served = following.served().state;
    let current = served.as_ref().map(DatabaseState::version);
    let client = match client {
        Some(client) => client,
        None => {
            let (source, dialer) = (following.source(), &following.context.dialer);
            let dialed = dialer.sync_client(&source.leader, &source.leader_url);
            client.insert(dialed.await?)
        }
    };
    let source = following.source();
    let Some(lowest) = following.lowest_needed(current) else {
        return Ok(RETRY);
    };
    let request = RenewLeaseRequest {
        follower: Some(following.context.node.identity(&source.configuration)),
        database_id: source.database_id.as_bytes().to_vec().into(),
        lowest_version: lowest.get(),
        current_version: current.unwrap_or_default().get(),
        sent_us: u64::try_from(following.context.clock.elapsed().as_micros()).unwrap_or(u64::MAX),
    };
    let answer = client
        .renew_lease(link::with_deadline(request))
        .await?
        .into_inner();
    following.note_lease(Some(lowest));
    let pause = Duration::from_millis(answer.lease_ttl_ms) / RENEWALS_PER_LEASE;
    Ok(pause.clamp(RENEWAL_PAUSE.0, RENEWAL_PAUSE.1))
}

fn note_failure(following: &Following, status: &Status) {
    let message = status.message().to_owned();
    let mut known = following.lease_failure.lock();
    if known.is_none() {
        tracing::warn!(
            database = %following.source().database,
            reason = %message,
            "the lease cannot be renewed; trying on"
        );
    }
    *known = Some(message);
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;
    use slipstream_model::Version;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::link::{Carrier, Dialer};
    use crate::tests::World;

    /// Tells of every connection that is asked for, and opens none.
    struct Asked(mpsc::UnboundedSender<String>);

    impl Carrier for Asked {
        fn open(&self, url: &str) -> BoxFuture<'static, std::io::Result<DuplexStream>> {
            self.0.send(url.to_owned()).expect("somebody listens");
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn the_leader_is_told_of_what_is_pinned_before_the_first_synchronisation() {
        let world = World::new().await;
        let (asked, mut asks) = mpsc::unbounded_channel();
        let mut context = world.context();
        context.dialer = Dialer::over(Arc::new(Asked(asked)));
        let following = Following::new(world.source(), Some(Version::new(2)), context);
        let renewing = tokio::time::timeout(Duration::from_secs(10), run(Arc::new(following)));
        tokio::select! {
            biased;
            asked = asks.recv() => assert!(asked.is_some()),
            _ = renewing => panic!("the leader was not asked"),
        }
    }
}
