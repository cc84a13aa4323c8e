//! Attaching and detaching: what this node asks its leaders.

use std::sync::Arc;
use std::time::Duration;

use slipstream_frontend::wire::{sharing_from_proto, sharing_to_proto};
use slipstream_frontend::{AttachRequest, Attachment, ErrorKind, ServiceError};
use slipstream_model::{
    AttachTerms, BucketId, ClusterName, DatabaseId, DatabaseName, DatabaseSelection,
    is_same_location,
};
use slipstream_proto::sync::{
    AttachFollowerRequest, AttachFollowerResponse, DetachFollowerRequest,
};
use uuid::Uuid;

use super::{Registry, not_found, on_disk};
use crate::attachments::{ATTACHMENTS_MAX, Configuration};
use crate::following::Following;
use crate::link::{self, LeaderAddress};

/// How long an attach waits for the first synchronisation before it answers `Creating`.
const WAIT_FOR_FIRST_SYNC: Duration = Duration::from_secs(15);
/// The name of a configuration of all databases, when none is given.
const NAME_OF_ALL: &str = "all";

impl Registry {
    /// Puts a configuration. The leader is asked first: when it refuses or is silent, nothing has
    /// changed.
    ///
    /// # Errors
    /// When terms make no sense, names clash, or the leader refuses or cannot be asked.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, ServiceError> {
        let _changing = self.changing.lock().await;
        ClusterName::new(request.leader.clone()).map_err(ServiceError::invalid_name)?;
        self.check_location(&request)?;
        let terms = terms_of(&request)?;
        let name = match (&request.name, &terms.database) {
            (Some(name), _) => name.clone(),
            (None, DatabaseSelection::One(database)) => database.to_string(),
            (None, DatabaseSelection::All) => NAME_OF_ALL.to_owned(),
        };
        let leader = self.leader(&request.leader)?;
        let known = self.attachments.get(&name);
        self.check_conflicts(&name, &request, &terms, known.as_ref())?;
        let is_same = known.as_ref().is_some_and(|known| {
            known.terms == terms
                && known.default_principals_modification_kind
                    == request.default_principals_modification_kind
        });
        if is_same {
            return self.attachment(&name);
        }
        if known.is_none() && self.attachments.all().len() >= ATTACHMENTS_MAX {
            return Err(ServiceError::invalid(format!(
                "a node has at most {ATTACHMENTS_MAX} attached database configurations"
            )));
        }
        let answer = self.register(leader, &name, &terms, &request).await?;
        let mut configuration = configuration_of(leader, name, terms, &request, &answer, known)?;
        configuration.revision = self.context.entropy.uuid();
        let name = configuration.name.clone();
        self.keep(configuration)?;
        self.reconcile();
        self.wait_for_first_sync(&name).await;
        self.attachment(&name)
    }

    /// Takes a configuration away. Detaching needs one side only: a leader that cannot be told
    /// keeps the entry until it is detached there.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn detach(&self, name: &str) -> Result<(), ServiceError> {
        let _changing = self.changing.lock().await;
        let Some(configuration) = self.attachments.get(name) else {
            let known: Vec<_> = self.attachments.all().into_iter().map(|c| c.name).collect();
            return Err(not_found(name, &known));
        };
        self.forget(name)?;
        let url = self.leader(&configuration.leader).map_or_else(
            |_| configuration.leader_url.clone(),
            |leader| leader.url.clone(),
        );
        if let Err(status) = self.unregister(&configuration.leader, &url, name).await {
            tracing::warn!(
                configuration = name,
                reason = status.message(),
                "detached here; the leader could not be told"
            );
        }
        Ok(())
    }

    /// Takes a configuration away without telling the leader.
    pub(super) fn forget(&self, name: &str) -> Result<(), ServiceError> {
        self.attachments.remove(name).map_err(on_disk)?;
        self.reconcile();
        Ok(())
    }

    pub(crate) fn leader(&self, name: &str) -> Result<&LeaderAddress, ServiceError> {
        let found = self.leaders.iter().find(|leader| leader.name == name);
        found.ok_or_else(|| {
            let known: Vec<_> = self.leaders.iter().map(|l| l.name.as_str()).collect();
            let known = if known.is_empty() {
                "no leader".to_owned()
            } else {
                known.join(", ")
            };
            ServiceError::new(
                ErrorKind::NotFound,
                "leader_not_found",
                format!(
                    "leader '{name}' is not known here: this node was started with {known}. Add \
                     --leader {name}=GRPC_URL"
                ),
            )
        })
    }

    fn check_location(&self, request: &AttachRequest) -> Result<(), ServiceError> {
        let here = &self.identity.location;
        match &request.location {
            Some(location) if !is_same_location(location, here) => Err(ServiceError::new(
                ErrorKind::Conflict,
                "location_mismatch",
                format!(
                    "the configuration is for location '{location}', and cluster '{}' is in '{here}'",
                    self.identity.cluster
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What stands in the way of a configuration; the same one may be asked for again.
    fn check_conflicts(
        &self,
        name: &str,
        request: &AttachRequest,
        terms: &AttachTerms,
        known: Option<&Configuration>,
    ) -> Result<(), ServiceError> {
        let conflict =
            |message| ServiceError::new(ErrorKind::AlreadyExists, "already_attached", message);
        if let Some(known) = known
            && (known.leader != request.leader || known.terms.database != terms.database)
        {
            return Err(conflict(format!(
                "configuration '{name}' exists and attaches database '{}' of leader '{}': choose \
                 another --name, or detach it first",
                known.terms.database, known.leader
            )));
        }
        let DatabaseSelection::One(database) = &terms.database else {
            return Ok(());
        };
        let here = terms
            .name_here(database)
            .map_err(ServiceError::invalid_name)?;
        if (self.is_owned)(here.as_str()) {
            return Err(conflict(format!(
                "cluster '{}' has a database '{here}' of its own: use databaseNameOverride or \
                 databaseNamePrefix",
                self.identity.cluster
            )));
        }
        let following = self.all();
        let taken = following
            .iter()
            .map(|following| following.source())
            .find(|source| source.database == here.as_str() && source.configuration != name);
        match taken {
            Some(source) => Err(conflict(format!(
                "database '{here}' is attached already, by configuration '{}' from leader '{}'",
                source.configuration, source.leader
            ))),
            None => Ok(()),
        }
    }

    /// Asks the leader, which keeps who follows what in its log.
    async fn register(
        &self,
        leader: &LeaderAddress,
        name: &str,
        terms: &AttachTerms,
        request: &AttachRequest,
    ) -> Result<AttachFollowerResponse, ServiceError> {
        let bucket = self.bucket().await?;
        let refused = |status: tonic::Status| refused(leader, &status);
        let dialer = &self.context.dialer;
        let dialed = dialer.admin_client(&leader.name, &leader.url).await;
        let mut client = dialed.map_err(refused)?;
        let mut message = tonic::Request::new(AttachFollowerRequest {
            follower_cluster: self.identity.cluster.to_string(),
            configuration: name.to_owned(),
            database_name: terms.database.to_string(),
            bucket_id: bucket.id().as_bytes().to_vec().into(),
            location: self.identity.location.clone(),
            sharing: Some(sharing_to_proto(&terms.sharing)),
            invitation: request.invitation.clone().unwrap_or_default(),
        });
        message.set_timeout(link::REQUEST_TIMEOUT);
        let answer = client.attach_follower(message).await.map_err(refused)?;
        let answer = answer.into_inner();
        if answer.leader_cluster != leader.name {
            return Err(ServiceError::new(
                ErrorKind::InvalidArgument,
                "wrong_leader",
                format!(
                    "{} is cluster '{}', not '{}': correct --leader",
                    leader.url, answer.leader_cluster, leader.name
                ),
            ));
        }
        Ok(answer)
    }

    async fn unregister(
        &self,
        leader: &str,
        leader_url: &str,
        name: &str,
    ) -> Result<(), tonic::Status> {
        let dialer = &self.context.dialer;
        let mut client = dialer.admin_client(leader, leader_url).await?;
        let mut request = tonic::Request::new(DetachFollowerRequest {
            follower_cluster: self.identity.cluster.to_string(),
            configuration: name.to_owned(),
        });
        request.set_timeout(link::REQUEST_TIMEOUT);
        client.detach_follower(request).await.map(drop)
    }

    /// Past the bound the attach answers `Creating`, and the first synchronisation goes on.
    async fn wait_for_first_sync(&self, configuration: &str) {
        let following = self.all().into_iter();
        let of_it: Vec<Arc<Following>> = following
            .filter(|following| following.source().configuration == configuration)
            .collect();
        let synchronised = futures::future::join_all(of_it.iter().map(|following| async {
            let mut changes = following.changes();
            let first =
                changes.wait_for(|served| served.state.is_some() || served.suspension.is_some());
            first.await.is_ok()
        }));
        let _ = tokio::time::timeout(WAIT_FOR_FIRST_SYNC, synchronised).await;
    }
}

fn terms_of(request: &AttachRequest) -> Result<AttachTerms, ServiceError> {
    let name = |name: &String| DatabaseName::new(name.clone()).map_err(ServiceError::invalid_name);
    let terms = AttachTerms {
        database: request
            .database
            .parse()
            .map_err(ServiceError::invalid_name)?,
        sharing: request.sharing.clone(),
        database_name_override: request
            .database_name_override
            .as_ref()
            .map(name)
            .transpose()?,
        database_name_prefix: request
            .database_name_prefix
            .clone()
            .filter(|p| !p.is_empty()),
    };
    terms.check().map_err(|error| {
        ServiceError::new(
            ErrorKind::InvalidArgument,
            "invalid_sharing",
            error.to_string(),
        )
    })?;
    Ok(terms)
}

/// The configuration as the leader granted it. Databases that it had keep their settings.
fn configuration_of(
    leader: &LeaderAddress,
    name: String,
    mut terms: AttachTerms,
    request: &AttachRequest,
    answer: &AttachFollowerResponse,
    known: Option<Configuration>,
) -> Result<Configuration, ServiceError> {
    let garbled = || ServiceError::internal(format!("leader '{}' answered nonsense", leader.name));
    terms.sharing = sharing_from_proto(answer.sharing.clone());
    let mut configuration = Configuration {
        name,
        revision: Uuid::nil(),
        leader: leader.name.clone(),
        leader_url: leader.url.clone(),
        bucket_id: BucketId::from_slice(&answer.bucket_id).ok_or_else(garbled)?,
        terms,
        is_invited: request.invitation.is_some() || known.as_ref().is_some_and(|k| k.is_invited),
        default_principals_modification_kind: request.default_principals_modification_kind,
        databases: Vec::new(),
    };
    // The default is for databases to come: one whose kind was altered here since keeps it, until
    // the default itself is given another value.
    let default = configuration.default_principals_modification_kind;
    let is_new_default = known
        .as_ref()
        .is_some_and(|known| known.default_principals_modification_kind != default);
    let mut before = known.map(|known| known.databases).unwrap_or_default();
    for database in &answer.databases {
        let id = DatabaseId::from_slice(&database.database_id).ok_or_else(garbled)?;
        let name = DatabaseName::new(database.name.clone()).map_err(|_| garbled())?;
        let mut followed = configuration.followed(id, name);
        if let Some(at) = before.iter().position(|known| known.id == id) {
            let known = before.swap_remove(at);
            (followed.overrides, followed.pins) = (known.overrides, known.pins);
            if is_new_default {
                followed.overrides.principals_modification_kind = default;
            }
        }
        configuration.databases.push(followed);
    }
    Ok(configuration)
}

fn refused(leader: &LeaderAddress, status: &tonic::Status) -> ServiceError {
    use tonic::Code;
    let message = format!("leader '{}': {}", leader.name, status.message());
    let said = status.metadata().get("slipstream-error-code");
    let said = said.and_then(|code| code.to_str().ok());
    let known = CODES.iter().find(|code| Some(**code) == said).copied();
    let (kind, code) = match status.code() {
        Code::NotFound => (ErrorKind::NotFound, "database_not_found"),
        Code::FailedPrecondition => (ErrorKind::Conflict, "leader_refused"),
        Code::InvalidArgument => (ErrorKind::InvalidArgument, "invalid_argument"),
        Code::AlreadyExists => (ErrorKind::AlreadyExists, "already_attached"),
        Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled => {
            (ErrorKind::Unavailable, "leader_unreachable")
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            return ServiceError::new(
                ErrorKind::Forbidden,
                "leader_forbidden",
                format!(
                    "{message}. This node shows leaders the token of its --leader-token; the \
                     leader's 'slipstream token create --role Contributor' makes one"
                ),
            );
        }
        _ => (ErrorKind::Internal, "internal"),
    };
    ServiceError::new(kind, known.unwrap_or(code), message)
}

/// Codes of a leader that mean the same when this node says them.
const CODES: [&str; 6] = [
    "database_not_found",
    "filter_matches_nothing",
    "invalid_sharing",
    "invitation_refused",
    "location_mismatch",
    "bucket_mismatch",
];
