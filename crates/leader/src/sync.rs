//! `MetadataSync`: tells followers of commits as they happen.
//!
//! This is the fast path only. Everything said here stands in the bucket already, and a follower
//! that misses a message reads it there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use slipstream_catalog::{
    Commit, Committed, DatabaseReader, DatabaseState, DatabaseWriter, FollowerRecord, Redactor,
};
use slipstream_frontend::{AuthorizedEngine, ErrorKind, ServiceError, caller_of, visitor_of};
use slipstream_model::{BucketId, DatabaseId, Digest, Version};
use slipstream_proto::sync::metadata_sync_server::MetadataSync;
use slipstream_proto::sync::{
    CheckpointReference, FollowerIdentity, Heartbeat, RenewLeaseRequest, RenewLeaseResponse,
    SubscribeRequest, SyncEvent, Welcome, sync_event,
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::leases::{Lease, LeaseError};

/// A follower that hears nothing for three of these takes the leader for silent.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A follower of everything that is further behind than this reads a checkpoint from the bucket,
/// instead of each commit from the leader: a checkpoint is made every 64 commits, so it is never
/// much further. One with filters is sent commits whatever the distance, as long as they are kept: a
/// checkpoint names what it may not see.
const CATCH_UP_COMMITS_MAX: u64 = 256;
/// Commits that are read ahead for a follower that catches up: enough to hide the way to the
/// bucket, and few enough to hold when each is as large as commits get.
const CATCH_UP_READ_AHEAD: usize = 8;
/// Events that wait for a follower that reads slowly. A full channel holds back this follower's
/// task alone; the broadcast behind it then drops commits, which are read from the bucket.
const EVENT_QUEUE: usize = 64;

/// The service.
#[derive(Debug, Clone)]
pub struct SyncService {
    cluster: Arc<Cluster>,
}

impl SyncService {
    /// Serves the databases of a cluster.
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

#[tonic::async_trait]
impl MetadataSync for SyncService {
    type SubscribeStream = BoxStream<'static, Result<SyncEvent, Status>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let visitor = visitor_of(&request)?;
        let request = request.into_inner();
        let follower = request.follower.unwrap_or_default();
        let database = parse_database(&request.database_id)?;
        check_bucket(&self.cluster, &request.bucket_id)?;
        self.cluster.check_sight().map_err(status)?;
        let record = self
            .cluster
            .attached(&follower, database, visitor.caller())?;
        let writer = self.cluster.writer(database).map_err(status)?;
        let subscription = writer.subscribe();
        let position = Position {
            version: Version::new(request.from_version),
            digest: Digest::from_slice(&request.from_digest).unwrap_or_default(),
        };
        check_position(&position, &subscription.state)?;

        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let stream = Stream {
            cluster: Arc::clone(&self.cluster),
            reader: DatabaseReader::new(self.cluster.bucket().reader().clone(), database),
            database,
            follower,
            visitor,
            record,
            writer,
            sender,
        };
        self.cluster.tasks().spawn(stream.run(
            position.version,
            subscription.state,
            subscription.commits,
        ));
        Ok(Response::new(ReceiverStream::new(events).boxed()))
    }

    async fn renew_lease(
        &self,
        request: Request<RenewLeaseRequest>,
    ) -> Result<Response<RenewLeaseResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let follower = request.follower.unwrap_or_default();
        let database = parse_database(&request.database_id)?;
        self.cluster.attached(&follower, database, &caller)?;
        // A lease holds at the leader that deletes: whoever is refused here looks for that one.
        self.cluster.check_not_fenced().map_err(status)?;
        self.cluster.check_sight().map_err(status)?;
        let writer = self.cluster.writer(database);
        if writer.is_ok_and(|writer| writer.is_fenced()) {
            return Err(fenced(&self.cluster));
        }
        let node = Uuid::from_slice(&follower.node_id)
            .map_err(|_| Status::invalid_argument("a node id has 16 bytes"))?;
        let lease = Lease {
            database,
            follower_cluster: follower.cluster,
            configuration: follower.configuration,
            node,
            lowest_version: Version::new(request.lowest_version),
            current_version: Version::new(request.current_version),
            renewed_at: Default::default(),
            expires_at: Default::default(),
        };
        let sent = Duration::from_micros(request.sent_us);
        let renewed = self.cluster.leases().renew(lease, sent);
        renewed.map_err(|error| match error {
            LeaseError::TooMany => Status::resource_exhausted(error.to_string()),
            LeaseError::Overtaken => Status::aborted(error.to_string()),
        })?;
        let ttl = self.cluster.leases().ttl();
        let lease_ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(RenewLeaseResponse { lease_ttl_ms }))
    }
}

/// Where a follower stands.
struct Position {
    version: Version,
    digest: Digest,
}

fn parse_database(bytes: &[u8]) -> Result<DatabaseId, Status> {
    DatabaseId::from_slice(bytes)
        .ok_or_else(|| Status::invalid_argument("a database id has 16 bytes"))
}

pub(crate) fn check_bucket(cluster: &Cluster, bytes: &[u8]) -> Result<(), Status> {
    let theirs = BucketId::from_slice(bytes)
        .ok_or_else(|| Status::invalid_argument("a bucket id has 16 bytes"))?;
    let ours = cluster.bucket().id();
    if theirs == ours {
        return Ok(());
    }
    let message = format!(
        "the follower reads bucket {theirs}, and cluster '{}' writes bucket {ours}: start the \
         follower with the leader's --bucket",
        cluster.name()
    );
    let error = ServiceError::new(ErrorKind::Conflict, "bucket_mismatch", message);
    Err(error.into())
}

fn fenced(cluster: &Cluster) -> Status {
    let message = format!(
        "cluster '{}' was fenced: another leader has opened this database",
        cluster.name()
    );
    ServiceError::new(ErrorKind::Fenced, "fenced", message).into()
}

pub(crate) fn status(error: ServiceError) -> Status {
    error.into()
}

fn check_position(follower: &Position, leader: &DatabaseState) -> Result<(), Status> {
    if follower.version > leader.version() {
        return Err(Status::out_of_range(format!(
            "the follower has version {}, and the leader only {}: they do not share a history",
            follower.version,
            leader.version()
        )));
    }
    if follower.version == leader.version() && follower.digest != leader.digest() {
        return Err(Status::data_loss(format!(
            "at version {} the follower has digest {} and the leader {}: their histories differ",
            follower.version,
            follower.digest,
            leader.digest()
        )));
    }
    Ok(())
}

/// One follower's stream.
struct Stream {
    cluster: Arc<Cluster>,
    reader: DatabaseReader,
    database: DatabaseId,
    /// Who follows, and who says so.
    follower: FollowerIdentity,
    visitor: AuthorizedEngine,
    /// The attachment that the follower came by; when it changes, the stream ends.
    record: FollowerRecord,
    writer: DatabaseWriter,
    sender: mpsc::Sender<Result<SyncEvent, Status>>,
}

/// The follower hung up, or has been told why the stream ends.
struct Ended;

impl Stream {
    async fn run(
        self,
        from: Version,
        state: DatabaseState,
        commits: broadcast::Receiver<Committed>,
    ) {
        let shutdown = self.cluster.shutdown().clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = self.tell(from, state, commits) => {}
        }
    }

    async fn tell(
        &self,
        from: Version,
        state: DatabaseState,
        mut commits: broadcast::Receiver<Committed>,
    ) -> Result<(), Ended> {
        let mut redactor = Redactor::new(Arc::clone(&self.record.sharing));
        self.welcome(&state).await?;
        let mut told = self.catch_up(from, &state, &mut redactor).await?;
        let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // The beat first: it is rare, and many commits must not keep it from its turn.
            tokio::select! {
                biased;
                _ = heartbeat.tick() => {
                    self.check_attached().await?;
                    if let Err(error) = self.cluster.check_sight() {
                        return self.end(error.into()).await;
                    }
                    // A follower that hears of a version without having been sent its commit reads
                    // it from the bucket, where nothing is left out for it. A commit is as good a
                    // sign of life.
                    let state = self.writer.state();
                    if state.version() == told {
                        self.beat(&state).await?;
                    }
                }
                commit = commits.recv() => match commit {
                    Ok(commit) if commit.version <= told => {}
                    Ok(commit) => {
                        told = commit.version;
                        self.send_commit(commit.bytes, &mut redactor).await?;
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let newest = self.writer.state();
                        told = self.catch_up(told, &newest, &mut redactor).await?;
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        return self.end(self.why_closed()).await;
                    }
                },
            }
        }
    }

    async fn welcome(&self, state: &DatabaseState) -> Result<(), Ended> {
        let heartbeat_interval_ms = HEARTBEAT_INTERVAL.as_millis() as u64;
        self.send(sync_event::Event::Welcome(Welcome {
            leader_cluster: self.cluster.name().to_string(),
            epoch: state.epoch().get(),
            version: state.version().get(),
            heartbeat_interval_ms,
            database_name: self
                .cluster
                .database_name(self.database)
                .unwrap_or_default(),
        }))
        .await
    }

    /// Sends what the follower misses, from the bucket.
    async fn catch_up(
        &self,
        from: Version,
        state: &DatabaseState,
        redactor: &mut Redactor,
    ) -> Result<Version, Ended> {
        let to = state.version();
        let is_far = to.get() - from.get() > CATCH_UP_COMMITS_MAX;
        if is_far && self.record.sharing.is_everything() {
            return self.refer_to_checkpoint(to).await;
        }
        let mut told = from;
        let numbers = stream::iter(from.get() + 1..=to.get()).map(Version::new);
        let read = |version| {
            let reader = self.reader.clone();
            async move { reader.commit_at(version).await }
        };
        let mut commits = numbers.map(read).buffered(CATCH_UP_READ_AHEAD);
        while let Some(commit) = commits.next().await {
            let commit = match commit {
                Ok(Some(commit)) => commit,
                // The follower was away for so long that what it misses is deleted.
                Ok(None) => return self.refer_to_checkpoint(to).await,
                Err(error) => {
                    return self
                        .end(Status::unavailable(error.to_string()))
                        .await
                        .map(|()| told);
                }
            };
            self.send_commit(commit, redactor).await?;
            told = told.next();
        }
        Ok(told)
    }

    /// Ends the stream: the follower reads a checkpoint from the bucket, leaving out by itself what it
    /// may not see, and comes back.
    async fn refer_to_checkpoint(&self, version: Version) -> Result<Version, Ended> {
        let reference = CheckpointReference {
            version: version.get(),
        };
        self.send(sync_event::Event::Checkpoint(reference)).await?;
        Err(Ended)
    }

    /// Sends a commit without the records of what this follower may not see.
    async fn send_commit(&self, bytes: Bytes, redactor: &mut Redactor) -> Result<(), Ended> {
        let shown = if self.record.sharing.is_everything() {
            Ok(bytes)
        } else {
            Commit::decode(&bytes).and_then(|commit| redactor.redact(&commit, &self.writer.state()))
        };
        match shown {
            Ok(bytes) => self.send(sync_event::Event::Commit(bytes)).await,
            Err(corrupt) => self.end(Status::data_loss(corrupt.to_string())).await,
        }
    }

    async fn beat(&self, state: &DatabaseState) -> Result<(), Ended> {
        self.send(sync_event::Event::Heartbeat(Heartbeat {
            version: state.version().get(),
            digest: state.digest().as_bytes().to_vec().into(),
            epoch: state.epoch().get(),
            leader_time: self.cluster.clock().now().as_micros(),
        }))
        .await
    }

    async fn check_attached(&self) -> Result<(), Ended> {
        let record = &self.record;
        let attached = || {
            // The token may have been revoked, or have other roles by now.
            let caller = self.visitor.authenticate_again()?;
            self.cluster
                .attached(&self.follower, self.database, &caller)
        };
        match attached() {
            Ok(now) if now == *record => Ok(()),
            Ok(_) => {
                self.end(Status::aborted("the attachment has changed"))
                    .await
            }
            Err(status) => self.end(status).await,
        }
    }

    fn why_closed(&self) -> Status {
        if self.writer.is_fenced() {
            fenced(&self.cluster)
        } else {
            Status::unavailable("the leader closes this database")
        }
    }

    async fn end(&self, status: Status) -> Result<(), Ended> {
        // The follower may be gone already; then there is nobody to tell.
        let _ = self.sender.send(Err(status)).await;
        Err(Ended)
    }

    async fn send(&self, event: sync_event::Event) -> Result<(), Ended> {
        self.sender
            .send(Ok(SyncEvent { event: Some(event) }))
            .await
            .map_err(|_| Ended)
    }
}
