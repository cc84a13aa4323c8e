//! Which client a request comes from, as one line of text: query logs keep no more of it.

use std::fmt;

/// Characters of what a client says of itself that are kept.
const SAID_CHARS_MAX: usize = 200;

/// A door and an address, and what the client says of itself there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientLabel {
    /// The door and the address: `kusto 127.0.0.1:50123`.
    pub(crate) peer: String,
    /// The client's own name for the request: `x-ms-client-request-id`.
    pub(crate) activity_id: Option<String>,
    /// The program: `x-ms-app`.
    app: Option<String>,
}

impl ClientLabel {
    pub(crate) fn new(peer: String, activity_id: Option<&str>, app: Option<&str>) -> Self {
        Self {
            peer,
            activity_id: activity_id.and_then(|id| clean(id, &[' '])),
            // The last field may hold spaces.
            app: app.and_then(|app| clean(app, &[])),
        }
    }

    /// The program, or, when it does not say, the door and the address.
    pub(crate) fn application(&self) -> &str {
        self.app.as_deref().unwrap_or(&self.peer)
    }

    /// Reads what `Display` wrote.
    pub(crate) fn read(text: &str) -> Self {
        let (rest, app) = match text.split_once(" app=") {
            Some((rest, app)) => (rest, Some(app)),
            None => (text, None),
        };
        let (peer, activity_id) = match rest.split_once(" id=") {
            Some((peer, id)) => (peer, Some(id)),
            None => (rest, None),
        };
        Self {
            peer: peer.to_owned(),
            activity_id: activity_id.map(ToOwned::to_owned),
            app: app.map(ToOwned::to_owned),
        }
    }
}

impl fmt::Display for ClientLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer)?;
        if let Some(id) = &self.activity_id {
            write!(f, " id={id}")?;
        }
        if let Some(app) = &self.app {
            write!(f, " app={app}")?;
        }
        Ok(())
    }
}

/// What a client said, cut, and without what would end its field; nothing when nothing is left.
fn clean(said: &str, without: &[char]) -> Option<String> {
    let kept = said.chars().take(SAID_CHARS_MAX);
    let kept = kept.filter(|c| !c.is_control() && !without.contains(c));
    let kept: String = kept.collect();
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let peer = || "kusto 127.0.0.1:1".to_owned();
        for label in [
            ClientLabel::new(peer(), None, None),
            ClientLabel::new(peer(), Some("KPC.execute;1"), None),
            ClientLabel::new(peer(), None, Some("My Report")),
            ClientLabel::new(peer(), Some("a b app=c\n"), Some("x id=y app=z")),
        ] {
            assert_eq!(ClientLabel::read(&label.to_string()), label);
        }
        let silent = ClientLabel::new(peer(), Some(" "), Some("\r\n"));
        assert_eq!(silent.to_string(), peer());
        assert_eq!(silent.application(), peer());
        let long = "x".repeat(SAID_CHARS_MAX + 1);
        let label = ClientLabel::new(peer(), Some(&long), None);
        assert_eq!(label.activity_id.map(|id| id.len()), Some(SAID_CHARS_MAX));
    }
}
