//! Network namespaces for the members of a farm, joined by one bridge, whose links can be cut. Needs root; leaves the host's own
//! network alone, and goes when dropped.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::geteuid;

/// Tells the networks of one process apart.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The namespaces.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    members: Vec<String>,
}

impl Network {
    /// Makes the bridge; `None`, with a line on stderr, where this user may not.
    pub fn make() -> Option<Self> {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let network = Self { prefix: format!("bt{}-{n}", std::process::id()), members: Vec::new() };
        let bridge = network.space("net");
        if !geteuid().is_root() || !ip(&["netns", "add", &bridge]) {
            skipped("network namespaces need root");
            return None;
        }
        let made = ip(&["-n", &bridge, "link", "add", "bridge0", "type", "bridge"])
            && ip(&["-n", &bridge, "link", "set", "bridge0", "up"]);
        if !made {
            skipped("there are no bridges here");
            return None;
        }
        Some(network)
    }

    /// The namespace of `member`.
    pub fn space(&self, member: &str) -> String {
        format!("{}-{member}", self.prefix)
    }

    /// The address of `member`.
    pub fn address(&self, member: &str) -> String {
        let at = self.members.iter().position(|known| known == member).unwrap_or(self.members.len());
        format!("10.77.1.{}", at + 1)
    }

    /// Gives `member` a namespace with an address.
    ///
    /// # Panics
    ///
    /// When `ip` fails.
    pub fn join(&mut self, member: &str) {
        self.members.push(member.to_owned());
        let (space, bridge) = (self.space(member), self.space("net"));
        let (port, address) = (self.port(member), format!("{}/24", self.address(member)));
        let steps: [&[&str]; 6] = [
            &["netns", "add", &space],
            &["-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space],
            &["-n", &bridge, "link", "set", &port, "master", "bridge0", "up"],
            &["-n", &space, "addr", "add", &address, "dev", "eth0"],
            &["-n", &space, "link", "set", "eth0", "up"],
            &["-n", &space, "link", "set", "lo", "up"],
        ];
        for step in steps {
            assert!(ip(step), "ip {step:?} failed");
        }
    }

    /// Pulls the plug of `member`, or puts it back: at the switch, so that `member` sees its own link as up and hears nothing.
    ///
    /// # Panics
    ///
    /// When `ip` fails.
    pub fn set_link(&self, member: &str, up: bool) {
        let state = if up { "up" } else { "down" };
        assert!(ip(&["-n", &self.space("net"), "link", "set", &self.port(member), state]), "the link of {member}");
    }

    /// Packets from `member` to `other` get nowhere, and so no answers come either, or they do again: all else of both goes on.
    ///
    /// # Panics
    ///
    /// When `ip` fails.
    pub fn set_apart(&self, member: &str, other: &str, apart: bool) {
        let (space, address) = (self.space(member), self.address(other));
        let done = if apart {
            ip(&["-n", &space, "route", "add", "blackhole", &address])
        } else {
            ip(&["-n", &space, "route", "del", "blackhole", &address])
        };
        assert!(done, "the route of {member} to {other}");
    }

    /// What the names of its namespaces begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Bytes that `member` has sent to others so far.
    ///
    /// # Panics
    ///
    /// When the kernel does not tell.
    pub fn sent_bytes(&self, member: &str) -> u64 {
        let told = Command::new("ip").args(["netns", "exec", &self.space(member), "cat", "/proc/net/dev"]).output();
        let told = String::from_utf8(told.map(|output| output.stdout).unwrap_or_default()).unwrap_or_default();
        let link = told.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"));
        let sent = link.and_then(|numbers| numbers.split_whitespace().nth(8)?.parse().ok());
        sent.unwrap_or_else(|| panic!("what {member} has sent: {told}"))
    }

    /// A link's name has at most 15 bytes.
    fn port(&self, member: &str) -> String {
        let at = self.members.iter().position(|known| known == member).unwrap_or(self.members.len());
        format!("port{at}")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for member in self.members.iter().map(String::as_str).chain(["net"]) {
            let _ = ip(&["netns", "del", &self.space(member)]);
        }
    }
}

/// Says why a test shows nothing here.
#[expect(clippy::print_stderr, reason = "what the test's reader should know")]
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

fn ip(arguments: &[&str]) -> bool {
    let mut ip = Command::new("ip");
    ip.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ip.status().is_ok_and(|status| status.success())
}
