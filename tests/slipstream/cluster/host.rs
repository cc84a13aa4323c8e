//! Where a process runs.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// This machine as it is, or a network namespace of it.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    namespace: Option<String>,
    address: IpAddr,
    environment: Vec<(String, String)>,
}

impl Host {
    /// This machine; processes listen on loopback.
    pub(crate) fn here() -> Self {
        Self {
            namespace: None,
            address: Ipv4Addr::LOCALHOST.into(),
            environment: Vec::new(),
        }
    }

    /// A network namespace that has an address.
    pub(crate) fn in_namespace(namespace: String, address: IpAddr) -> Self {
        Self {
            namespace: Some(namespace),
            address,
            environment: Vec::new(),
        }
    }

    /// The host with a variable that its nodes get, whatever the site says.
    pub(crate) fn with(mut self, variable: &str, value: String) -> Self {
        self.environment.push((variable.to_owned(), value));
        self
    }

    /// Where its processes listen.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// What nodes on it get beside what the site gives.
    pub(super) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The same command, to be run here. Signals reach the program itself: `ip netns exec` becomes
    /// it.
    pub(super) fn place(&self, command: Command) -> Command {
        let Some(namespace) = &self.namespace else {
            return command;
        };
        let mut placed = Command::new("ip");
        placed.args(["netns", "exec", namespace]);
        placed.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => placed.env(key, value),
                None => placed.env_remove(key),
            };
        }
        placed
    }
}
