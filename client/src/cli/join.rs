//! `buildbee join TICKET`: this user becomes a client of a farm.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbee_p2p::enrolment::{self, Enrolment};
use buildbee_p2p::identity::Identity;
use buildbee_p2p::private_file::make_folder;
use buildbee_proto::limits::MAX_NAME_BYTES;
use buildbee_proto::local::AdminCall;
use buildbee_proto::membership::{Signed, Ticket};

use super::ask::{AskError, Start, ask};
use crate::config::Settings;
use crate::exit::Failure;

/// How long the coordinator may take.
const JOIN_TIME: Duration = Duration::from_secs(20);

/// Joins, keeps the membership, and has a running daemon replaced. What to tell the user.
pub fn join(settings: &Settings, ticket: &str, name: Option<String>) -> Result<String, Failure> {
    let ticket = Signed::<Ticket>::from_text(ticket).map_err(|error| {
        Failure::user(format!("{error}\nhint: paste the whole line that `buildbee-coordinator invite` printed"))
    })?;
    let name = name.unwrap_or_else(default_name);
    make_folder(&settings.state_dir).map_err(|error| {
        Failure::environment(format!(
            "cannot make the folder {}: {error}\nhint: BUILDBEE_STATE_DIR names another place",
            settings.state_dir.display()
        ))
    })?;
    refuse_other_farm(settings, &ticket)?;
    let identity = Identity::load_or_create(&settings.identity_file()).map_err(Failure::environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::environment(format!("cannot start: {error}\nhint: the system may be out of file descriptors"))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let joined = runtime.block_on(enrolment::join(&identity, &ticket, &name, JOIN_TIME, now));
    let enrolment = joined.map_err(Failure::environment)?;
    enrolment.save(&settings.enrolment_file()).map_err(Failure::environment)?;
    Ok(said(&enrolment, replace_daemon(settings)))
}

/// A machine is not moved to another farm by accident. A damaged membership is worth nothing: joining again is what mends it.
fn refuse_other_farm(settings: &Settings, ticket: &Signed<Ticket>) -> Result<(), Failure> {
    let (file, found) = (settings.enrolment_file(), ticket.value.farm);
    match Enrolment::load(&file) {
        Ok(Some(held)) if held.membership.value.farm != found => Err(Failure::user(format!(
            "this machine belongs to farm {}, the ticket is of farm {}\nhint: to leave the one for the other, remove {} and join again",
            held.membership.value.farm.short(),
            found.short(),
            file.display()
        ))),
        _ => Ok(()),
    }
}

fn said(enrolment: &Enrolment, replaced: bool) -> String {
    let member = &enrolment.membership.value;
    let daemon = if replaced { "\nthe daemon leaves; the next compile starts one that uses the farm" } else { "" };
    format!("joined farm {} as {} {:?}{daemon}", member.farm.short(), member.role, member.name)
}

/// Whether one ran. If it can't be asked, it finds the membership when it starts next.
fn replace_daemon(settings: &Settings) -> bool {
    matches!(ask(&settings.socket, AdminCall::Stop, Start::Never), Ok(_) | Err(AskError::Version(_)))
}

/// The user's and the machine's name, as far as the system tells.
fn default_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let name = match (user, host) {
        (Some(user), Some(host)) => format!("{user}@{host}"),
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => "client".to_owned(),
    };
    name.chars().filter(|character| !character.is_control()).take(MAX_NAME_BYTES / 4).collect()
}
