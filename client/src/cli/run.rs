//! From arguments to exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use buildbee_proto::local::AdminCall;
use clap::Parser;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::{Arguments, Cache, Command, EnvArguments, Farm, InstallLinks, Listing, Toolchain, Traced};
use super::ask::{AskError, Start, ask};
use super::{around, background, documents, explain, join, links, programs, shell, toolchain};
use crate::config::{self, Settings};
use crate::exit::{ENVIRONMENT, Failure, SUCCESS, USER};
use crate::journal::activity::Activity;
use crate::wrapper::output;
use crate::{doctor, farm_up, top, trace, ui};

/// How clap ends its errors.
const MORE_INFORMATION: &str = "For more information, try '--help'.";

/// Asks for the settings; no command of its own, but where people look for it.
const HELP_ON_SETTINGS: [&str; 2] = ["help", "config"];

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(HELP_ON_SETTINGS) {
        ui::print(&format!("settings file: {}\n\n{}", config::settings_file().display(), config::ANNOTATED));
        return ExitCode::from(SUCCESS);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let text = error.render().to_string().replace(MORE_INFORMATION, "hint: `--help` lists what can be given");
            // A reader that left is no error.
            if error.use_stderr() {
                output::write_all(std::io::stderr(), text.as_bytes());
            } else {
                ui::print(&text);
            }
            return ExitCode::from(if error.use_stderr() { USER } else { SUCCESS });
        }
    };
    ExitCode::from(run(arguments.command).unwrap_or_else(|failure| failure.report()))
}

fn run(command: Command) -> Result<u8, Failure> {
    // The one command that is there to find out what is wrong, with the settings too.
    if let Command::Doctor(listing) = command {
        return Ok(doctor::run(listing.json));
    }
    // Neither do these need any.
    match &command {
        Command::Env(asked) => return env(asked),
        Command::InstallLinks(asked) => return install_links(asked),
        Command::Toolchain(Toolchain::Pack { compilers, into }) => return toolchain::pack(compilers, into),
        _ => {}
    }
    let settings = Settings::load().map_err(Failure::user)?;
    match command {
        Command::Status(listing) => show(&settings, AdminCall::Status, listing, ui::status),
        Command::Stats { listing, zero } => show(&settings, AdminCall::Stats { zero }, listing, ui::stats),
        Command::Explain { listing, file, last } => explain::run(&settings, listing, file.as_deref(), last),
        Command::Peers(listing) => show(&settings, AdminCall::Peers, listing, ui::peers),
        Command::Cache(Cache::Usage(listing)) => show(&settings, AdminCall::CacheUsage, listing, ui::cache_usage),
        Command::Cache(Cache::Verify(listing)) => show(&settings, AdminCall::CacheVerify, listing, ui::cache_verified),
        Command::Cache(Cache::Clear(listing)) => show(&settings, AdminCall::CacheClear, listing, ui::cache_cleared),
        Command::Cache(Cache::Gc { listing, size }) => {
            let call = AdminCall::CacheGc { max_bytes: size.map(|size| size.as_u64()) };
            show(&settings, call, listing, ui::cache_collected)
        }
        Command::Toolchain(command) => toolchain::run(&settings, &command),
        Command::Stop => {
            ask(&settings.socket, AdminCall::Stop, Start::Never)?;
            ui::print("the daemon leaves once what runs is done\n");
            Ok(SUCCESS)
        }
        Command::Join { ticket, name } => {
            ui::print(&format!("{}\n", join::join(&settings, &ticket, name)?));
            Ok(SUCCESS)
        }
        Command::Farm(Farm::Up(up)) => farm_up::run(&up),
        Command::Daemon { background: true, .. } => background::start(&settings),
        Command::Daemon { detached: true, .. } => background::detached(&settings),
        Command::Daemon { .. } => background::in_foreground(&settings),
        Command::Top { once } => top::run(&settings, once),
        Command::Trace { which } => trace(&settings, which),
        Command::Run { command } => around::run(&settings, &command),
        // Handled before the settings were read.
        Command::Doctor(_) | Command::Env(_) | Command::InstallLinks(_) => Ok(SUCCESS),
    }
}

fn env(asked: &EnvArguments) -> Result<u8, Failure> {
    let wrapper = programs::wrapper().map_err(|error| no_own_place(&error))?;
    let links = asked.links.as_deref().map(absolute).transpose()?;
    let text = shell::assignments(asked.shell, &config::shell_variables(), &wrapper, links.as_deref());
    ui::print(&text.map_err(Failure::user)?);
    Ok(SUCCESS)
}

fn install_links(asked: &InstallLinks) -> Result<u8, Failure> {
    let folder = absolute(&asked.folder)?;
    let report = if asked.remove {
        let report = links::remove(&folder).map_err(Failure::environment)?;
        ui::print(&ui::links_removed(&report, &folder));
        report
    } else {
        let (wrapper, path) =
            (programs::wrapper().map_err(|error| no_own_place(&error))?, config::shell_variables().path);
        let report = links::install(&folder, &wrapper, path.as_ref(), asked.force).map_err(Failure::environment)?;
        let late = links::found_before(&folder, path.as_ref());
        ui::print(&ui::links_installed(&report, &folder, &wrapper, late.as_deref()));
        report
    };
    Ok(if report.left.is_empty() { SUCCESS } else { ENVIRONMENT })
}

/// What is not running remembers nothing, so no daemon is started for it.
fn trace(settings: &Settings, which: Traced) -> Result<u8, Failure> {
    let json = ask(&settings.socket, AdminCall::Activity { after: 0, limit: u32::MAX }, Start::Never)?;
    let activity: Activity = serde_json::from_str(&json).map_err(|_| AskError::Nonsense)?;
    let actions = match which {
        Traced::Last => trace::last_build(&activity.actions),
        Traced::All => activity.actions.iter().collect(),
    };
    if actions.is_empty() {
        let text = "nothing has been compiled yet\nhint: compile something first; the daemon forgets when it leaves";
        return Err(Failure::environment(text));
    }
    ui::print(&format!("{}\n", trace::document(&actions)));
    Ok(SUCCESS)
}

pub(super) fn absolute(folder: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(folder).map_err(|error| {
        Failure::user(format!("{}: {error}\nhint: name the folder by its whole path", folder.display()))
    })
}

pub(super) fn no_own_place(error: &std::io::Error) -> Failure {
    Failure::environment(format!("cannot tell where buildbee is installed: {error}\nhint: is /proc mounted?"))
}

/// Asks and prints: the document itself, or what `render` makes of it.
fn show<D: DeserializeOwned>(
    settings: &Settings,
    call: AdminCall,
    listing: Listing,
    render: impl FnOnce(&D) -> String,
) -> Result<u8, Failure> {
    let document = documents::parse(&ask(&settings.socket, call, Start::IfNeeded)?).ok_or(AskError::Nonsense)?;
    print(document, listing, render)
}

/// Prints the document itself, or what `render` makes of it.
pub(super) fn print<D: DeserializeOwned>(
    document: Value,
    listing: Listing,
    render: impl FnOnce(&D) -> String,
) -> Result<u8, Failure> {
    if listing.json {
        ui::print(&ui::json(&document));
    } else {
        let document: Option<D> = serde_json::from_value(document).map_err(|_| AskError::Nonsense)?;
        ui::print(
            &document
                .map_or_else(|| "there is no local cache; `buildbee status` says why\n".to_owned(), |d| render(&d)),
        );
    }
    Ok(SUCCESS)
}
