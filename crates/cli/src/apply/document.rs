//! What a document holds.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use slipstream_frontend::{AttachRequest, Attachment, FollowerDatabase};
use slipstream_kusto::{format_timespan, parse_datetime, parse_timespan};
use slipstream_model::{
    ALL_DATABASES, CachingPoliciesModificationKind, CachingPolicy, DatabasePrincipal, HotWindow,
    Overrides, PrincipalsModificationKind, TableLevelSharing,
};

/// A follower, as it should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct Document {
    /// Attached database configurations.
    pub(crate) attachments: Vec<AttachmentSpec>,
    /// This cluster's own settings, by database.
    pub(crate) databases: BTreeMap<String, DatabaseSpec>,
}

/// An attached database configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AttachmentSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) leader: String,
    pub(crate) database: String,
    #[serde(default, skip_serializing_if = "TableLevelSharing::is_everything")]
    pub(crate) sharing: TableLevelSharing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) database_name_override: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) database_name_prefix: Option<String>,
    #[serde(default)]
    pub(crate) default_principals_modification_kind: PrincipalsModificationKind,
    /// Where the follower is thought to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
}

/// This cluster's own settings for one database: all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct DatabaseSpec {
    /// As it is, when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) principals_modification_kind: Option<PrincipalsModificationKind>,
    pub(crate) caching_policies_modification_kind: CachingPoliciesModificationKind,
    pub(crate) prefetch_extents: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) caching: Option<CachingSpec>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tables: BTreeMap<String, CachingSpec>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) materialized_views: BTreeMap<String, CachingSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) principals: Vec<DatabasePrincipal>,
}

/// A caching policy: `7d`, or what does not fit into that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum CachingSpec {
    Hot(String),
    Detailed(DetailedCaching),
}

/// A caching policy with hot windows, or with another span for indexes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DetailedCaching {
    hot: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hot_index: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hot_windows: Vec<WindowSpec>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowSpec {
    from: String,
    to: String,
}

impl AttachmentSpec {
    /// The configuration's name, as the node would choose it.
    pub(crate) fn name(&self) -> &str {
        match (&self.name, self.database.as_str()) {
            (Some(name), _) => name,
            (None, ALL_DATABASES) => "all",
            (None, database) => database,
        }
    }

    pub(crate) fn request(&self) -> AttachRequest {
        AttachRequest {
            name: Some(self.name().to_owned()),
            sharing: self.sharing.clone(),
            database_name_override: self.database_name_override.clone(),
            database_name_prefix: self.database_name_prefix.clone(),
            default_principals_modification_kind: self.default_principals_modification_kind,
            location: self.location.clone(),
            ..AttachRequest::of(self.leader.clone(), self.database.clone())
        }
    }

    pub(crate) fn of(known: &Attachment) -> Self {
        let terms = &known.terms;
        Self {
            name: Some(known.name.clone()),
            leader: known.leader.clone(),
            database: terms.database.to_string(),
            sharing: terms.sharing.clone(),
            database_name_override: terms
                .database_name_override
                .as_ref()
                .map(ToString::to_string),
            database_name_prefix: terms.database_name_prefix.clone(),
            default_principals_modification_kind: known.default_principals_modification_kind,
            location: None,
        }
    }

    /// What the one database is called here.
    fn database_here(&self) -> String {
        match (&self.database_name_override, &self.database_name_prefix) {
            (Some(name), _) => name.clone(),
            (None, Some(prefix)) => format!("{prefix}{}", self.database),
            (None, None) => self.database.clone(),
        }
    }
}

impl CachingSpec {
    /// # Errors
    /// When a span or a moment cannot be read.
    pub(crate) fn policy(&self) -> anyhow::Result<CachingPolicy> {
        let span = |text: &str| {
            parse_timespan(text)
                .with_context(|| format!("'{text}' is no timespan such as 7d or 3.00:00:00"))
        };
        let moment = |text: &str| {
            parse_datetime(text)
                .with_context(|| format!("'{text}' is no moment such as 2026-01-31"))
        };
        match self {
            Self::Hot(text) => Ok(CachingPolicy::hot(span(text)?)),
            Self::Detailed(detailed) => {
                let hot = span(&detailed.hot)?;
                let index = detailed.hot_index.as_deref().map(span).transpose()?;
                let mut windows = Vec::new();
                for window in &detailed.hot_windows {
                    let (min, max) = (moment(&window.from)?, moment(&window.to)?);
                    if max < min {
                        bail!("hot window from {} ends before it begins", window.from);
                    }
                    windows.push(HotWindow { min, max });
                }
                Ok(CachingPolicy {
                    index_hot_span: index.unwrap_or(hot),
                    hot_windows: windows,
                    ..CachingPolicy::hot(hot)
                })
            }
        }
    }

    fn of(policy: &CachingPolicy) -> Self {
        let hot = format_timespan(policy.data_hot_span);
        if *policy == CachingPolicy::hot(policy.data_hot_span) {
            return Self::Hot(hot);
        }
        let is_other = policy.index_hot_span != policy.data_hot_span;
        let windows = policy.hot_windows.iter().map(|window| WindowSpec {
            from: window.min.to_string(),
            to: window.max.to_string(),
        });
        Self::Detailed(DetailedCaching {
            hot,
            hot_index: is_other.then(|| format_timespan(policy.index_hot_span)),
            hot_windows: windows.collect(),
        })
    }
}

impl DatabaseSpec {
    fn of(overrides: &Overrides) -> Self {
        let policies = |policies: &BTreeMap<String, CachingPolicy>| {
            let policies = policies.iter();
            policies
                .map(|(name, policy)| (name.clone(), CachingSpec::of(policy)))
                .collect()
        };
        Self {
            principals_modification_kind: Some(overrides.principals_modification_kind),
            caching_policies_modification_kind: overrides.caching_policies_modification_kind,
            prefetch_extents: overrides.prefetch_extents,
            caching: overrides.caching_policy.as_ref().map(CachingSpec::of),
            tables: policies(&overrides.table_caching_policies),
            materialized_views: policies(&overrides.materialized_view_caching_policies),
            principals: overrides.principals.clone(),
        }
    }
}

impl Document {
    /// A follower as it is.
    pub(crate) fn of(attachments: &[Attachment], databases: &[FollowerDatabase]) -> Self {
        let specs = databases.iter();
        Self {
            attachments: attachments.iter().map(AttachmentSpec::of).collect(),
            databases: specs
                .map(|known| (known.database.clone(), DatabaseSpec::of(&known.overrides)))
                .collect(),
        }
    }

    /// The settings that a database has when it has just been attached.
    pub(crate) fn overrides_when_attached(&self, database: &str) -> Overrides {
        let attachment = self
            .attachments
            .iter()
            .find(|spec| spec.database_here() == database);
        Overrides {
            principals_modification_kind: attachment
                .map(|spec| spec.default_principals_modification_kind)
                .unwrap_or_default(),
            ..Overrides::default()
        }
    }
}
