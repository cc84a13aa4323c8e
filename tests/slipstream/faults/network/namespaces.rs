//! One network namespace a process, and one for the switch between them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};

use super::Cut;
use crate::cluster::Host;

/// Networks that this process made so far.
static MADE: AtomicU8 = AtomicU8::new(0);
/// What the names of all namespaces begin with; the process and a number follow.
const PREFIX: &str = "slipstream";
/// A hardware address that nobody has: what is sent there is gone.
const NOBODY: &str = "02:00:00:00:00:ff";
/// A slow cable where the kernel can delay packets.
const DELAY: &[&str] = &["netem", "delay", "150ms", "75ms", "loss", "2%"];
/// A slow cable where it can only let few of them through: some hundred milliseconds a request.
const THROTTLE: &[&str] = &["tbf", "rate", "256kbit", "burst", "4kb", "latency", "800ms"];

/// Namespaces that go when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// The process and a number: no two networks share a namespace or a cable.
    id: String,
    subnet: u8,
    names: Vec<String>,
    slowness: &'static [&'static str],
}

impl Namespaces {
    pub(super) fn new(names: &[&str]) -> Result<Self> {
        remove_leftovers();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let mut network = Self {
            id: format!("{process}-{number}"),
            subnet: free_subnet(process.to_le_bytes()[0].wrapping_add(number))?,
            names: names.iter().map(|&name| name.to_owned()).collect(),
            slowness: DELAY,
        };
        network.build()?;
        let how = match network.find_slowness() {
            DELAY => "a slow cable delays and loses packets (netem)",
            _ => "a slow cable is narrow (tbf: this kernel has no netem)",
        };
        eprintln!(
            "NETWORK: network namespaces {PREFIX}-{}-*; {how}",
            network.id
        );
        Ok(network)
    }

    /// The switch, a cable from here to it, and one from each namespace.
    fn build(&self) -> Result<()> {
        let switch = self.namespace("switch");
        ip(&["netns", "add", &switch])?;
        ip(&[
            "-n", &switch, "link", "add", "name", "br0", "type", "bridge",
        ])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        let here = format!("sl{}", self.id);
        ip(&[
            "link", "add", "name", &here, "type", "veth", "peer", "name", "p1", "netns", &switch,
        ])?;
        ip(&["-n", &switch, "link", "set", "p1", "master", "br0", "up"])?;
        let own = format!("{}/24", self.address_at(1));
        ip(&["addr", "add", &own, "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        for name in &self.names {
            let (namespace, port) = (self.namespace(name), self.port(name));
            let address = format!("{}/24", self.address(name));
            ip(&["netns", "add", &namespace])?;
            let inside = ["-n", namespace.as_str()];
            ip(&[&inside[..], &["link", "set", "lo", "up"]].concat())?;
            let cable = [
                "link", "add", "name", "eth0", "type", "veth", "peer", "name",
            ];
            let end = [port.as_str(), "netns", switch.as_str()];
            ip(&[&inside[..], &cable[..], &end[..]].concat())?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&[
                &inside[..],
                &["addr", "add", address.as_str(), "dev", "eth0"],
            ]
            .concat())?;
            ip(&[&inside[..], &["link", "set", "eth0", "up"]].concat())?;
        }
        Ok(())
    }

    /// What this kernel can do to make a cable slow.
    fn find_slowness(&mut self) -> &'static [&'static str] {
        let first = self.names[0].clone();
        if self.slow(&first, true).is_err() {
            self.slowness = THROTTLE;
        }
        let _ = self.slow(&first, false);
        self.slowness
    }

    pub(super) fn host(&self, name: &str) -> Host {
        Host::in_namespace(self.namespace(name), self.address(name))
    }

    /// Gives each a false hardware address of the other. Needs nothing but `ip`, and is silent.
    pub(super) fn cut(&self, from: &str, to: &str, cut: Cut) -> Result<()> {
        self.mislead(from, to)?;
        match cut {
            Cut::Both => self.mislead(to, from),
            Cut::There => Ok(()),
        }
    }

    fn mislead(&self, from: &str, to: &str) -> Result<()> {
        let (namespace, address) = (self.namespace(from), self.address(to).to_string());
        let inside = ["-n", namespace.as_str()];
        let false_address = ["neigh", "replace", address.as_str(), "lladdr", NOBODY];
        let stays = ["nud", "permanent", "dev", "eth0"];
        ip(&[&inside[..], &false_address[..], &stays[..]].concat())
    }

    pub(super) fn mend(&self, from: &str, to: &str) {
        for (from, to) in [(from, to), (to, from)] {
            let (namespace, address) = (self.namespace(from), self.address(to).to_string());
            // It may not have been cut this way.
            let _ = ip(&["-n", &namespace, "neigh", "del", &address, "dev", "eth0"]);
        }
    }

    pub(super) fn plug(&self, name: &str, is_in: bool) -> Result<()> {
        let state = if is_in { "up" } else { "down" };
        let switch = self.namespace("switch");
        ip(&["-n", &switch, "link", "set", &self.port(name), state])
    }

    /// At both ends of the cable: each only holds back what it sends.
    pub(super) fn slow(&self, name: &str, is_slow: bool) -> Result<()> {
        let ends = [
            (self.namespace(name), "eth0".to_owned()),
            (self.namespace("switch"), self.port(name)),
        ];
        for (namespace, device) in ends {
            let at = ["dev", device.as_str(), "root"];
            let inside = ["-n", namespace.as_str(), "qdisc"];
            if is_slow {
                run(
                    "tc",
                    &[&inside[..], &["replace"], &at[..], self.slowness].concat(),
                )?;
            } else {
                // It may be fast already.
                let _ = run("tc", &[&inside[..], &["del"], &at[..]].concat());
            }
        }
        Ok(())
    }

    fn namespace(&self, name: &str) -> String {
        format!("{PREFIX}-{}-{name}", self.id)
    }

    fn place(&self, name: &str) -> u8 {
        let place = self.names.iter().position(|known| known == name);
        let place = place.expect("the network was made for this name");
        // The network itself and this end of it come first.
        u8::try_from(place).expect("a handful of nodes") + 2
    }

    fn port(&self, name: &str) -> String {
        format!("p{}", self.place(name))
    }

    fn address(&self, name: &str) -> IpAddr {
        self.address_at(self.place(name))
    }

    fn address_at(&self, place: u8) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, place).into()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Cables go with their ends. The switch goes last: it has one end of each.
        let names = self.names.iter().map(String::as_str);
        for name in names.chain(["switch"]) {
            let _ = ip(&["netns", "del", &self.namespace(name)]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("run {program} (package iproute2)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let succeeded = output.status.success();
    ensure!(
        succeeded,
        "{program} {}: {}",
        arguments.join(" "),
        said.trim()
    );
    Ok(())
}

/// A subnet that no cable of this machine is in.
fn free_subnet(first: u8) -> Result<u8> {
    let output = Command::new("ip")
        .args(["-o", "-4", "addr", "show"])
        .output();
    let known = output.context("run ip (package iproute2)")?.stdout;
    let known = String::from_utf8_lossy(&known).into_owned();
    let mut subnets = (0..=u8::MAX).map(|n| first.wrapping_add(n));
    let free = subnets.find(|subnet| !known.contains(&format!(" 10.213.{subnet}.1/")));
    free.context("all subnets are taken")
}

/// Takes away the namespaces of tests that were killed.
fn remove_leftovers() {
    let Ok(output) = Command::new("ip").args(["netns", "list"]).output() else {
        return;
    };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let mut parts = name.split('-');
        if parts.next() == Some(PREFIX)
            && let Some(process) = parts.next()
            && process.parse::<u32>().is_ok()
            && !Path::new("/proc").join(process).exists()
        {
            let _ = ip(&["netns", "del", name]);
        }
    }
}
