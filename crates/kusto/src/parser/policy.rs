//! Policies: caching, retention, merge, ingestion batching, streaming ingestion, row-level security.

use slipstream_model::{CachingPolicy, HotWindow, Timestamp};

use super::cursor::{Cursor, Parsed};
use crate::{Command, PolicyEntity, PolicyKind, RetentionPolicy, parse_datetime, parse_timespan};

/// Hot windows of one policy.
const HOT_WINDOWS_MAX: usize = 100;

/// `hot = 7d`, or `hotdata = 7d hotindex = 30d`; then `, hot_window = datetime(a) ..
/// datetime(b)`, any number of them.
pub(super) fn caching(c: &mut Cursor<'_>) -> Parsed<CachingPolicy> {
    let mut policy = if c.word_opt("hotdata") {
        c.sign('=')?;
        let data_hot_span = c.timespan()?;
        c.sign_opt(',');
        c.word("hotindex")?;
        c.sign('=')?;
        CachingPolicy {
            index_hot_span: c.timespan()?,
            ..CachingPolicy::hot(data_hot_span)
        }
    } else {
        c.word("hot")?;
        c.sign('=')?;
        CachingPolicy::hot(c.timespan()?)
    };
    while c.sign_opt(',') {
        c.word("hot_window")?;
        c.sign('=')?;
        let min = moment(c)?;
        c.range()?;
        let max = moment(c)?;
        if max < min {
            return c.refuse("the hot window ends before it begins");
        }
        policy.hot_windows.push(HotWindow { min, max });
        if policy.hot_windows.len() > HOT_WINDOWS_MAX {
            return c.refuse(format!(
                "a policy has at most {HOT_WINDOWS_MAX} hot windows"
            ));
        }
    }
    Ok(policy)
}

/// `datetime(...)`.
pub(super) fn moment(c: &mut Cursor<'_>) -> Parsed<Timestamp> {
    let text = c.datetime()?;
    match parse_datetime(&text) {
        Some(at) => Ok(at),
        None => c.refuse(format!("'{text}' is no moment such as 2026-01-31 10:00")),
    }
}

/// What stands behind `policy` in `.alter`.
pub(super) fn alter(c: &mut Cursor<'_>, entity: PolicyEntity) -> Parsed<Command> {
    c.word("policy")?;
    if c.word_opt("caching") {
        let policy = caching(c)?;
        return Ok(Command::SetCachingPolicy { entity, policy });
    }
    if c.word_opt("merge") {
        return merge(c, entity, false);
    }
    if c.word_opt("ingestionbatching") {
        return ingestion_batching(c, entity, false);
    }
    if c.word_opt("streamingingestion") {
        return streaming_ingestion(c, entity, false);
    }
    if let PolicyEntity::Tables(tables) = &entity
        && let [table] = tables.as_slice()
        && c.word_opt("row_level_security")
    {
        let is_enabled = c.word_opt("enable");
        if !is_enabled {
            c.word("disable")?;
        }
        let query = c.text("a condition in quotes")?;
        let table = table.clone();
        return Ok(Command::SetRowLevelSecurity {
            table,
            is_enabled,
            query,
        });
    }
    c.word("retention")?;
    let text = c.text("a policy as JSON, in quotes")?;
    let policy = match retention(&text) {
        Ok(policy) => policy,
        Err(why) => return c.refuse(why),
    };
    Ok(Command::SetRetentionPolicy {
        entity,
        policy,
        is_merge: false,
    })
}

/// The JSON of a merge policy.
fn merge(c: &mut Cursor<'_>, entity: PolicyEntity, is_merge: bool) -> Parsed<Command> {
    let policy = c.text("a policy as JSON, in quotes")?;
    Ok(Command::SetMergePolicy {
        entity,
        policy,
        is_merge,
    })
}

/// The JSON of an ingestion batching policy.
fn ingestion_batching(c: &mut Cursor<'_>, entity: PolicyEntity, is_merge: bool) -> Parsed<Command> {
    let policy = c.text("a policy as JSON, in quotes")?;
    Ok(Command::SetIngestionBatchingPolicy {
        entity,
        policy,
        is_merge,
    })
}

/// `enable`, `disable`, or the JSON of a streaming ingestion policy.
fn streaming_ingestion(
    c: &mut Cursor<'_>,
    entity: PolicyEntity,
    is_merge: bool,
) -> Parsed<Command> {
    let policy = if c.word_opt("enable") {
        r#"{"IsEnabled": true}"#.to_owned()
    } else if c.word_opt("disable") {
        r#"{"IsEnabled": false}"#.to_owned()
    } else {
        c.text("enable, disable, or a policy as JSON, in quotes")?
    };
    Ok(Command::SetStreamingIngestionPolicy {
        entity,
        policy,
        is_merge,
    })
}

/// What stands behind `policy` in `.alter-merge`: the JSON of a merge or batching policy, or
/// `retention softdelete = 10d [recoverability = enabled|disabled]`.
pub(super) fn alter_merge(c: &mut Cursor<'_>, entity: PolicyEntity) -> Parsed<Command> {
    c.word("policy")?;
    if c.word_opt("merge") {
        return merge(c, entity, true);
    }
    if c.word_opt("ingestionbatching") {
        return ingestion_batching(c, entity, true);
    }
    if c.word_opt("streamingingestion") {
        return streaming_ingestion(c, entity, true);
    }
    c.word("retention")?;
    let mut policy = RetentionPolicy::default();
    if c.word_opt("softdelete") {
        c.sign('=')?;
        policy.soft_delete_period = Some(c.timespan()?);
        if !c.sees("recoverability") {
            return Ok(Command::SetRetentionPolicy {
                entity,
                policy,
                is_merge: true,
            });
        }
    }
    c.word("recoverability")?;
    c.sign('=')?;
    let is_recoverable = c.word_opt("enabled");
    if !is_recoverable {
        c.word("disabled")?;
    }
    policy.is_recoverable = Some(is_recoverable);
    Ok(Command::SetRetentionPolicy {
        entity,
        policy,
        is_merge: true,
    })
}

/// What stands behind `policy` in `.delete`.
pub(super) fn delete(c: &mut Cursor<'_>, entity: PolicyEntity) -> Parsed<Command> {
    c.word("policy")?;
    if c.word_opt("caching") {
        return Ok(Command::DeleteCachingPolicy { entity });
    }
    if c.word_opt("retention") {
        return Ok(Command::DeleteRetentionPolicy { entity });
    }
    if c.word_opt("merge") {
        return Ok(Command::DeleteMergePolicy { entity });
    }
    if c.word_opt("ingestionbatching") {
        return Ok(Command::DeleteIngestionBatchingPolicy { entity });
    }
    if c.word_opt("streamingingestion") {
        return Ok(Command::DeleteStreamingIngestionPolicy { entity });
    }
    match &entity {
        PolicyEntity::Tables(tables) if tables.len() == 1 => {
            c.word("row_level_security")?;
            let table = tables.first().cloned().unwrap_or_default();
            Ok(Command::DeleteRowLevelSecurity { table })
        }
        _ => c.fail(),
    }
}

/// Which policy is to be shown.
pub(super) fn kind(c: &mut Cursor<'_>) -> Parsed<PolicyKind> {
    if c.word_opt("caching") {
        return Ok(PolicyKind::Caching);
    }
    if c.word_opt("retention") {
        return Ok(PolicyKind::Retention);
    }
    if c.word_opt("merge") {
        return Ok(PolicyKind::Merge);
    }
    if c.word_opt("ingestionbatching") {
        return Ok(PolicyKind::IngestionBatching);
    }
    if c.word_opt("streamingingestion") {
        return Ok(PolicyKind::StreamingIngestion);
    }
    c.word("row_level_security")?;
    Ok(PolicyKind::RowLevelSecurity)
}

/// The two members of a retention policy's JSON. The document is small and flat, so it is read
/// here rather than by a JSON library.
fn retention(json: &str) -> Result<RetentionPolicy, String> {
    let inner = json.trim();
    let inner = inner
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or("a retention policy is {\"SoftDeletePeriod\": \"10.00:00:00\", ...}")?;
    let mut policy = RetentionPolicy::default();
    for member in inner.split(',').filter(|member| !member.trim().is_empty()) {
        let (name, value) = member
            .split_once(':')
            .ok_or("a member is \"name\": value")?;
        let clean = |text: &str| text.trim().trim_matches('"').to_owned();
        let (name, value) = (clean(name), clean(value));
        match name.as_str() {
            "SoftDeletePeriod" => {
                let span = parse_timespan(&value);
                policy.soft_delete_period =
                    Some(span.ok_or_else(|| format!("'{value}' is no timespan"))?);
            }
            "Recoverability" => {
                policy.is_recoverable = Some(match value.to_ascii_lowercase().as_str() {
                    "enabled" => true,
                    "disabled" => false,
                    _ => {
                        return Err(format!(
                            "Recoverability is Enabled or Disabled, not '{value}'"
                        ));
                    }
                });
            }
            _ => {
                return Err(format!(
                    "'{name}' is no member of a retention policy: there are SoftDeletePeriod and \
                     Recoverability"
                ));
            }
        }
    }
    Ok(policy)
}
