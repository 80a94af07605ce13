//! Settings of the daemon and the command line: the one place that reads the environment and the settings file.
//!
//! Order, later wins: built-in defaults, `config.toml`, `BUILDBEE_…` variables. The wrapper has its own tiny reader
//! (`wrapper/settings.rs`), because it must not wait for a file; so the socket, which both must find, has a variable and no key. Where it
//! becomes a rustc it reads `paths` (`wrapper/rust_paths.rs`).
//!
//! | variable | key in `config.toml` | default |
//! |---|---|---|
//! | `BUILDBEE_CONFIG` | | `$XDG_CONFIG_HOME/buildbee/config.toml` |
//! | `BUILDBEE_SOCKET` | | `$XDG_RUNTIME_DIR/buildbee/daemon.sock`, else `/tmp/buildbee-UID/daemon.sock` |
//! | `BUILDBEE_STATE_DIR` | `state_dir` | `$XDG_STATE_HOME/buildbee` |
//! | `BUILDBEE_CACHE_DIR` | `cache_dir` | `$XDG_CACHE_HOME/buildbee` |
//! | `BUILDBEE_CACHE_SIZE` | `cache_size` | `20 GiB` |
//! | `BUILDBEE_LOCAL_SLOTS` | `local_slots` | number of processor threads |
//! | `BUILDBEE_RACING` | `racing` | `tail` |
//! | `BUILDBEE_CLASS` | `class` | `interactive` |
//! | `BUILDBEE_COMPILERS` | `compilers` | `alike` |
//! | `BUILDBEE_PATHS` | `paths` | `portable` (the variable is read for each compile, of Rust and below build scripts, from its own environment) |
//! | `BUILDBEE_BUILD_SCRIPTS` | `build_scripts` | `false` (the variable is read for each build from its own environment) |
//! | `BUILDBEE_HTTP_CACHE` | `http_cache` | `off` |
//! | `BUILDBEE_IDLE_TIMEOUT` | `idle_timeout` | `1h` |
//! | `BUILDBEE_MDNS` | `mdns` | `true` |
//! | | `outboard` | Nix's store (`toolchain::outboard`) |
//! | `BUILDBEE_LOG` | | `info` (a tracing filter, for the daemon's log file) |
//! | `BUILDBEE_BASE_DIR` | | none (read by the wrapper for each compile: see `wrapper/base_dir.rs`) |
//! | `BUILDBEE` | | `off`: run the compiler at once; `strict`: fail where a farm failure would end in a local run |

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use buildbee_proto::control::Class;
use buildbee_proto::settings_file::{Complaint, line_of_key};
use serde::Deserialize;
use thiserror::Error;

use crate::cli::shell;
use crate::rust::roots::PathSetting;
use crate::toolchain::outboard::Store;
use crate::wrapper::socket::{self, MAX_SOCKET_PATH_BYTES};

/// Whether the build scripts of one build are kept, whatever the daemon's setting.
pub const BUILD_SCRIPTS_VARIABLE: &str = "BUILDBEE_BUILD_SCRIPTS";

/// The keys of the settings file, for hints.
const KEYS: &str = "build_scripts, cache_dir, cache_size, class, compilers, http_cache, idle_timeout, local_slots, mdns, outboard, paths, racing, \
     state_dir";

/// Every key with its meaning and default.
pub const ANNOTATED: &str = include_str!("../../packaging/config/config.toml");

/// When an action that runs on the farm is also run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Racing {
    /// Never.
    Off,
    /// When it is late and a local slot is free.
    Tail,
    /// As soon as a local slot is free.
    Eager,
}

impl Racing {
    /// The word in settings and status.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tail => "tail",
            Self::Eager => "eager",
        }
    }
}

impl FromStr for Racing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "tail" => Ok(Self::Tail),
            "eager" => Ok(Self::Eager),
            other => Err(format!("{other:?} is none of \"off\", \"tail\", \"eager\"")),
        }
    }
}

/// Which compilers agents may run for this machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compilers {
    /// The same, or a double that has proved to make the same bytes.
    #[default]
    Alike,
    /// The same only.
    Exact,
    /// A double also where what it makes is equal but for an order that nothing depends on: rustc's.
    Equivalent,
}

impl FromStr for Compilers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "alike" => Ok(Self::Alike),
            "exact" => Ok(Self::Exact),
            "equivalent" => Ok(Self::Equivalent),
            other => Err(format!("{other:?} is none of \"alike\", \"exact\", \"equivalent\"")),
        }
    }
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The daemon's Unix socket.
    pub socket: PathBuf,
    /// Identity, enrolment, log.
    pub state_dir: PathBuf,
    /// The local cache.
    pub cache_dir: PathBuf,
    /// Its cap in bytes.
    pub cache_bytes: u64,
    /// How many actions are run here by choice. Where nothing else is left, an action runs here all the same.
    pub local_slots: usize,
    /// When to race.
    pub racing: Racing,
    /// How urgent this user's builds are to the farm.
    pub class: Class,
    /// Which compilers agents may run.
    pub compilers: Compilers,
    /// Whether what compiles of Rust, and of C below build scripts, leave behind holds names in place of folders.
    pub paths: PathSetting,
    /// Whether runs of cargo's build scripts are kept.
    pub build_scripts: bool,
    /// Where ccache and sccache find a cache, if they are to.
    pub http_cache: Option<SocketAddr>,
    /// The daemon leaves after this long without a caller.
    pub idle_timeout: Duration,
    /// Whether to look for the coordinator by mDNS where its known addresses fail.
    pub mdns: bool,
    /// Stores out of which compilers come with all that they need.
    pub outboard: Vec<Store>,
    /// Filter of the daemon's log.
    pub log: String,
}

impl Settings {
    /// The identity's key file.
    pub fn identity_file(&self) -> PathBuf {
        self.state_dir.join("identity.key")
    }

    /// Verdicts on doubles.
    pub fn doubles_file(&self) -> PathBuf {
        self.state_dir.join("doubles.json")
    }

    /// What `buildbee join` keeps.
    pub fn enrolment_file(&self) -> PathBuf {
        self.state_dir.join("enrolment")
    }

    /// The daemon's log.
    pub fn log_file(&self) -> PathBuf {
        self.state_dir.join("daemon.log")
    }

    /// Settings from the process's environment and the file it names.
    pub fn load() -> Result<Self, ConfigError> {
        let environment = environment();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let home = Places { uid: nix::unistd::geteuid().as_raw(), cores };
        Self::from_environment(&environment, &home, |path| std::fs::read_to_string(path))
    }

    fn from_environment(
        environment: &BTreeMap<String, String>,
        places: &Places,
        read: impl Fn(&Path) -> std::io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let get = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let base = |variable: &str, below_home: &str| base_folder(get, variable, below_home);
        let (file, named) = file_place(get);
        let text = match read(&file) {
            Ok(text) => text,
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::Read { file, error: error.to_string() }),
        };
        let written = parse_file(&file, &text)?;
        Self::assemble(get, base, written, places).map_err(|error| match error {
            ConfigError::Value { key, value, error }
                if get(&format!("BUILDBEE_{}", key.to_ascii_uppercase())).is_none() =>
            {
                let error = format!("{key}: {value:?} is not valid: {error}");
                ConfigError::Malformed { line: line_of_key(&text, key).unwrap_or(1), file, error }
            }
            other => other,
        })
    }

    fn assemble<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        base: impl Fn(&str, &str) -> PathBuf,
        written: FileSettings,
        places: &Places,
    ) -> Result<Self, ConfigError> {
        let runtime = get("XDG_RUNTIME_DIR").map(Path::new).filter(|path| path.is_absolute());
        let socket = socket::place(get("BUILDBEE_SOCKET").map(Path::new), runtime, places.uid);
        let length = socket.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            return Err(ConfigError::SocketPath { socket, length });
        }
        let text = |name: &'static str, key: Option<String>| get(name).map(str::to_owned).or(key);
        Ok(Self {
            socket,
            state_dir: get("BUILDBEE_STATE_DIR")
                .map(PathBuf::from)
                .or(written.state_dir)
                .unwrap_or_else(|| base("XDG_STATE_HOME", ".local/state").join("buildbee")),
            cache_dir: get("BUILDBEE_CACHE_DIR")
                .map(PathBuf::from)
                .or(written.cache_dir)
                .unwrap_or_else(|| base("XDG_CACHE_HOME", ".cache").join("buildbee")),
            cache_bytes: match text("BUILDBEE_CACHE_SIZE", written.cache_size) {
                Some(size) => parse_value("cache_size", &size, |size| {
                    size.parse::<bytesize::ByteSize>().map(|size| size.as_u64())
                })?,
                None => 20 << 30,
            },
            local_slots: match get("BUILDBEE_LOCAL_SLOTS") {
                Some(slots) => {
                    parse_value("local_slots", slots, |slots| -> Result<usize, ParseIntError> { slots.parse() })?
                }
                None => written.local_slots.unwrap_or(places.cores),
            },
            racing: match text("BUILDBEE_RACING", written.racing) {
                Some(racing) => parse_value("racing", &racing, Racing::from_str)?,
                None => Racing::Tail,
            },
            class: match text("BUILDBEE_CLASS", written.class) {
                Some(class) => parse_value("class", &class, parse_class)?,
                None => Class::default(),
            },
            compilers: match text("BUILDBEE_COMPILERS", written.compilers) {
                Some(compilers) => parse_value("compilers", &compilers, Compilers::from_str)?,
                None => Compilers::default(),
            },
            paths: paths(get("BUILDBEE_PATHS"), written.paths.as_deref())?,
            build_scripts: {
                // As with paths, the variable is each build's own.
                get(BUILD_SCRIPTS_VARIABLE).map(|word| flag("build_scripts", word)).transpose()?;
                written.build_scripts.unwrap_or(false)
            },
            http_cache: match text("BUILDBEE_HTTP_CACHE", written.http_cache) {
                Some(address) => parse_value("http_cache", &address, parse_loopback)?,
                None => None,
            },
            idle_timeout: match text("BUILDBEE_IDLE_TIMEOUT", written.idle_timeout) {
                Some(time) => parse_value("idle_timeout", &time, humantime::parse_duration)?,
                None => Duration::from_secs(3600),
            },
            mdns: match get("BUILDBEE_MDNS") {
                Some(word) => flag("mdns", word)?,
                None => written.mdns.unwrap_or(true),
            },
            outboard: outboard(written.outboard)?,
            log: get("BUILDBEE_LOG").unwrap_or("info").to_owned(),
        })
    }
}

/// Where the settings file is, or would be.
pub fn settings_file() -> PathBuf {
    let environment = environment();
    file_place(|name| environment.get(name).map(String::as_str).filter(|value| !value.is_empty())).0
}

/// What `buildbee env` starts from.
pub fn shell_variables() -> shell::Variables {
    let mut environment = environment();
    let mut take = |name| environment.remove(name);
    shell::Variables { path: take("PATH").unwrap_or_default(), cc: take("CC"), cxx: take("CXX") }
}

/// What rustup's stand-ins decide by.
#[derive(Debug)]
pub struct RustVariables {
    /// `HOME`.
    pub home: Option<OsString>,
    /// `RUSTUP_HOME`.
    pub rustup_home: Option<OsString>,
    /// `RUSTUP_TOOLCHAIN`.
    pub rustup_toolchain: Option<OsString>,
}

/// Those of this process.
pub fn rust_variables() -> RustVariables {
    let mut environment = environment();
    let mut take = |name| environment.remove(name).map(OsString::from);
    RustVariables { home: take("HOME"), rustup_home: take("RUSTUP_HOME"), rustup_toolchain: take("RUSTUP_TOOLCHAIN") }
}

fn environment() -> BTreeMap<String, String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    let variables = std::env::vars_os();
    let mut environment: BTreeMap<_, _> =
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    // Build tools that clear the environment still run as somebody, who has a home and perhaps a session.
    let mut supply = |name: &str, value: &dyn Fn() -> Option<PathBuf>| {
        if environment.get(name).is_none_or(String::is_empty) {
            let value = value().and_then(|path| path.into_os_string().into_string().ok());
            environment.extend(value.map(|value| (name.to_owned(), value)));
        }
    };
    let user = nix::unistd::geteuid();
    supply("HOME", &|| nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.dir));
    supply("XDG_RUNTIME_DIR", &|| socket::session_folder(user.as_raw()));
    environment
}

/// The settings file, and whether the user named it.
fn file_place<'a>(get: impl Fn(&str) -> Option<&'a str>) -> (PathBuf, bool) {
    match get("BUILDBEE_CONFIG") {
        Some(path) => (PathBuf::from(path), true),
        None => (base_folder(get, "XDG_CONFIG_HOME", ".config").join("buildbee/config.toml"), false),
    }
}

/// An XDG base folder; where not even HOME is set, below `/nonexistent`, which fails with a clear message.
fn base_folder<'a>(get: impl Fn(&str) -> Option<&'a str>, variable: &str, below_home: &str) -> PathBuf {
    let home = || Path::new(get("HOME").unwrap_or("/nonexistent")).join(below_home);
    get(variable).filter(|path| path.starts_with('/')).map_or_else(home, PathBuf::from)
}

/// What the defaults depend on besides the environment.
#[derive(Debug)]
struct Places {
    uid: u32,
    cores: usize,
}

/// `config.toml` as written. Every key is documented in `packaging/config/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct FileSettings {
    state_dir: Option<PathBuf>,
    build_scripts: Option<bool>,
    cache_dir: Option<PathBuf>,
    cache_size: Option<String>,
    compilers: Option<String>,
    local_slots: Option<usize>,
    paths: Option<String>,
    racing: Option<String>,
    class: Option<String>,
    http_cache: Option<String>,
    idle_timeout: Option<String>,
    mdns: Option<bool>,
    outboard: Option<Vec<Store>>,
}

fn parse_file(file: &Path, text: &str) -> Result<FileSettings, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let Complaint { line, message } = Complaint::new(text, at, error.message());
        ConfigError::Malformed { file: file.to_owned(), line, error: message }
    })
}

fn parse_class(word: &str) -> Result<Class, &'static str> {
    match word {
        "interactive" => Ok(Class::Interactive),
        "batch" => Ok(Class::Batch),
        _ => Err("it is neither \"interactive\" nor \"batch\""),
    }
}

fn parse_loopback(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
        Ok(_) => Err("others must not reach it: a loopback address, as in \"127.0.0.1:7473\"".to_owned()),
        Err(_) => Err("it is neither \"off\" nor an address with a port, as in \"127.0.0.1:7473\"".to_owned()),
    }
}

fn parse_value<T, E: std::fmt::Display>(
    key: &'static str,
    value: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, ConfigError> {
    parse(value).map_err(|error| ConfigError::Value { key, value: value.to_owned(), error: error.to_string() })
}

fn flag(key: &'static str, word: &str) -> Result<bool, ConfigError> {
    parse_value(key, word, |word| switch(word).ok_or_else(|| format!("{word:?} is neither \"on\" nor \"off\"")))
}

/// What a word says of a setting that is on or off.
pub fn switch(word: &str) -> Option<bool> {
    match word {
        "1" | "true" | "on" => Some(true),
        "0" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// What the file says, if both are valid. The variable is each build's own, and not that of whoever happened to start the daemon.
fn paths(variable: Option<&str>, written: Option<&str>) -> Result<PathSetting, ConfigError> {
    let parse = |word: &str| {
        parse_value("paths", word, |word| {
            PathSetting::from_word(word).ok_or_else(|| format!("{word:?} is neither \"portable\" nor \"exact\""))
        })
    };
    variable.map(parse).transpose()?;
    Ok(written.map(parse).transpose()?.unwrap_or_default())
}

fn outboard(written: Option<Vec<Store>>) -> Result<Vec<Store>, ConfigError> {
    let Some(stores) = written else { return Ok(vec![Store::nix()]) };
    let odd = |store: &&Store| !store.prefix.is_absolute() || store.prefix.parent().is_none();
    match stores.iter().find(odd) {
        None => Ok(stores),
        Some(store) => {
            let (value, error) = (store.prefix.display().to_string(), "a store is an absolute path below /".to_owned());
            Err(ConfigError::Value { key: "outboard", value, error })
        }
    }
}

/// What is wrong with the settings. Each is the user's to mend.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file that was named can't be read.
    #[error("cannot read settings {file}: {error}\nhint: check BUILDBEE_CONFIG, or unset it to use the default place", file = file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        error: String,
    },
    /// Not TOML, or a key that does not exist, or a value of another type.
    #[error("{file}:{line}: {error}\nhint: the keys are {KEYS}; `buildbee help config` describes them", file = file.display())]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said; names the key.
        error: String,
    },
    /// A value that is none for its key.
    #[error(
        "setting {key}: {value:?} is not valid: {error}\nhint: sizes look like \"20 GiB\", times like \"30s\" or \"1h\""
    )]
    Value {
        /// Which key (or its variable).
        key: &'static str,
        /// What was written.
        value: String,
        /// What is wrong with it.
        error: String,
    },
    /// The socket's path does not fit in a Unix socket address.
    #[error("socket path {socket} has {length} bytes, {MAX_SOCKET_PATH_BYTES} are the most that a Unix socket can have\nhint: set BUILDBEE_SOCKET to a shorter path", socket = socket.display())]
    SocketPath {
        /// The path.
        socket: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
}

/// What chooses among rustup's toolchains.
#[derive(Clone, Debug, Default)]
pub struct RustupVariables {
    /// `HOME`.
    pub home: Option<OsString>,
    /// `RUSTUP_HOME`.
    pub rustup_home: Option<OsString>,
    /// `RUSTUP_TOOLCHAIN`.
    pub toolchain: Option<OsString>,
}

impl RustupVariables {
    /// From the process's environment.
    pub fn from_environment() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this file is the program's one reader of the environment")]
        let lookup = |name| std::env::var_os(name);
        Self { home: lookup("HOME"), rustup_home: lookup("RUSTUP_HOME"), toolchain: lookup("RUSTUP_TOOLCHAIN") }
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::settings_file::uncommented;

    use super::*;
    use crate::wrapper::rust_paths::written;

    fn load(variables: &[(&str, &str)], file: Option<&str>) -> Result<Settings, ConfigError> {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
        Settings::from_environment(&environment, &Places { uid: 7, cores: 3 }, |_| {
            file.map(str::to_owned).ok_or_else(|| std::io::ErrorKind::NotFound.into())
        })
    }

    #[test]
    fn defaults_follow_xdg() {
        let settings = load(&[("HOME", "/h")], None).unwrap();
        assert_eq!(settings.cache_dir, Path::new("/h/.cache/buildbee"));
        assert_eq!(settings.socket, Path::new("/tmp/buildbee-7/daemon.sock"));
        assert_eq!((settings.local_slots, settings.racing), (3, Racing::Tail));
    }

    #[test]
    fn variables_win_over_the_file() {
        let file = Some("cache_size = \"1 GiB\"\nlocal_slots = 9\n");
        let settings = load(&[("HOME", "/h"), ("BUILDBEE_LOCAL_SLOTS", "0")], file).unwrap();
        assert_eq!((settings.cache_bytes, settings.local_slots), (1 << 30, 0));
    }

    #[test]
    fn the_wrapper_reads_the_same_of_paths() {
        for (text, expected) in [
            ("", PathSetting::Portable),
            ("mdns = true\n  paths = \"exact\"  # as plain cargo\n", PathSetting::Exact),
            ("paths='exact'\n#paths = \"portable\"\n", PathSetting::Exact),
            ("paths = \"portable\"", PathSetting::Portable),
        ] {
            assert_eq!(load(&[("HOME", "/h"), ("BUILDBEE_PATHS", "exact")], Some(text)).unwrap().paths, expected);
            assert_eq!(written(text).unwrap_or_default(), expected, "{text}");
        }
        assert!(load(&[("HOME", "/h"), ("BUILDBEE_PATHS", "exat")], None).is_err());
    }

    #[test]
    fn build_scripts_are_the_file_s_and_each_build_s() {
        let kept = |variables: &[(&str, &str)], file| load(variables, file).unwrap().build_scripts;
        assert!(!kept(&[("HOME", "/h")], None) && kept(&[("HOME", "/h")], Some("build_scripts = true\n")));
        assert!(!kept(&[("HOME", "/h"), (BUILD_SCRIPTS_VARIABLE, "1")], None), "not whoever started the daemon");
    }

    #[test]
    fn unknown_keys_name_file_line_and_key() {
        let error = load(&[("HOME", "/h")], Some("mdns = true\ncache_sise = \"1 GiB\"\n")).unwrap_err().to_string();
        assert!(error.contains("config.toml:2") && error.contains("cache_sise") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn bad_values_in_the_file_name_file_line_and_key() {
        for (text, line, key) in [
            ("mdns = true\nracing = \"fast\"\n", 2, "racing"),
            ("\n\n cache_size=\"much\"\n", 3, "cache_size"),
            ("local_slots = -1\n", 1, "local_slots"),
            ("# first\nmdns = \"yes\"\n", 2, "mdns"),
            ("idle_timeout = \"1 fortnight\"\n", 1, "idle_timeout"),
            ("http_cache = \"192.0.2.1:7473\"\n", 1, "http_cache"),
            ("http_cache = \"7473\"\n", 1, "http_cache"),
        ] {
            let error = load(&[("HOME", "/h")], Some(text)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("/h/.config/buildbee/config.toml:{line}: {key}: ")), "{error}");
            assert!(error.contains("\nhint: "), "{error}");
        }
        let error = load(&[("HOME", "/h"), ("BUILDBEE_RACING", "slow")], Some("racing = \"fast\"\n")).unwrap_err();
        assert!(error.to_string().starts_with("setting racing: \"slow\""), "the variable is at fault: {error}");
    }

    #[test]
    fn the_annotated_file_has_every_key_with_its_default() {
        let text = uncommented(ANNOTATED);
        let written = serde_json::to_value(parse_file(Path::new("config.toml"), &text).unwrap()).unwrap();
        let keys: Vec<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.join(", "), KEYS, "sorted, as the hint has them");
        for (key, value) in written.as_object().unwrap() {
            assert!(!value.is_null(), "{key} is missing");
        }
        let home = [("HOME", "/home/me")];
        let places = Places { uid: 1000, cores: 8 };
        let environment = home.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let load = |text: &str| Settings::from_environment(&environment, &places, |_| Ok(text.to_owned())).unwrap();
        assert_eq!(format!("{:?}", load(&text)), format!("{:?}", load("")));
    }

    #[test]
    fn a_runtime_folder_that_is_not_absolute_does_not_count() {
        let settings = load(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "run")], None).unwrap();
        assert_eq!(settings.socket, Path::new("/tmp/buildbee-7/daemon.sock"));
    }

    #[test]
    fn bad_values_say_what_is_expected() {
        for (name, value) in [
            ("BUILDBEE_RACING", "fast"),
            ("BUILDBEE_CACHE_SIZE", "many"),
            ("BUILDBEE_MDNS", "maybe"),
            ("BUILDBEE_BUILD_SCRIPTS", "some"),
        ] {
            let error = load(&[("HOME", "/h"), (name, value)], None).unwrap_err().to_string();
            assert!(error.contains(value) && error.contains("hint:"), "{error}");
        }
    }

    #[test]
    fn long_socket_paths_are_refused() {
        let long = format!("/{}", "s".repeat(MAX_SOCKET_PATH_BYTES));
        assert!(matches!(load(&[("BUILDBEE_SOCKET", &long)], None), Err(ConfigError::SocketPath { .. })));
    }
}
