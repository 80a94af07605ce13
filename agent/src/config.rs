//! Settings of the agent: the one place that reads its environment and its settings file.
//!
//! Order, later wins: built-in defaults, the settings file, the command line. The file is the one named by `--config` or
//! `BUILDBEE_AGENT_CONFIG`, else `/etc/buildbee/agent.toml` for root, `$XDG_CONFIG_HOME/buildbee/agent.toml` for others, where there is
//! one. A systemd unit says its folders by `CONFIGURATION_DIRECTORY` and `STATE_DIRECTORY`. `BUILDBEE_LOG` is a tracing filter, `info` if
//! not set.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_NAME_BYTES, MAX_SLOTS_PER_AGENT};
use buildbee_proto::settings_file::{Complaint, line_of_key};
use buildbee_sandbox::spec::Limits;
use hyper::Uri;
use serde::Deserialize;
use thiserror::Error;

use crate::cli::{PlaceArguments, ServeArguments};
use crate::nix_sources::description::TrustedKey;
use crate::nix_sources::http;
use crate::nix_sources::sources::{MAX_CACHES, MAX_KEYS, NixSettings};
use crate::owner::hours::Hours;

/// Every key of the settings file with its meaning and default.
pub const ANNOTATED: &str = include_str!("../../packaging/config/agent.toml");
/// The keys of the settings file, for hints.
const KEYS: &str = "action_memory, action_processes, action_timeout, advertise, blocked, bwrap, cache_size, claim_after, daily_cpu, \
                    hand_back_after, hours, idle_after, listen, logind, mdns, memory_reserve, mode, name, nix_cache, nix_caches, nix_hook, \
                    nix_keys, nix_root, on_battery, owner_file, repair_after, sandbox, scrub_every, slots, state_dir, system_root";
/// The folder of the agent that is a service of this machine.
pub const SERVICE_STATE_DIR: &str = "/var/lib/buildbee-agent";
/// The fixed port of agents.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:7471";
const DEFAULT_CACHE_BYTES: u64 = 20 << 30;
/// Memory that a slot should have, for the number of slots.
const MEMORY_PER_SLOT_BYTES: u64 = 1 << 30;
const DEFAULT_ACTION_MEMORY_BYTES: u64 = 4 << 30;
const DEFAULT_ACTION_TIMEOUT: Duration = Duration::from_secs(600);
const DEFAULT_ACTION_PROCESSES: u64 = 512;
/// Longer than a weekend.
const DEFAULT_REPAIR_AFTER: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Who counts as gone sooner than they can come back would have everything copied for nothing.
const MIN_REPAIR_AFTER: Duration = Duration::from_secs(1);
const DEFAULT_SCRUB_EVERY: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// The store is useless below this.
const MIN_CACHE_BYTES: u64 = 64 << 20;

const DEFAULT_IDLE_AFTER: Duration = Duration::from_secs(5 * 60);
const DEFAULT_CLAIM_AFTER: Duration = Duration::from_secs(30);
const DEFAULT_HAND_BACK_AFTER: Duration = Duration::from_millis(1500);
/// Memory that stays free: this, or this part of a small machine's.
const DEFAULT_RESERVE_BYTES: u64 = 1 << 30;
const RESERVE_PART: u64 = 8;
/// Members that are not lent to.
const MAX_BLOCKED: usize = 256;

/// When to lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// While nobody uses the machine.
    Idle,
    /// As much as its user leaves over.
    Proportional,
    /// Always.
    Dedicated,
    /// Never; blobs and results are served all the same.
    Off,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "idle" => Ok(Self::Idle),
            "proportional" => Ok(Self::Proportional),
            "dedicated" => Ok(Self::Dedicated),
            "off" => Ok(Self::Off),
            _ => Err("it is none of \"idle\", \"proportional\", \"dedicated\", \"off\"".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Proportional => "proportional",
            Self::Dedicated => "dedicated",
            Self::Off => "off",
        })
    }
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When to lend.
    pub mode: Mode,
    /// Actions at once.
    pub n_slots: usize,
    /// Where to listen.
    pub listen: Vec<String>,
    /// Where others reach this machine; empty: where it listens.
    pub advertise: Vec<String>,
    /// Key, membership, store, toolchains.
    pub state_dir: PathBuf,
    /// Most that the store may take.
    pub cache_bytes: u64,
    /// Whether to look for peers by multicast.
    pub mdns: bool,
    /// Appears once the agent listens.
    pub ready_file: Option<PathBuf>,
    /// For people; empty: as in the membership.
    pub name: String,
    /// Where Nix finds all agents' stores, on loopback; `None`: nowhere.
    pub nix_cache: Option<SocketAddr>,
    /// Root folder of the system whose Nix store is shared.
    pub nix_root: PathBuf,
    /// Binary caches that have what no peer has.
    pub nix_caches: Vec<Uri>,
    /// Whose signatures on what they say are good.
    pub nix_keys: Vec<TrustedKey>,
    /// The command that makes store paths be there; empty: none.
    pub nix_hook: Vec<String>,
    /// The program buildbee-sandbox.
    pub sandbox: PathBuf,
    /// The program bwrap.
    pub bwrap: PathBuf,
    /// What one action may use.
    pub limits: Limits,
    /// An agent that was away for as long is replaced as a keeper of results.
    pub repair_after: Duration,
    /// How long the store rests between two rounds in which all of it is read.
    pub scrub_every: Duration,
    /// What the machine's owner allows.
    pub owner: OwnerSettings,
}

/// What the machine's owner allows, besides mode and slots.
#[derive(Clone, Debug)]
pub struct OwnerSettings {
    /// Who has not touched the machine for this long is away.
    pub idle_after: Duration,
    /// More is lent once it was possible for this long.
    pub claim_after: Duration,
    /// How long what runs is held before it is handed back.
    pub hand_back_after: Duration,
    /// When to lend.
    pub hours: Hours,
    /// Whether to lend on battery.
    pub on_battery: bool,
    /// Memory that stays free.
    pub reserve_bytes: u64,
    /// Stands for an owner who is here; `None`: the one in the state folder.
    pub file: Option<PathBuf>,
    /// Members that are not lent to, by name or id.
    pub blocked: Vec<String>,
    /// Whether to ask logind.
    pub logind: bool,
    /// Processor time of all actions of a day.
    pub daily_cpu: Option<Duration>,
    /// Where the system's files are.
    pub system_root: PathBuf,
}

/// The settings file as written. Times are like "10m", sizes like "20GiB".
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct FileSettings {
    /// When to lend: "idle", "proportional", "dedicated", "off". Default "dedicated".
    mode: Option<String>,
    /// Actions at once. Default: one a processor thread, but no more than one a GiB of memory.
    slots: Option<usize>,
    /// Addresses to listen on. Default: `0.0.0.0:7471`.
    listen: Option<Vec<String>>,
    /// Addresses at which others reach this machine. Default: those it listens on.
    advertise: Option<Vec<String>>,
    /// Default `/var/lib/buildbee-agent` for root, `$XDG_STATE_HOME/buildbee-agent` for others.
    state_dir: Option<PathBuf>,
    /// Default "20GiB".
    cache_size: Option<String>,
    /// Default true.
    mdns: Option<bool>,
    /// Default: the name given at joining.
    name: Option<String>,
    /// Default: none.
    nix_cache: Option<String>,
    /// Default "/".
    nix_root: Option<PathBuf>,
    /// Default: none.
    nix_caches: Option<Vec<String>>,
    /// Default: none.
    nix_keys: Option<Vec<String>>,
    /// Default: none.
    nix_hook: Option<Vec<String>>,
    /// Default: `buildbee-sandbox` beside this program.
    sandbox: Option<PathBuf>,
    /// Default: `bwrap` in PATH.
    bwrap: Option<PathBuf>,
    /// Longest time for one action. Default "10m".
    action_timeout: Option<String>,
    /// Address space of each process of an action. Default "4GiB", or the machine's memory where that is less.
    action_memory: Option<String>,
    /// Processes and threads of one action. Default 512.
    action_processes: Option<u64>,
    /// How long another agent may be away before its copies of results are made again elsewhere. Default "3days".
    repair_after: Option<String>,
    /// How long after a look at all that is kept, for what has gone bad on the disk, the next one begins. Default "3days".
    scrub_every: Option<String>,
    /// Who has not touched the machine for this long is away. Default "5m".
    idle_after: Option<String>,
    /// More is lent once it was possible for this long. Default "30s".
    claim_after: Option<String>,
    /// How long actions are held before they are handed back. Default "1500ms".
    hand_back_after: Option<String>,
    /// When to lend. Default: always.
    hours: Option<String>,
    /// Default false.
    on_battery: Option<bool>,
    /// Memory that stays free. Default "1GiB", or an eighth of the machine's where that is less.
    memory_reserve: Option<String>,
    /// Stands for an owner who is here. Default: `owner-present` in the state folder.
    owner_file: Option<PathBuf>,
    /// Members that are not lent to. Default: none.
    blocked: Option<Vec<String>>,
    /// Whether to ask logind which sessions are in use. Default true.
    logind: Option<bool>,
    /// Processor time of all actions of a day. Default: no limit.
    daily_cpu: Option<String>,
    /// Where the system's files are; for tests. Default "/".
    system_root: Option<PathBuf>,
}

/// What is wrong with the settings. Each is the user's to mend.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file that was named can't be read.
    #[error("cannot read settings {}: {error}\nhint: check --config and BUILDBEE_AGENT_CONFIG", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        error: String,
    },
    /// Not TOML, or a key that does not exist, or a value of another type.
    #[error("{}:{line}: {error}\nhint: the keys are {KEYS}; `buildbee-agent help config` describes them", file.display())]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said; names the key.
        error: String,
    },
    /// The log's filter is none.
    #[error("BUILDBEE_LOG {filter:?}: {error}\nhint: write for instance info, debug or buildbee_agent=debug")]
    Log {
        /// As set.
        filter: String,
        /// What is wrong with it.
        error: String,
    },
    /// A value that is none for its key.
    #[error(
        "setting {key}: {value:?} is not valid: {error}\nhint: sizes look like \"20GiB\", times like \"30s\" or \"10m\""
    )]
    Value {
        /// Which key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        error: String,
    },
}

/// What the defaults depend on.
#[derive(Clone, Debug)]
struct Machine {
    root: bool,
    n_cores: usize,
    memory_bytes: u64,
    executable: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Machine {
    fn this() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            root: nix::unistd::geteuid().is_root(),
            n_cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: crate::lease::load::total_memory_bytes(),
            executable: std::env::current_exe().unwrap_or_default(),
            environment,
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// An XDG base folder; where not even HOME is set, below `/nonexistent`, which fails with a clear message.
    fn base(&self, variable: &str, below_home: &str) -> PathBuf {
        let home = || Path::new(self.get("HOME").unwrap_or("/nonexistent")).join(below_home);
        self.get(variable).filter(|path| path.starts_with('/')).map_or_else(home, PathBuf::from)
    }

    /// A folder that systemd made for this unit.
    fn of_unit(&self, variable: &str) -> Option<PathBuf> {
        // Several folders are separated by colons; then none of them is meant.
        self.get(variable).filter(|path| path.starts_with('/') && !path.contains(':')).map(PathBuf::from)
    }

    fn default_state_dir(&self) -> PathBuf {
        if let Some(folder) = self.of_unit("STATE_DIRECTORY") {
            folder
        } else if self.root {
            PathBuf::from(SERVICE_STATE_DIR)
        } else {
            self.base("XDG_STATE_HOME", ".local/state").join("buildbee-agent")
        }
    }

    /// The settings file that the environment names.
    fn named_file(&self) -> Option<PathBuf> {
        self.get("BUILDBEE_AGENT_CONFIG").map(PathBuf::from)
    }

    /// Where the settings file is if none is named.
    fn usual_file(&self) -> PathBuf {
        let usual = || if self.root { PathBuf::from("/etc") } else { self.base("XDG_CONFIG_HOME", ".config") };
        self.of_unit("CONFIGURATION_DIRECTORY").unwrap_or_else(|| usual().join("buildbee")).join("agent.toml")
    }

    fn default_slots(&self) -> usize {
        let by_memory = usize::try_from(self.memory_bytes / MEMORY_PER_SLOT_BYTES).unwrap_or(usize::MAX);
        self.n_cores.min(by_memory).clamp(1, MAX_SLOTS_PER_AGENT)
    }

    /// Absolute, since programs are started from other folders.
    fn find_bwrap(&self) -> PathBuf {
        let folders = self.get("PATH").unwrap_or("/usr/bin:/bin").split(':').filter(|folder| folder.starts_with('/'));
        let mut programs = folders.map(|folder| Path::new(folder).join("bwrap"));
        programs.find(|program| program.is_file()).unwrap_or_else(|| PathBuf::from("/usr/bin/bwrap"))
    }
}

/// Where the settings file is, or would be.
pub fn settings_file() -> PathBuf {
    let machine = Machine::this();
    machine.named_file().unwrap_or_else(|| machine.usual_file())
}

/// The log's filter.
pub fn log_filter() -> String {
    Machine::this().get("BUILDBEE_LOG").unwrap_or("info,libp2p_swarm=warn").to_owned()
}

/// `JOURNAL_STREAM`: where systemd's journal listens.
pub fn journal_stream() -> Option<String> {
    Machine::this().get("JOURNAL_STREAM").map(str::to_owned)
}

impl Settings {
    /// Settings of this process for `serve`.
    pub fn load(arguments: &ServeArguments) -> Result<Self, ConfigError> {
        Self::resolve(arguments, &Machine::this(), |path| std::fs::read_to_string(path))
    }

    /// Settings for the other commands, which only need places.
    pub fn load_places(place: &PlaceArguments, sandbox: Option<PathBuf>) -> Result<Self, ConfigError> {
        Self::load(&ServeArguments { place: place.clone(), sandbox, ..ServeArguments::default() })
    }

    fn resolve(
        arguments: &ServeArguments,
        machine: &Machine,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let (file, text) = read_file(&arguments.place, machine, read)?;
        let written = parse_file(&file, &text)?;
        Self::assemble(arguments.clone(), written, machine).map_err(|error| match error {
            // What is wrong on the command line is not the file's fault.
            ConfigError::Value { key, value, error } if !arguments.gives(key) => match line_of_key(&text, key) {
                Some(line) => {
                    ConfigError::Malformed { file, line, error: format!("{key}: {value:?} is not valid: {error}") }
                }
                None => ConfigError::Value { key, value, error },
            },
            other => other,
        })
    }

    fn assemble(arguments: ServeArguments, file: FileSettings, machine: &Machine) -> Result<Self, ConfigError> {
        let mode = arguments.mode.or(file.mode.clone());
        let listen = Some(arguments.listen).filter(|given| !given.is_empty()).or(file.listen.clone());
        let advertise = Some(arguments.advertise).filter(|given| !given.is_empty()).or(file.advertise.clone());
        let beside = || machine.executable.with_file_name("buildbee-sandbox");
        let cache_size = arguments.cache_size.or(file.cache_size.clone());
        let mode = mode.map_or(Ok(Mode::Dedicated), |mode| parse("mode", &mode, Mode::from_str))?;
        let owner = owner(&file, machine)?;
        let mut limits = limits(file.action_timeout, file.action_memory, file.action_processes, machine)?;
        // A dedicated machine has nobody to give way to.
        limits.gives_way = mode != Mode::Dedicated;
        let settings = Self {
            mode,
            n_slots: arguments.slots.or(file.slots).unwrap_or_else(|| machine.default_slots()),
            listen: listen.unwrap_or_else(|| vec![DEFAULT_LISTEN.to_owned()]),
            advertise: advertise.unwrap_or_default(),
            state_dir: (arguments.place.state_dir.or(file.state_dir)).unwrap_or_else(|| machine.default_state_dir()),
            cache_bytes: cache_size.map_or(Ok(DEFAULT_CACHE_BYTES), |size| parse("cache_size", &size, size_bytes))?,
            mdns: !arguments.no_mdns && file.mdns.unwrap_or(true),
            ready_file: arguments.ready_file,
            name: arguments.name.or(file.name).unwrap_or_default(),
            nix_cache: match arguments.nix_cache.or(file.nix_cache).filter(|address| !address.is_empty()) {
                Some(address) => Some(parse("nix_cache", &address, loopback)?),
                None => None,
            },
            nix_root: arguments.nix_root.or(file.nix_root).unwrap_or_else(|| PathBuf::from("/")),
            nix_caches: all("nix_caches", file.nix_caches, MAX_CACHES, http::cache)?,
            nix_keys: all("nix_keys", file.nix_keys, MAX_KEYS, TrustedKey::from_str)?,
            nix_hook: file.nix_hook.unwrap_or_default(),
            sandbox: arguments.sandbox.or(file.sandbox).unwrap_or_else(beside),
            bwrap: file.bwrap.unwrap_or_else(|| machine.find_bwrap()),
            limits,
            repair_after: (file.repair_after)
                .map_or(Ok(DEFAULT_REPAIR_AFTER), |time| parse("repair_after", &time, humantime::parse_duration))?,
            scrub_every: (file.scrub_every)
                .map_or(Ok(DEFAULT_SCRUB_EVERY), |time| parse("scrub_every", &time, humantime::parse_duration))?,
            owner,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Where toolchains out of Nix's store are had besides from peers.
    pub fn nix_sources(&self) -> NixSettings {
        NixSettings {
            root: self.nix_root.clone(),
            caches: self.nix_caches.clone(),
            keys: self.nix_keys.clone(),
            hook: self.nix_hook.clone(),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, value: String, error: String| Err(ConfigError::Value { key, value, error });
        if self.n_slots == 0 || self.n_slots > MAX_SLOTS_PER_AGENT {
            let error = format!("between 1 and {MAX_SLOTS_PER_AGENT} are possible; to lend nothing, use mode \"off\"");
            return bad("slots", self.n_slots.to_string(), error);
        }
        if self.cache_bytes < MIN_CACHE_BYTES {
            return bad(
                "cache_size",
                self.cache_bytes.to_string(),
                format!("at least {} MiB are needed", MIN_CACHE_BYTES >> 20),
            );
        }
        if self.repair_after < MIN_REPAIR_AFTER {
            return bad("repair_after", format!("{:?}", self.repair_after), "at least \"1s\" is possible".to_owned());
        }
        if self.scrub_every < MIN_REPAIR_AFTER {
            return bad("scrub_every", format!("{:?}", self.scrub_every), "at least \"1s\" is possible".to_owned());
        }
        if self.name.len() > MAX_NAME_BYTES || self.name.chars().any(char::is_control) {
            return bad("name", self.name.clone(), format!("at most {MAX_NAME_BYTES} bytes, no control characters"));
        }
        if self.owner.blocked.len() > MAX_BLOCKED {
            return bad("blocked", self.owner.blocked.len().to_string(), format!("at most {MAX_BLOCKED} members"));
        }
        for (key, addresses) in [("listen", &self.listen), ("advertise", &self.advertise)] {
            if addresses.len() > MAX_ADDRESSES_PER_PEER {
                return bad(key, addresses.len().to_string(), format!("at most {MAX_ADDRESSES_PER_PEER} addresses"));
            }
        }
        Ok(())
    }
}

fn read_file(
    place: &PlaceArguments,
    machine: &Machine,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<(PathBuf, String), ConfigError> {
    let named = place.config.clone().or_else(|| machine.named_file());
    let required = named.is_some();
    let file = named.unwrap_or_else(|| machine.usual_file());
    match read(&file) {
        Ok(text) => Ok((file, text)),
        Err(error) if !required && error.kind() == io::ErrorKind::NotFound => Ok((file, String::new())),
        Err(error) => Err(ConfigError::Read { file, error: error.to_string() }),
    }
}

fn parse_file(file: &Path, text: &str) -> Result<FileSettings, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let Complaint { line, message } = Complaint::new(text, at, error.message());
        ConfigError::Malformed { file: file.to_owned(), line, error: message }
    })
}

fn limits(
    timeout: Option<String>,
    memory: Option<String>,
    processes: Option<u64>,
    machine: &Machine,
) -> Result<Limits, ConfigError> {
    let wall =
        timeout.map_or(Ok(DEFAULT_ACTION_TIMEOUT), |time| parse("action_timeout", &time, humantime::parse_duration))?;
    let default_memory = match machine.memory_bytes {
        0 => DEFAULT_ACTION_MEMORY_BYTES,
        all => all.min(DEFAULT_ACTION_MEMORY_BYTES),
    };
    Ok(Limits {
        wall,
        cpu: wall.saturating_mul(2),
        memory_bytes: memory.map_or(Ok(default_memory), |size| parse("action_memory", &size, size_bytes))?,
        processes: processes.unwrap_or(DEFAULT_ACTION_PROCESSES),
        ..Limits::default()
    })
}

/// The values of a list, each parsed.
fn all<T, E: fmt::Display>(
    key: &'static str,
    values: Option<Vec<String>>,
    n_most: usize,
    one: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, ConfigError> {
    let values = values.unwrap_or_default();
    if values.len() > n_most {
        let error = format!("at most {n_most} are possible");
        return Err(ConfigError::Value { key, value: values.len().to_string(), error });
    }
    values.iter().map(|value| parse(key, value, &one)).collect()
}

/// What it offers is everybody's who can connect.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "an address is like \"127.0.0.1:7474\"".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("only a loopback address is possible".to_owned()) }
}

fn owner(file: &FileSettings, machine: &Machine) -> Result<OwnerSettings, ConfigError> {
    let time = |key, text: &Option<String>, default| {
        text.as_ref().map_or(Ok(default), |text| parse(key, text, humantime::parse_duration))
    };
    let default_reserve = match machine.memory_bytes {
        0 => DEFAULT_RESERVE_BYTES,
        all => DEFAULT_RESERVE_BYTES.min(all / RESERVE_PART),
    };
    let size = |text: &String| parse("memory_reserve", text, size_bytes);
    let no_limit = |text: &&String| !text.is_empty();
    let daily_cpu = file.daily_cpu.as_ref().filter(no_limit);
    Ok(OwnerSettings {
        idle_after: time("idle_after", &file.idle_after, DEFAULT_IDLE_AFTER)?,
        claim_after: time("claim_after", &file.claim_after, DEFAULT_CLAIM_AFTER)?,
        hand_back_after: time("hand_back_after", &file.hand_back_after, DEFAULT_HAND_BACK_AFTER)?,
        hours: parse("hours", file.hours.as_deref().unwrap_or_default(), Hours::from_str)?,
        on_battery: file.on_battery.unwrap_or(false),
        reserve_bytes: file.memory_reserve.as_ref().map_or(Ok(default_reserve), size)?,
        file: file.owner_file.clone().filter(|file| !file.as_os_str().is_empty()),
        blocked: file.blocked.clone().unwrap_or_default(),
        logind: file.logind.unwrap_or(true),
        daily_cpu: daily_cpu.map(|text| parse("daily_cpu", text, humantime::parse_duration)).transpose()?,
        system_root: file.system_root.clone().unwrap_or_else(|| PathBuf::from("/")),
    })
}

fn size_bytes(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>().map(|size| size.as_u64())
}

fn parse<T, E: fmt::Display>(
    key: &'static str,
    value: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, ConfigError> {
    parse(value).map_err(|error| ConfigError::Value { key, value: value.to_owned(), error: error.to_string() })
}

#[cfg(test)]
mod tests {
    use buildbee_proto::settings_file::uncommented;
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, CliCommand};

    fn machine() -> Machine {
        Machine {
            root: false,
            n_cores: 8,
            memory_bytes: 3 << 30,
            executable: "/opt/bin/buildbee-agent".into(),
            environment: BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]),
        }
    }

    fn resolve(words: &[&str], file: Option<&str>, machine: &Machine) -> Result<Settings, ConfigError> {
        let cli = Cli::try_parse_from(["buildbee-agent", "serve"].iter().chain(words)).unwrap();
        let CliCommand::Serve(arguments) = cli.command else { panic!("not serve") };
        Settings::resolve(&arguments, machine, |_| file.map(str::to_owned).ok_or(io::ErrorKind::NotFound.into()))
    }

    #[test]
    fn defaults_follow_the_machine() {
        let settings = resolve(&[], None, &machine()).unwrap();
        assert_eq!((settings.n_slots, settings.mode), (3, Mode::Dedicated));
        assert_eq!(settings.state_dir, Path::new("/h/.local/state/buildbee-agent"));
        assert_eq!(settings.sandbox, Path::new("/opt/bin/buildbee-sandbox"));
        assert_eq!(settings.limits.memory_bytes, 3 << 30);
        let root = Machine { root: true, memory_bytes: 0, ..machine() };
        let settings = resolve(&[], None, &root).unwrap();
        assert_eq!(settings.state_dir, Path::new("/var/lib/buildbee-agent"));
        assert_eq!(settings.n_slots, 1);
    }

    #[test]
    fn a_unit_says_its_folders() {
        let units = [("STATE_DIRECTORY", "/var/lib/a"), ("CONFIGURATION_DIRECTORY", "/etc/b")];
        let environment = units.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let unit = Machine { environment, ..machine() };
        assert_eq!(resolve(&[], None, &unit).unwrap().state_dir, Path::new("/var/lib/a"));
        assert_eq!(unit.usual_file(), Path::new("/etc/b/agent.toml"));
        let file = Some("state_dir = \"/data\"\n");
        assert_eq!(resolve(&[], file, &unit).unwrap().state_dir, Path::new("/data"), "the file wins");
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = Some("slots = 2\nmode = \"off\"\nlisten = [\"127.0.0.1:1\"]\ncache_size = \"1GiB\"\nmdns = true\n");
        let words = ["--slots", "5", "--no-mdns", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
        let settings = resolve(&words, file, &machine()).unwrap();
        assert_eq!((settings.n_slots, settings.mode, settings.mdns), (5, Mode::Off, false));
        assert_eq!(settings.listen, ["127.0.0.1:0", "[::1]:0"]);
        assert_eq!(settings.cache_bytes, 1 << 30);
    }

    #[test]
    fn unknown_keys_name_file_line_and_key() {
        let error = resolve(&["--config", "/c.toml"], Some("mdns = true\ncache_sise = \"1GiB\"\n"), &machine());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("/c.toml:2") && error.contains("cache_sise") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn bad_values_in_the_file_name_file_line_and_key() {
        for (text, line, key) in [
            ("mdns = true\nmode = \"sometimes\"\n", 2, "mode"),
            ("slots = 0\n", 1, "slots"),
            ("slots = -1\n", 1, "slots"),
            ("\n cache_size=\"1\"\n", 2, "cache_size"),
            ("action_timeout = \"soon\"\n", 1, "action_timeout"),
            ("idle_after = \"long\"\n", 1, "idle_after"),
            ("hours = \"nights\"\n", 1, "hours"),
            ("memory_reserve = \"much\"\n", 1, "memory_reserve"),
            ("nix_caches = [\"ftp://cache\"]\n", 1, "nix_caches"),
            ("nix_keys = [\"cache-1:short\"]\n", 1, "nix_keys"),
        ] {
            let error = resolve(&["--config", "/c.toml"], Some(text), &machine()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("/c.toml:{line}: {key}: ")) && error.contains("\nhint: "), "{error}");
        }
        let error = resolve(&["--slots", "0"], Some("slots = 3\n"), &machine()).unwrap_err().to_string();
        assert!(error.starts_with("setting slots: \"0\""), "{error}");
    }

    #[test]
    fn bad_values_name_their_key() {
        for words in [
            ["--mode", "sometimes"],
            ["--slots", "0"],
            ["--slots", "100000"],
            ["--cache-size", "much"],
            ["--cache-size", "1"],
        ] {
            let error = resolve(&words, None, &machine()).unwrap_err().to_string();
            assert!(error.contains("hint:") && error.contains(&words[0][2..].replace('-', "_")), "{error}");
        }
    }

    #[test]
    fn the_annotated_file_has_every_key_with_its_default() {
        let text = uncommented(ANNOTATED);
        let written = serde_json::to_value(parse_file(Path::new("agent.toml"), &text).unwrap()).unwrap();
        let keys: Vec<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.join(", "), KEYS, "sorted, as the hint has them");
        for (key, value) in written.as_object().unwrap() {
            assert!(!value.is_null(), "{key} is missing");
        }
        let executable = "/usr/bin/buildbee-agent".into();
        let machine =
            Machine { root: true, memory_bytes: 16 << 30, executable, environment: BTreeMap::new(), ..machine() };
        let load = |text| format!("{:?}", resolve(&[], Some(text), &machine).unwrap());
        assert_eq!(load(&text), load(""));
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = resolve(&["--config", "/nowhere.toml"], None, &machine()).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
