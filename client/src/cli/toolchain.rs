//! `buildbee toolchain …`: compilers as agents take them.

use std::path::{Path, PathBuf};

use buildbee_proto::local::AdminCall;
use serde_json::Value;

use super::arguments::{Listing, Toolchain};
use super::ask::{AskError, Start, ask};
use super::documents::{Toolchains, VerifiedToolchains, WarmedToolchain};
use super::run::absolute;
use super::warm;
use crate::config::{self, Settings};
use crate::exit::{ENVIRONMENT, Failure, SUCCESS};
use crate::toolchain::double;
use crate::toolchain::rust::Caller;
use crate::ui;

/// The longest list of compilers that is read, in bytes.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// All but `pack`, which needs neither settings nor daemon.
pub(super) fn run(settings: &Settings, command: &Toolchain) -> Result<u8, Failure> {
    match command {
        Toolchain::Pack { compilers, into } => pack(compilers, into),
        Toolchain::List(listing) => {
            let document = asked(settings, AdminCall::Toolchains)?;
            shown(*listing, &document, |known: &Toolchains| ui::toolchain::list(known))
        }
        Toolchain::Show { listing, which } => {
            let document = asked(settings, AdminCall::Toolchain { which: name_of(which) })?;
            known(&document, which)?;
            shown(*listing, &document, ui::toolchain::show)
        }
        Toolchain::Verify { listing, which } => {
            let call = AdminCall::ToolchainVerify { which: which.as_deref().map(name_of) };
            let document = asked(settings, call)?;
            known(&document, which.as_deref().unwrap_or_default())?;
            let is_bad = |one: &Value| one["n_changed"].as_u64() != Some(0);
            let any_bad = document["toolchains"].as_array().is_some_and(|all| all.iter().any(is_bad));
            shown(*listing, &document, |all: &VerifiedToolchains| ui::toolchain::verified(all))?;
            Ok(if any_bad { ENVIRONMENT } else { SUCCESS })
        }
        Toolchain::Gc(listing) => {
            let document = asked(settings, AdminCall::ToolchainGc)?;
            shown(*listing, &document, ui::toolchain::collected)
        }
        Toolchain::Warm { listing, compilers, list } => warm(settings, *listing, compilers, list.as_deref()),
    }
}

fn warm(settings: &Settings, listing: Listing, compilers: &[PathBuf], list: Option<&Path>) -> Result<u8, Failure> {
    let mut wanted = compilers.to_vec();
    if let Some(list) = list {
        wanted.extend(listed(list)?);
    }
    // All of them before any: a word that means nothing does not cost a night.
    let calls: Vec<Vec<AdminCall>> = wanted.iter().map(|compiler| warm::calls(compiler)).collect::<Result<_, _>>()?;
    let mut documents = Vec::new();
    for call in calls.into_iter().flatten() {
        let document = asked(settings, call)?;
        if !listing.json {
            shown(listing, &document, |one: &WarmedToolchain| ui::toolchain::warmed(one))?;
        }
        documents.push(document);
    }
    let is_good = |one: &Value| {
        let no_error = |one: &Value| one["error"].is_null();
        no_error(one) && one["agents"].as_object().is_some_and(|agents| agents.values().all(no_error))
    };
    let all_good = documents.iter().all(is_good);
    if listing.json {
        ui::print(&ui::json(&documents.into()));
    }
    Ok(if all_good { SUCCESS } else { ENVIRONMENT })
}

fn listed(list: &Path) -> Result<Vec<PathBuf>, Failure> {
    let odd = |why: &dyn std::fmt::Display| {
        Failure::user(format!("{}: {why}\nhint: a list names one compiler a line", list.display()))
    };
    let size = std::fs::metadata(list).map_err(|error| odd(&error))?.len();
    if size > MAX_LIST_BYTES {
        return Err(odd(&"it is too long"));
    }
    let text = std::fs::read_to_string(list).map_err(|error| odd(&error))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines.filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}

fn asked(settings: &Settings, call: AdminCall) -> Result<Value, Failure> {
    let json = ask(&settings.socket, call, Start::IfNeeded)?;
    Ok(serde_json::from_str(&json).map_err(|_| AskError::Nonsense)?)
}

fn known(document: &Value, which: &str) -> Result<(), Failure> {
    if document.is_null() {
        return Err(Failure::user(format!(
            "{which}: the daemon knows no such toolchain\nhint: compile something with it first, or `buildbee toolchain warm` it; \
             `buildbee toolchain list` shows those that are known"
        )));
    }
    Ok(())
}

fn shown<D: serde::de::DeserializeOwned>(
    listing: Listing,
    document: &Value,
    look: impl Fn(&D) -> String,
) -> Result<u8, Failure> {
    if listing.json {
        ui::print(&ui::json(document));
    } else {
        ui::print(&look(&serde_json::from_value(document.clone()).map_err(|_| AskError::Nonsense)?));
    }
    Ok(SUCCESS)
}

/// A compiler's place, where it is the name of one; else as it is.
fn name_of(which: &str) -> String {
    let found = double::find(Path::new(which), &config::shell_variables().path);
    found.and_then(|path| path.into_os_string().into_string().ok()).unwrap_or_else(|| which.to_owned())
}

pub(super) fn no_program(compiler: &Path) -> Failure {
    Failure::user(format!("{}: there is no such program\nhint: name it by its whole path", compiler.display()))
}

pub(super) fn pack(compilers: &[PathBuf], into: &Path) -> Result<u8, Failure> {
    let (into, search) = (absolute(into)?, config::shell_variables().path);
    for compiler in compilers {
        let program = double::find(compiler, &search).ok_or_else(|| no_program(compiler))?;
        if double::is_rustc(&program) {
            pack_rustc(&program, &into)?;
            continue;
        }
        for program in [Some(program.clone()), double::sibling(&program)].into_iter().flatten() {
            let packed = double::pack(&program, &into).map_err(|error| Failure::environment(error.to_string()))?;
            ui::print(&format!("packed {}\n", packed.label()));
        }
    }
    Ok(SUCCESS)
}

fn pack_rustc(program: &Path, into: &Path) -> Result<(), Failure> {
    let variables = config::rust_variables();
    let caller = Caller {
        program,
        cwd: Path::new("/"),
        home: variables.home.as_deref(),
        rustup_home: variables.rustup_home.as_deref(),
        rustup_toolchain: variables.rustup_toolchain.as_deref(),
        target: None,
    };
    for double in double::pack_rustc(&caller, into).map_err(|error| Failure::environment(error.to_string()))? {
        ui::print(&format!("packed {}\n", double.label()));
    }
    match double::pack_linking_rustc(&caller, into) {
        Ok(double) => ui::print(&format!("packed {}\n", double.label())),
        // All but crates that use macros can do without.
        Err(error) => {
            let hint = "hint: crates that use macros stay on the boards";
            ui::print(&format!("packed without a linker: {error}\n{hint}\n"));
        }
    }
    Ok(())
}
