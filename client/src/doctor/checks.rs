//! The single checks. Each looks, says what it found, and changes nothing that a build would not change.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbee_p2p::enrolment::Enrolment;
use buildbee_p2p::identity::Identity;
use buildbee_proto::local::AdminCall;

use super::Check;
use crate::cli::ask::{Start, ask, trust_folder};
use crate::cli::documents::{self, Status};
use crate::cli::programs::{self, in_path, is_program, same_file};
use crate::config::{RustupVariables, Settings};
use crate::toolchain::rust::{Caller, LinkQuestion, describe};
use crate::wrapper::links::{StandIn, stand_in};
use crate::wrapper::program::OWN_NAME;
use crate::wrapper::settings::WrapperSettings;

/// A membership that ends sooner than this is worth a word.
const SOON: u64 = 14 * 24 * 3600;

/// Less free space than this on the cache's disk is worth a word, in bytes.
const LITTLE_SPACE: u64 = 2 << 30;

/// A clock before this moment (2025-01-01) was never set.
const EARLIEST_NOW: u64 = 1_735_689_600;

/// Clocks of machines and of file servers differ a little.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// Compilers that the wrapper usually stands before.
const COMPILERS: [&str; 7] = ["cc", "c++", "gcc", "g++", "clang", "clang++", "rustc"];

/// All of them, in the order in which a build would run into them.
pub(super) fn all(settings: &Settings) -> Vec<Check> {
    let wrapper = WrapperSettings::from_environment();
    let path = wrapper.path.unwrap_or_default();
    let status = daemon_status(settings);
    let mut checks = vec![socket_folder(settings), daemon(status.as_ref())];
    checks.extend(membership(settings));
    checks.extend(status.as_ref().ok().and_then(coordinator));
    checks.push(cache(settings));
    checks.push(sandbox(settings, &path));
    checks.push(clock(settings));
    checks.push(compilers(&path));
    checks.extend(rust(&path, &RustupVariables::from_environment()));
    checks.push(wrapper_in_path(&path));
    checks.extend(links_too_late(&path));
    checks
}

fn daemon_status(settings: &Settings) -> Result<Status, String> {
    let json = ask(&settings.socket, AdminCall::Status, Start::IfNeeded).map_err(|error| error.to_string())?;
    documents::parse(&json).and_then(|document| serde_json::from_value(document).ok()).ok_or_else(|| {
        "its answer makes no sense\nhint: `buildbee stop` ends it; the next compile starts a new one".to_owned()
    })
}

fn socket_folder(settings: &Settings) -> Check {
    match trust_folder(&settings.socket) {
        Ok(()) => Check::ok("socket", settings.socket.display()),
        Err(error) => Check::fail("socket", error),
    }
}

fn daemon(status: Result<&Status, &String>) -> Check {
    match status {
        Ok(status) if status.version != env!("CARGO_PKG_VERSION") => Check::warn(
            "daemon",
            format!(
                "version {} runs, this is {}\nhint: `buildbee stop` ends it; the next compile starts the right one",
                status.version,
                env!("CARGO_PKG_VERSION")
            ),
        ),
        Ok(status) if !status.warnings.is_empty() => Check::warn("daemon", status.warnings.join("\n")),
        Ok(status) => Check::ok("daemon", format!("version {}, process {}", status.version, status.pid)),
        Err(error) => Check::fail("daemon", error),
    }
}

fn membership(settings: &Settings) -> Vec<Check> {
    let name = "membership";
    let enrolment = match Enrolment::load(&settings.enrolment_file()) {
        Ok(Some(enrolment)) => enrolment,
        Ok(None) => {
            return vec![Check::warn(
                name,
                "not in a farm: builds use this machine alone\nhint: `buildbee join TICKET` joins one",
            )];
        }
        Err(error) => return vec![Check::fail(name, error)],
    };
    let member = &enrolment.membership.value;
    let rejoin = "hint: ask for a ticket (`buildbee-coordinator invite`) and `buildbee join` again";
    let mut checks = match member.expires_at.checked_sub(unix_now()) {
        None => vec![Check::fail(name, format!("of farm {} has expired\n{rejoin}", member.farm.short()))],
        Some(left) if left < SOON => {
            vec![Check::warn(name, format!("of farm {} ends in {} days\n{rejoin}", member.farm.short(), left / 86_400))]
        }
        Some(left) => {
            let text = format!(
                "farm {} as {} {:?}, {} days left",
                member.farm.short(),
                member.role,
                member.name,
                left / 86_400
            );
            vec![Check::ok(name, text)]
        }
    };
    match Identity::load_or_create(&settings.identity_file()) {
        Ok(identity) if identity.peer() != member.peer => {
            checks.push(Check::fail(
                "identity",
                format!("the membership is of another identity than this one's\n{rejoin}"),
            ));
        }
        Ok(_) => {}
        Err(error) => checks.push(Check::fail("identity", error)),
    }
    checks
}

fn coordinator(status: &Status) -> Option<Check> {
    let coordinator = status.farm.as_ref()?.coordinator.as_ref()?;
    let address = coordinator.address.as_deref().unwrap_or("no known address");
    Some(if coordinator.connected {
        Check::ok("coordinator", address)
    } else {
        // A daemon that has just been started is still at it.
        Check::warn(
            "coordinator",
            format!(
                "{address} is not connected (yet)\nhint: builds go on with the agents already known; check that it runs and that the port is open"
            ),
        )
    })
}

fn sandbox(settings: &Settings, path: &OsStr) -> Check {
    let name = "sandbox";
    let helper = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("buildbee-sandbox")));
    let (Some(helper), Some(bwrap)) = (helper.filter(|file| file.is_file()), in_path("bwrap", path)) else {
        return Check::ok(name, "not installed here; only machines that lend need it");
    };
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(buildbee_sandbox::probe::probe(&helper, &bwrap, &settings.cache_dir)));
    match outcome {
        Ok(Ok(_)) => Check::ok(name, "bubblewrap works: this machine could lend"),
        Ok(Err(error)) => Check::warn(name, format!("this machine can't lend: {error}")),
        Err(error) => Check::warn(name, format!("could not be tried: {error}")),
    }
}

fn cache(settings: &Settings) -> Check {
    let (name, folder) = ("cache", &settings.cache_dir);
    if let Err(error) = std::fs::create_dir_all(folder) {
        let text = format!("cannot make {}: {error}\nhint: BUILDBEE_CACHE_DIR names another place", folder.display());
        return Check::fail(name, text);
    }
    if let Err(error) = tempfile_in(folder) {
        let text = format!(
            "cannot write to {}: {error}\nhint: check its owner and its disk, or set BUILDBEE_CACHE_DIR",
            folder.display()
        );
        return Check::fail(name, text);
    }
    match nix::sys::statvfs::statvfs(folder.as_path()) {
        Ok(space) => {
            let free = space.blocks_available().saturating_mul(space.fragment_size());
            let shown = bytesize::ByteSize::b(free).display().iec();
            if free < LITTLE_SPACE {
                Check::warn(
                    name,
                    format!(
                        "only {shown} left on the disk of {}\nhint: `buildbee cache clear`, or a smaller cache_size",
                        folder.display()
                    ),
                )
            } else {
                Check::ok(name, format!("{}, {shown} free", folder.display()))
            }
        }
        Err(errno) => Check::warn(name, format!("{}: {errno}", folder.display())),
    }
}

/// A file that is made and removed. When it was made, by the file system's clock.
fn tempfile_in(folder: &Path) -> std::io::Result<SystemTime> {
    let file = folder.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&file, b"x")?;
    let modified = std::fs::metadata(&file)?.modified();
    std::fs::remove_file(&file)?;
    modified
}

fn clock(settings: &Settings) -> Check {
    let name = "clock";
    if unix_now() < EARLIEST_NOW {
        return Check::fail(
            name,
            "was never set: memberships look as if they were of the future\nhint: set the time, best by NTP",
        );
    }
    let before = SystemTime::now();
    match tempfile_in(&settings.cache_dir) {
        Ok(at) if at > before + CLOCK_SLACK || at + CLOCK_SLACK < before => Check::warn(
            name,
            "the cache's file system has another time than this machine\nhint: it may be on a file server; BUILDBEE_CACHE_DIR names another place",
        ),
        _ => Check::ok(name, humantime::format_rfc3339_seconds(before)),
    }
}

fn compilers(path: &OsStr) -> Check {
    let found: Vec<&str> = COMPILERS.into_iter().filter(|name| in_path(name, path).is_some()).collect();
    if found.is_empty() {
        Check::fail("compilers", "none in PATH\nhint: install gcc or clang")
    } else {
        Check::ok("compilers", found.join(", "))
    }
}

/// The rustc that a build in this folder would use.
fn rust(path: &OsStr, variables: &RustupVariables) -> Option<Check> {
    let (program, cwd) = (in_path("rustc", path)?, std::env::current_dir().ok()?);
    let caller = Caller {
        program: &program,
        cwd: &cwd,
        home: variables.home.as_deref(),
        rustup_home: variables.rustup_home.as_deref(),
        rustup_toolchain: variables.toolchain.as_deref(),
        target: None,
    };
    let question = LinkQuestion { linker: None, cwd: &cwd, arguments: &[], search: path };
    Some(match describe(&caller, &question) {
        Ok(text) => Check::ok("rust", text),
        Err(error) => Check::warn("rust", format!("builds with rustc run here alone: {error}")),
    })
}

fn wrapper_in_path(path: &OsStr) -> Check {
    let name = "wrapper";
    let own = programs::wrapper().ok();
    let Some(found) = in_path(OWN_NAME, path) else {
        let place =
            own.as_deref().and_then(Path::parent).map_or_else(String::new, |folder| folder.display().to_string());
        return Check::warn(
            name,
            format!("`buildbee` is not in PATH\nhint: add {place} to PATH, or name it by its whole path"),
        );
    };
    if let Some(own) = own
        && !same_file(&own, &found)
    {
        let text =
            format!("{} in PATH is not {}\nhint: keep one copy of buildbee in PATH", found.display(), own.display());
        return Check::warn(name, text);
    }
    let links: Vec<&str> = COMPILERS
        .into_iter()
        .filter(|compiler| in_path(compiler, path).is_some_and(|link| same_file(&link, &found)))
        .collect();
    let links = if links.is_empty() { String::new() } else { format!(", stands in for {}", links.join(", ")) };
    Check::ok(name, format!("{}{links}", found.display()))
}

/// A wrapper of another kind before ours takes our link for the compiler, and caches by how the link looks.
fn links_too_late(path: &OsStr) -> Option<Check> {
    COMPILERS.into_iter().find_map(|name| {
        let places = std::env::split_paths(path).map(|folder| folder.join(name)).filter(|place| is_program(place));
        let links: Vec<(PathBuf, StandIn)> =
            places.map_while(|place| stand_in(&place).map(|found| (place, found))).collect();
        let [(first, StandIn::Other(other)), later @ ..] = links.as_slice() else { return None };
        let (ours, _) = later.iter().find(|(_, found)| *found == StandIn::Own)?;
        let text = format!(
            "{} of {other} comes before {} and takes it for the compiler\nhint: put the folder of links to buildbee first in PATH",
            first.display(),
            ours.display()
        );
        Some(Check::warn("links", text))
    })
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_behind_another_wrappers_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str| {
            std::fs::write(folder.path().join(name), "").unwrap();
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(folder.path().join(name), executable).unwrap();
        };
        let links = |name: &str| {
            std::fs::create_dir(folder.path().join(format!("{name}-links"))).unwrap();
            program(name);
            symlink(format!("../{name}"), folder.path().join(format!("{name}-links/gcc"))).unwrap();
            folder.path().join(format!("{name}-links"))
        };
        let (ccache, ours) = (links("ccache"), links("buildbee"));
        let path = |folders: [&Path; 2]| std::env::join_paths(folders).unwrap();
        assert_eq!(links_too_late(&path([&ours, &ccache])), None);
        assert_eq!(links_too_late(&path([&ccache, Path::new("/usr/bin")])), None);
        let check = links_too_late(&path([&ccache, &ours])).unwrap();
        assert!(check.text.contains("of ccache comes before") && check.hint.is_some(), "{check:?}");
    }
}
