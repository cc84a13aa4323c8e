//! The leader's side of sharing: who may follow what, and who does.

use std::sync::Arc;
use std::time::Duration;

use slipstream_catalog::{ClusterOp, DatabaseState, FollowerRecord, InvitationRecord};
use slipstream_frontend::{
    Caller, ClusterPermission, DatabaseDescription, ErrorKind, FollowerDescription, Invitation,
    InvitationDescription, InviteRequest, ProvisioningState, ServiceError, ShareOrigin, runtime,
};
use slipstream_model::{
    ALL_DATABASES, AttachTerms, ClusterName, DatabaseAccessMode, DatabaseId, DatabaseSelection,
    Digest, EntityKind, TableLevelSharing, is_same_location,
};
use uuid::Uuid;

use crate::cluster::{Cluster, check_speaks_for};

/// How long an invitation can be used when nothing is said.
const INVITATION_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// An invitation that nobody took for a year was meant for somebody who is gone.
const INVITATION_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Open invitations of one cluster: each stands in the catalog that every start reads.
const INVITATIONS_MAX: usize = 10_000;

/// What a follower cluster asks for.
#[derive(Debug)]
pub(crate) struct WantedFollower {
    pub(crate) cluster: ClusterName,
    pub(crate) configuration: String,
    pub(crate) database: DatabaseSelection,
    pub(crate) location: String,
    pub(crate) sharing: TableLevelSharing,
    /// The token of an invitation.
    pub(crate) invitation: Option<String>,
}

impl Cluster {
    /// Registers a follower, or gives the one that is registered other terms.
    ///
    /// # Errors
    /// When the terms make no sense, the locations differ, the database is not there, a filter
    /// matches nothing, or the invitation does not hold.
    pub(crate) async fn attach_follower(
        &self,
        wanted: WantedFollower,
        caller: &Caller,
    ) -> Result<FollowerRecord, ServiceError> {
        let catalog = self.catalog();
        let known = catalog.follower(&wanted.cluster, &wanted.configuration);
        if let Some(known) = known {
            check_speaks_for(caller, known)?;
        }
        // An invitation stands for the right that its bearer does not have: whoever came by one
        // may change what it granted, and nothing else.
        let granted = known.filter(|known| known.invitation.is_some());
        if wanted.invitation.is_none() && granted.is_none() {
            caller.check(ClusterPermission::Share)?;
        }
        let granted = granted.filter(|_| !caller.may(ClusterPermission::Share));
        self.check_location(&wanted)?;
        let terms = AttachTerms {
            sharing: wanted.sharing.clone(),
            ..AttachTerms::of(wanted.database.clone())
        };
        terms.check().map_err(invalid_terms)?;
        let database_id = match &wanted.database {
            DatabaseSelection::All => None,
            DatabaseSelection::One(name) => match self.database_id(name.as_str()) {
                Ok(id) => Some(id),
                // Whoever has only an invitation is not told which databases there are.
                Err(_) if wanted.invitation.is_some() && !caller.may(ClusterPermission::Share) => {
                    None
                }
                Err(error) => return Err(error),
            },
        };
        let (invitation, sharing) = match granted.filter(|_| wanted.invitation.is_none()) {
            Some(granted) => self.keep_to(granted, &wanted, database_id)?,
            None => self.accept(&wanted, database_id)?,
        };
        if let (DatabaseSelection::One(name), Some(id)) = (&wanted.database, database_id) {
            let state = self.states().remove(name.as_str());
            if let Some(state) = state.filter(|state| state.id() == id) {
                check_matches(&sharing, &state)?;
            }
        }
        let record = FollowerRecord {
            cluster: wanted.cluster,
            configuration: wanted.configuration,
            database_id,
            sharing: Arc::new(sharing),
            invitation,
            principal: Some(caller.principal.clone()),
            attached_at: self.clock().now(),
        };
        self.commit(ClusterOp::AttachFollower(record.clone()))
            .await?;
        Ok(record)
    }

    fn check_location(&self, wanted: &WantedFollower) -> Result<(), ServiceError> {
        if is_same_location(&wanted.location, self.location()) {
            return Ok(());
        }
        Err(ServiceError::new(
            ErrorKind::Conflict,
            "location_mismatch",
            format!(
                "follower cluster '{}' is in location '{}', and leader cluster '{}' in '{}': a \
                 database can only be followed within one location",
                wanted.cluster,
                wanted.location,
                self.name(),
                self.location()
            ),
        ))
    }

    /// What somebody who was invited asks for later, without showing the invitation again.
    fn keep_to(
        &self,
        granted: &FollowerRecord,
        wanted: &WantedFollower,
        database: Option<DatabaseId>,
    ) -> Result<(Option<Uuid>, TableLevelSharing), ServiceError> {
        let catalog = self.catalog();
        // What the invitation granted, or, once it was revoked, what is attached.
        let invitation = granted.invitation.and_then(|id| {
            let mut all = catalog.invitations();
            all.find(|(known, _)| *known == id)
        });
        let widest = invitation.map_or(&granted.sharing, |(_, invitation)| &invitation.sharing);
        if database != granted.database_id {
            return Err(invitation_refused("is for another database", self.name()));
        }
        if wanted.sharing.is_everything() {
            return Ok((granted.invitation, widest.as_ref().clone()));
        }
        if !wanted.sharing.is_within(widest) {
            return Err(invitation_refused(
                "grants other tables than were asked for",
                self.name(),
            ));
        }
        Ok((granted.invitation, wanted.sharing.clone()))
    }

    /// What an invitation adds to a request: its id, and the filters that it grants.
    fn accept(
        &self,
        wanted: &WantedFollower,
        database: Option<DatabaseId>,
    ) -> Result<(Option<Uuid>, TableLevelSharing), ServiceError> {
        let Some(token) = &wanted.invitation else {
            return Ok((None, wanted.sharing.clone()));
        };
        let refuse = |what: &str| Err(invitation_refused(what, self.name()));
        let sha256 = Digest::of(token.as_bytes());
        let catalog = self.catalog();
        let found = catalog
            .invitations()
            .find(|(_, invitation)| invitation.token_sha256 == sha256);
        let Some((id, invitation)) = found else {
            return refuse("is not known here, or was revoked");
        };
        if invitation.expires_at <= self.clock().now() {
            return refuse(&format!("expired at {}", invitation.expires_at));
        }
        if database != Some(invitation.database_id) {
            return refuse("is for another database");
        }
        if wanted.sharing.is_everything() {
            return Ok((Some(id), invitation.sharing.as_ref().clone()));
        }
        if !wanted.sharing.is_within(&invitation.sharing) {
            return refuse("grants other tables than were asked for");
        }
        Ok((Some(id), wanted.sharing.clone()))
    }

    /// Ends what a follower cluster attached, from this side.
    ///
    /// # Errors
    /// When it attached nothing under that name.
    pub(crate) async fn detach_follower(
        &self,
        cluster: ClusterName,
        configuration: &str,
        caller: &Caller,
    ) -> Result<(), ServiceError> {
        if let Some(known) = self.catalog().follower(&cluster, configuration) {
            check_speaks_for(caller, known)?;
        }
        let detach = ClusterOp::DetachFollower {
            follower_cluster: cluster.clone(),
            configuration: configuration.to_owned(),
        };
        self.commit(detach).await?;
        self.leases().release(cluster.as_str(), configuration);
        Ok(())
    }

    /// Invites whoever gets the token.
    ///
    /// # Errors
    /// When there is no such database, or a filter matches nothing.
    pub(crate) async fn invite(&self, request: InviteRequest) -> Result<Invitation, ServiceError> {
        let database_id = self.database_id(&request.database)?;
        let terms = AttachTerms {
            sharing: request.sharing.clone(),
            ..AttachTerms::of(
                request
                    .database
                    .parse()
                    .map_err(ServiceError::invalid_name)?,
            )
        };
        terms.check().map_err(invalid_terms)?;
        if let Some(state) = self.states().remove(&request.database) {
            check_matches(&request.sharing, &state)?;
        }
        if self.catalog().invitations().len() >= INVITATIONS_MAX {
            return Err(ServiceError::invalid(format!(
                "there are {INVITATIONS_MAX} invitations already, which is the limit: revoke some"
            )));
        }
        let life = request.expires_in.unwrap_or(INVITATION_LIFE);
        if life > INVITATION_LIFE_MAX {
            return Err(ServiceError::invalid("an invitation lives at most a year"));
        }
        let expires_at = self.clock().now().plus(life);
        let token = runtime::new_secret()?;
        let id = self.entropy().uuid();
        let invitation = InvitationRecord {
            database_id,
            token_sha256: Digest::of(token.as_bytes()),
            sharing: Arc::new(request.sharing),
            expires_at,
            invitee: request.invitee.unwrap_or_default(),
        };
        self.commit(ClusterOp::CreateInvitation { id, invitation })
            .await?;
        Ok(Invitation {
            id: id.to_string(),
            token,
            expires_at,
        })
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    /// When there is none of that id.
    pub(crate) async fn revoke_invitation(&self, id: &str) -> Result<(), ServiceError> {
        let id = id.parse().map_err(|error| {
            ServiceError::invalid(format!("'{id}' is no invitation's id: {error}"))
        })?;
        self.commit(ClusterOp::RevokeInvitation { id }).await
    }

    /// Who follows, for the doors.
    pub(crate) fn follower_descriptions(&self) -> Vec<FollowerDescription> {
        let catalog = self.catalog();
        let describe = |follower: &FollowerRecord| FollowerDescription {
            cluster: follower.cluster.to_string(),
            configuration: follower.configuration.clone(),
            database: match follower.database_id {
                None => ALL_DATABASES.to_owned(),
                Some(id) => self.database_name(id).unwrap_or_else(|| id.to_string()),
            },
            sharing: follower.sharing.as_ref().clone(),
            origin: match follower.invitation {
                None => ShareOrigin::Direct,
                Some(_) => ShareOrigin::Other,
            },
            attached_at: follower.attached_at,
        };
        catalog.followers().map(describe).collect()
    }

    /// The invitations, for the doors, the first to expire first.
    pub(crate) fn invitation_descriptions(&self) -> Vec<InvitationDescription> {
        let catalog = self.catalog();
        let describe = |(id, invitation): (Uuid, &InvitationRecord)| InvitationDescription {
            id: id.to_string(),
            database: self
                .database_name(invitation.database_id)
                .unwrap_or_else(|| invitation.database_id.to_string()),
            invitee: invitation.invitee.clone(),
            sharing: invitation.sharing.as_ref().clone(),
            expires_at: invitation.expires_at,
        };
        let mut all: Vec<_> = catalog.invitations().map(describe).collect();
        all.sort_by_key(|known| known.expires_at);
        all
    }

    /// The databases, for the doors.
    pub(crate) fn database_descriptions(&self) -> Vec<DatabaseDescription> {
        let catalog = self.catalog();
        let states = self.states();
        let describe = |name: &str, id: DatabaseId| {
            let state = states.get(name);
            let tables = state.into_iter().flat_map(DatabaseState::tables);
            let suspension = self.suspension(id);
            DatabaseDescription {
                name: name.to_owned(),
                database_id: id.to_string(),
                access_mode: DatabaseAccessMode::ReadWrite,
                version: state.map(|state| state.version().get()),
                size_bytes: tables.map(|table| table.extents.size_bytes()).sum(),
                is_followed: catalog.followers_of(id).next().is_some(),
                source: None,
                lag: None,
                versions_behind: 0,
                provisioning_state: match suspension {
                    None => ProvisioningState::Succeeded,
                    Some(_) => ProvisioningState::Failed,
                },
                suspension,
                suspended_since: None,
            }
        };
        catalog
            .databases()
            .map(|(name, id)| describe(name.as_str(), id))
            .collect()
    }
}

/// Refuses filters that would show nothing: most likely a name is misspelt. Exclude lists may
/// name what is not there yet.
fn check_matches(sharing: &TableLevelSharing, state: &DatabaseState) -> Result<(), ServiceError> {
    const KINDS: [EntityKind; 4] = [
        EntityKind::Table,
        EntityKind::ExternalTable,
        EntityKind::MaterializedView,
        EntityKind::Function,
    ];
    for kind in KINDS {
        let (include, _) = sharing.lists(kind);
        for pattern in include {
            let fits = |name: &str| slipstream_model::pattern_matches(pattern, name);
            let is_there = match kind {
                EntityKind::Table => state.tables().any(|table| fits(table.name.as_str())),
                EntityKind::Function => {
                    let mut functions = state.functions();
                    functions.any(|known| fits(known.entity.name.as_str()))
                }
                EntityKind::ExternalTable => {
                    let mut tables = state.external_tables();
                    tables.any(|known| fits(known.entity.name.as_str()))
                }
                EntityKind::MaterializedView => false,
            };
            if !is_there {
                return Err(ServiceError::new(
                    ErrorKind::NotFound,
                    "filter_matches_nothing",
                    format!("the filter includes {kind} '{pattern}', and there is none"),
                ));
            }
        }
    }
    Ok(())
}

fn invitation_refused(what: &str, cluster: &ClusterName) -> ServiceError {
    let message = format!("the invitation {what}: ask for another one at cluster '{cluster}'");
    ServiceError::new(ErrorKind::Conflict, "invitation_refused", message)
}

fn invalid_terms(error: slipstream_model::InvalidTerms) -> ServiceError {
    ServiceError::new(
        ErrorKind::InvalidArgument,
        "invalid_sharing",
        error.to_string(),
    )
}
