//! Settings: command line over environment over file over defaults. The only place that reads the environment.
//!
//! | variable | meaning |
//! |---|---|
//! | `BUILDBEE_COORDINATOR_CONFIG` | settings file, like `--config` |
//! | `BUILDBEE_COORDINATOR_STATE_DIR` | state folder, like `--state-dir` |
//! | `BUILDBEE_COORDINATOR_LOG` | what is logged, like the `log` setting |
//! | `CONFIGURATION_DIRECTORY`, `STATE_DIRECTORY` | a systemd unit's own folders, in place of the usual ones |
//! | `JOURNAL_STREAM` | set by systemd: where its journal listens |

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use buildbee_proto::limits::MAX_ADDRESSES_PER_PEER;
use buildbee_proto::settings_file::{Complaint, line_of_key};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cli::{ServeArgs, Sources};

/// The coordinator's documented port.
pub const DEFAULT_PORT: u16 = 7470;
/// The documented port of the status page.
pub const DEFAULT_STATUS_PORT: u16 = 7472;
/// Names under which the status page may be asked for, at most.
const MAX_STATUS_HOSTS: usize = 16;
/// Largest settings file in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Every key of the settings file with its meaning and default.
pub const ANNOTATED: &str = include_str!("../../packaging/config/coordinator.toml");
/// The keys of a settings file, for hints.
const KEYS: &str = "addresses, listen, log, mdns, state_dir, status, status_hosts";
/// The word for no status page.
const OFF: &str = "off";

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("settings file {}: {source}\nhint: check the path given by --config or BUILDBEE_COORDINATOR_CONFIG", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}: {reason}\nhint: the keys are {KEYS}; `buildbee-coordinator help config` describes them", file.display())]
    Invalid {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong; names the key.
        reason: String,
    },
    /// There is no place for the state.
    #[error("no state folder: neither XDG_STATE_HOME nor HOME is set\nhint: name one: --state-dir DIR")]
    NoStateDir,
}

/// The settings file. Every key may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// Address and port to listen on; port 0 is any free one. Default: `"0.0.0.0:7470"`.
    pub listen: SocketAddr,
    /// Folder of the farm's key and its list of members. Default: `/var/lib/buildbee-coordinator` for root, else
    /// `$XDG_STATE_HOME/buildbee-coordinator`.
    pub state_dir: Option<PathBuf>,
    /// `host:port` under which others reach this coordinator, for tickets. Default: none, the machine's addresses are used.
    pub addresses: Vec<String>,
    /// Whether the coordinator can be found by multicast on the local network. Default: `true`.
    pub mdns: bool,
    /// What is logged, as a `tracing` filter. Default: `"info,libp2p=warn"`.
    pub log: String,
    /// Where the status page and `/metrics` are. Default: `"127.0.0.1:7472"`.
    pub status: StatusAddress,
    /// Further names under which the page may be asked for. Default: none.
    pub status_hosts: Vec<String>,
}

/// Where the status page is; nowhere where it is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusAddress(pub Option<SocketAddr>);

impl FromStr for StatusAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == OFF {
            return Ok(Self(None));
        }
        let wrong = |_| format!("{text:?} is neither \"{OFF}\" nor an address with a port, like \"127.0.0.1:7472\"");
        text.parse().map(|address| Self(Some(address))).map_err(wrong)
    }
}

impl TryFrom<String> for StatusAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StatusAddress> for String {
    fn from(address: StatusAddress) -> Self {
        address.0.map_or_else(|| OFF.to_owned(), |address| address.to_string())
    }
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT),
            state_dir: None,
            addresses: Vec::new(),
            mdns: true,
            log: "info,libp2p=warn".to_owned(),
            status: StatusAddress(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_STATUS_PORT))),
            status_hosts: Vec::new(),
        }
    }
}

/// What the program works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// State folder.
    pub state_dir: PathBuf,
    /// For tickets; may be empty.
    pub addresses: Vec<String>,
    /// Whether to use multicast.
    pub mdns: bool,
    /// What is logged.
    pub log: String,
    /// Where the status page is.
    pub status: StatusAddress,
    /// Further names of it.
    pub status_hosts: Vec<String>,
}

/// What is taken from the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    log: Option<String>,
    home: Option<PathBuf>,
    state_home: Option<PathBuf>,
    config_home: Option<PathBuf>,
    unit_state: Option<PathBuf>,
    unit_config: Option<PathBuf>,
    journal_stream: Option<String>,
    is_root: bool,
}

impl Environment {
    /// This process's.
    #[expect(clippy::disallowed_methods, reason = "the one place of this program that reads the environment")]
    pub fn read() -> Self {
        Self::from_variables(|name| std::env::var_os(name), nix::unistd::geteuid().is_root())
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Self {
        // An empty variable is an unset one.
        let path = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Several folders are separated by colons; then none of them is meant.
        let of_unit = |name: &str| {
            path(name).filter(|path| path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&b':'))
        };
        Self {
            config: path("BUILDBEE_COORDINATOR_CONFIG"),
            state_dir: path("BUILDBEE_COORDINATOR_STATE_DIR"),
            log: get("BUILDBEE_COORDINATOR_LOG")
                .and_then(|value| value.into_string().ok())
                .filter(|log| !log.is_empty()),
            home: path("HOME"),
            state_home: path("XDG_STATE_HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            unit_state: of_unit("STATE_DIRECTORY"),
            unit_config: of_unit("CONFIGURATION_DIRECTORY"),
            journal_stream: get("JOURNAL_STREAM").and_then(|value| value.into_string().ok()),
            is_root,
        }
    }

    /// `JOURNAL_STREAM`: where systemd's journal listens.
    pub fn journal_stream(&self) -> Option<&str> {
        self.journal_stream.as_deref()
    }

    /// Where the settings file is, or would be.
    pub fn settings_file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| self.default_config())
    }

    fn default_config(&self) -> Option<PathBuf> {
        if let Some(folder) = &self.unit_config {
            return Some(folder.join("coordinator.toml"));
        }
        if self.is_root {
            return Some(PathBuf::from("/etc/buildbee/coordinator.toml"));
        }
        let home = self.config_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config")))?;
        Some(home.join("buildbee/coordinator.toml"))
    }

    fn default_state_dir(&self) -> Option<PathBuf> {
        if self.unit_state.is_some() {
            return self.unit_state.clone();
        }
        if self.is_root {
            return Some(PathBuf::from("/var/lib/buildbee-coordinator"));
        }
        let home = self.state_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/state")))?;
        Some(home.join("buildbee-coordinator"))
    }
}

impl Settings {
    /// The settings for a command. A file that was named must exist; the default one may be absent.
    pub fn load(sources: &Sources, serve: &ServeArgs, environment: &Environment) -> Result<Self, ConfigError> {
        let file = match sources.config.as_ref().or(environment.config.as_ref()) {
            Some(named) => read_file(named)?,
            None => {
                environment.default_config().map_or_else(|| Ok(ConfigFile::default()), |file| read_default(&file))?
            }
        };
        let state_dir = sources.state_dir.clone().or_else(|| environment.state_dir.clone()).or(file.state_dir);
        Ok(Self {
            listen: serve.listen.unwrap_or(file.listen),
            state_dir: state_dir.or_else(|| environment.default_state_dir()).ok_or(ConfigError::NoStateDir)?,
            addresses: file.addresses,
            mdns: file.mdns && !serve.no_mdns,
            log: environment.log.clone().unwrap_or(file.log),
            status: serve.status.unwrap_or(file.status),
            status_hosts: file.status_hosts,
        })
    }
}

fn read_default(file: &Path) -> Result<ConfigFile, ConfigError> {
    match read_file(file) {
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(ConfigFile::default()),
        other => other,
    }
}

fn read_file(file: &Path) -> Result<ConfigFile, ConfigError> {
    let failed = |source| ConfigError::Read { file: file.to_owned(), source };
    let mut text = String::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(MAX_CONFIG_BYTES).read_to_string(&mut text).map_err(failed)?;
    parse(file, &text)
}

fn parse(file: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    let invalid = |line, reason| ConfigError::Invalid { file: file.to_owned(), line, reason };
    let config: ConfigFile = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let Complaint { line, message } = Complaint::new(text, at, error.message());
        invalid(line, message)
    })?;
    if config.addresses.len() > MAX_ADDRESSES_PER_PEER {
        let line = line_of_key(text, "addresses").unwrap_or(1);
        return Err(invalid(line, format!("addresses: more than {MAX_ADDRESSES_PER_PEER} are given")));
    }
    if config.status_hosts.len() > MAX_STATUS_HOSTS {
        let line = line_of_key(text, "status_hosts").unwrap_or(1);
        return Err(invalid(line, format!("status_hosts: more than {MAX_STATUS_HOSTS} are given")));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use buildbee_proto::settings_file::uncommented;

    use super::*;

    fn environment(variables: &[(&str, &str)], is_root: bool) -> Environment {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Environment::from_variables(|name| variables.get(name).map(OsString::from), is_root)
    }

    fn error(text: &str) -> String {
        parse(Path::new("/etc/c.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let shown = error("mdns = true\n\nlisen = \"0.0.0.0:1\"\n");
        assert!(shown.starts_with("/etc/c.toml:3: unknown field `lisen`"), "{shown}");
        assert!(shown.contains("\nhint: "), "{shown}");
        let shown = error("mdns = \"yes\"\n");
        assert!(shown.starts_with("/etc/c.toml:1: mdns: invalid type"), "{shown}");
        let shown = error("# first\nlisten = \"everywhere\"\n");
        assert!(shown.starts_with("/etc/c.toml:2: listen: invalid socket address"), "{shown}");
        let shown = error("mdns = true\nlisten = [\n");
        assert!(shown.starts_with("/etc/c.toml:2"), "{shown}");
        let shown = error("status = \"yes\"\n");
        assert!(shown.starts_with("/etc/c.toml:1: status: \"yes\" is neither"), "{shown}");
        let shown = error(&format!("status_hosts = [{}]", "\"a\",".repeat(17)));
        assert!(shown.starts_with("/etc/c.toml:1: status_hosts: more than 16 are given"), "{shown}");
        let shown = error(&format!("addresses = [{}]", "\"a:1\",".repeat(17)));
        assert!(shown.starts_with("/etc/c.toml:1: addresses: more than 16 are given"), "{shown}");
    }

    #[test]
    fn the_annotated_file_has_every_key_with_its_default() {
        let text = uncommented(ANNOTATED);
        let written = parse(Path::new("coordinator.toml"), &text).unwrap();
        let fields = serde_json::to_value(&written).unwrap();
        let keys: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.join(", "), KEYS, "sorted, as the hint has them");
        for key in keys {
            assert!(line_of_key(&text, key).is_some(), "{key} is missing");
        }
        let environment = environment(&[], true);
        assert_eq!(written.state_dir, environment.default_state_dir());
        assert_eq!(ConfigFile { state_dir: None, ..written }, ConfigFile::default());
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse(Path::new("x"), "").unwrap(), ConfigFile::default());
        assert_eq!(ConfigFile::default().listen.to_string(), "0.0.0.0:7470");
    }

    #[test]
    fn command_line_over_environment_over_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, "state_dir = \"/file\"\nlisten = \"127.0.0.1:1\"\naddresses = [\"a:1\"]\nlog = \"debug\"\n")
            .unwrap();
        let file_variable = ("BUILDBEE_COORDINATOR_CONFIG", file.to_str().unwrap());
        let plain = environment(&[file_variable], true);
        let settings = Settings::load(&Sources::default(), &ServeArgs::default(), &plain).unwrap();
        assert_eq!((settings.state_dir.to_str(), settings.log.as_str()), (Some("/file"), "debug"));
        let more = [file_variable, ("BUILDBEE_COORDINATOR_STATE_DIR", "/env"), ("BUILDBEE_COORDINATOR_LOG", "trace")];
        let settings = Settings::load(&Sources::default(), &ServeArgs::default(), &environment(&more, true)).unwrap();
        assert_eq!((settings.state_dir.to_str(), settings.log.as_str()), (Some("/env"), "trace"));
        let sources = Sources { config: Some(file.clone()), state_dir: Some(PathBuf::from("/cli")) };
        let serve = ServeArgs { listen: Some("127.0.0.1:9".parse().unwrap()), no_mdns: true, ..ServeArgs::default() };
        let settings = Settings::load(&sources, &serve, &environment(&more, true)).unwrap();
        assert_eq!((settings.state_dir.to_str(), settings.listen.port()), (Some("/cli"), 9));
        assert!(!settings.mdns);
        assert_eq!(settings.status, StatusAddress(Some("127.0.0.1:7472".parse().unwrap())));
        let off = ServeArgs { status: Some(StatusAddress(None)), ..ServeArgs::default() };
        assert_eq!(Settings::load(&sources, &off, &environment(&[], true)).unwrap().status, StatusAddress(None));
    }

    #[test]
    fn state_is_where_such_things_are() {
        let load = |environment: &Environment| Settings::load(&Sources::default(), &ServeArgs::default(), environment);
        let folder = |environment: &Environment| load(environment).unwrap().state_dir;
        assert_eq!(folder(&environment(&[], true)), Path::new("/var/lib/buildbee-coordinator"));
        let home = [("HOME", "/home/a")];
        assert_eq!(folder(&environment(&home, false)), Path::new("/home/a/.local/state/buildbee-coordinator"));
        let xdg = [("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(folder(&environment(&xdg, false)), Path::new("/s/buildbee-coordinator"));
        assert!(matches!(load(&environment(&[("HOME", "")], false)), Err(ConfigError::NoStateDir)));
        let unit = environment(&[("STATE_DIRECTORY", "/s"), ("CONFIGURATION_DIRECTORY", "/c")], false);
        assert_eq!(folder(&unit), Path::new("/s"));
        assert_eq!(unit.settings_file().as_deref(), Some(Path::new("/c/coordinator.toml")));
        assert_eq!(
            folder(&environment(&[("STATE_DIRECTORY", "/s:/t")], true)),
            Path::new("/var/lib/buildbee-coordinator")
        );
    }

    #[test]
    fn a_named_file_must_exist() {
        let sources = Sources { config: Some(PathBuf::from("/nonexistent/c.toml")), state_dir: None };
        let result = Settings::load(&sources, &ServeArgs::default(), &environment(&[], true));
        assert!(matches!(result, Err(ConfigError::Read { .. })));
    }
}
