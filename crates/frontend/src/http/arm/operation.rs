//! Long-running operations: `.../providers/Microsoft.Kusto/locations/{l}/operationResults/{id}`.
//!
//! Only attaching can take longer than its answer: the first synchronisation goes on. An
//! operation's id says which configuration it is about, so nothing has to be kept of it.

use axum::http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::path::Scope;
use crate::{Attachment, AuthorizedEngine, ErrorKind, ProvisioningState, ServiceError};

/// When a client should ask again, in seconds.
const RETRY_AFTER: &str = "1";

/// The id of the operation that puts a configuration.
fn id_of(configuration: &str) -> String {
    configuration
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn configuration_of(id: &str) -> Option<String> {
    let byte = |at: usize| u8::from_str_radix(id.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..id.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}

/// Tells the client where to ask how far an attachment has come, when it has not arrived; `origin`
/// is where it found this node.
pub(super) fn announce(
    attachment: &Attachment,
    scope: &Scope,
    location: &str,
    origin: &str,
    headers: &mut HeaderMap,
) {
    if attachment.provisioning_state != ProvisioningState::Creating {
        return;
    }
    let url = format!(
        "{origin}/subscriptions/{}/providers/Microsoft.Kusto/locations/{location}/\
         operationResults/{}?api-version=2025-02-14",
        scope.subscription,
        id_of(&attachment.name)
    );
    if let Ok(url) = HeaderValue::from_str(&url) {
        headers.insert("azure-asyncoperation", url.clone());
        headers.insert("location", url);
        headers.insert("retry-after", HeaderValue::from_static(RETRY_AFTER));
    }
}

/// How far an operation has come.
pub(super) fn status(engine: &AuthorizedEngine, id: &str) -> Result<Value, ServiceError> {
    let unknown = || {
        ServiceError::new(
            ErrorKind::NotFound,
            "operation_not_found",
            format!("there is no operation '{id}'"),
        )
    };
    let name = configuration_of(id).ok_or_else(unknown)?;
    let all = engine.attachments()?;
    let known = all.iter().find(|known| known.name == name);
    let known = known.ok_or_else(unknown)?;
    let (state, percent) = match known.provisioning_state {
        ProvisioningState::Succeeded => ("Succeeded", 100.0),
        ProvisioningState::Failed => ("Failed", 100.0),
        ProvisioningState::Creating | ProvisioningState::Deleting => ("Running", 50.0),
    };
    let mut status = json!({"id": id, "name": id, "status": state, "percentComplete": percent});
    if let Some(error) = &known.error {
        status["error"] = json!({"code": error.code, "message": error.message});
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operations_id_says_which_configuration_it_is_about() {
        for name in ["adc", "a b/ü", ""] {
            assert_eq!(configuration_of(&id_of(name)).as_deref(), Some(name));
        }
        assert_eq!(configuration_of("xyz"), None);
        assert_eq!(configuration_of("abc"), None);
    }
}
