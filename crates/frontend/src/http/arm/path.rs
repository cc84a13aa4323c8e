//! Resource ids: which resource a path names. Fixed segments are read in any case, as Resource
//! Manager reads them.

use crate::{ErrorKind, ServiceError};

/// Where a resource stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) subscription: String,
    pub(super) resource_group: String,
    pub(super) cluster: String,
}

/// What is named below a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    Cluster,
    Configurations,
    Configuration(String),
    CheckConfigurationName,
    Databases,
    Database(String),
    Invite(String),
    ListFollowers,
    DetachFollowers,
    Assignments(String),
    Assignment(String, String),
}

impl Scope {
    /// The resource id of a cluster in the same place.
    pub(super) fn cluster_id(&self, cluster: &str) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Kusto/Clusters/{cluster}",
            self.subscription, self.resource_group
        )
    }

    /// The resource id of something of the cluster.
    pub(super) fn id(&self, kind: &str, name: &str) -> String {
        format!("{}/{kind}/{name}", self.cluster_id(&self.cluster))
    }
}

/// Reads what stands behind `/subscriptions/`.
///
/// # Errors
/// When there is no such resource.
pub(super) fn parse(rest: &str) -> Result<(Scope, Resource), ServiceError> {
    let segments: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let unknown = || {
        ServiceError::new(
            ErrorKind::NotFound,
            "resource_not_found",
            format!("there is no resource /subscriptions/{rest}"),
        )
    };
    let [
        subscription,
        groups,
        group,
        providers,
        provider,
        clusters,
        cluster,
        below @ ..,
    ] = &segments[..]
    else {
        return Err(unknown());
    };
    let fixed = [
        (groups, "resourceGroups"),
        (providers, "providers"),
        (provider, "Microsoft.Kusto"),
        (clusters, "clusters"),
    ];
    if !fixed
        .iter()
        .all(|(found, expected)| found.eq_ignore_ascii_case(expected))
    {
        return Err(unknown());
    }
    let scope = Scope {
        subscription: (*subscription).to_owned(),
        resource_group: (*group).to_owned(),
        cluster: (*cluster).to_owned(),
    };
    let lower: Vec<String> = below.iter().map(|part| part.to_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let named = |index: usize| below[index].to_owned();
    let resource = match lower[..] {
        [] => Resource::Cluster,
        ["attacheddatabaseconfigurations"] => Resource::Configurations,
        ["attacheddatabaseconfigurations", _] => Resource::Configuration(named(1)),
        ["attacheddatabaseconfigurationchecknameavailability"] => Resource::CheckConfigurationName,
        ["databases"] => Resource::Databases,
        ["databases", _] => Resource::Database(named(1)),
        ["databases", _, "invitefollower"] => Resource::Invite(named(1)),
        ["databases", _, "principalassignments"] => Resource::Assignments(named(1)),
        ["databases", _, "principalassignments", _] => Resource::Assignment(named(1), named(3)),
        ["listfollowerdatabases"] => Resource::ListFollowers,
        ["detachfollowerdatabases"] => Resource::DetachFollowers,
        _ => return Err(unknown()),
    };
    Ok((scope, resource))
}

/// The id of the operation that a path asks for, when it asks for one.
pub(super) fn operation(rest: &str) -> Option<&str> {
    let segments: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let [_, providers, provider, locations, _, results, id] = segments[..] else {
        return None;
    };
    let fixed = [
        (providers, "providers"),
        (provider, "Microsoft.Kusto"),
        (locations, "locations"),
        (results, "operationResults"),
    ];
    let is_one = fixed
        .iter()
        .all(|(found, expected)| found.eq_ignore_ascii_case(expected));
    is_one.then_some(id)
}

/// The cluster that a resource id names: its last segment.
///
/// # Errors
/// When it is no cluster's id.
pub(super) fn cluster_of(id: &str) -> Result<String, ServiceError> {
    let mut segments = id.trim_end_matches('/').rsplit('/');
    match (segments.next(), segments.next()) {
        (Some(name), Some(kind)) if kind.eq_ignore_ascii_case("clusters") && !name.is_empty() => {
            Ok(name.to_owned())
        }
        _ => Err(ServiceError::invalid(format!(
            "clusterResourceId '{id}' is not /subscriptions/.../Microsoft.Kusto/Clusters/NAME"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_segments_are_read_in_any_case_and_names_as_they_are() {
        let rest = "s/resourcegroups/Group/providers/microsoft.kusto/Clusters/Follower/\
                    AttachedDatabaseConfigurations/Adc";
        let (scope, resource) = parse(rest).expect("a resource");
        assert_eq!(resource, Resource::Configuration("Adc".into()));
        assert_eq!(
            scope.cluster_id("leader"),
            "/subscriptions/s/resourceGroups/Group/providers/Microsoft.Kusto/Clusters/leader"
        );
        for rest in [
            "s",
            "s/resourceGroups/g/providers/Microsoft.Web/clusters/c",
            "a/b/c/d/e/f/g",
        ] {
            assert!(parse(rest).is_err(), "{rest}");
        }
    }

    #[test]
    fn a_cluster_is_the_last_part_of_its_id() {
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/Clusters/leader";
        assert_eq!(cluster_of(id).expect("an id"), "leader");
        assert!(cluster_of("leader").is_err());
    }
}
