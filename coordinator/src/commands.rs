//! The commands of the program, each a function from checked settings to output.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use buildbee_proto::limits::MAX_ADDRESSES_PER_PEER;
use buildbee_proto::membership::{ParseTicketError, Signed, TICKET_PREFIX, Ticket, UnixSeconds};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::addresses::{GuessError, guess};
use crate::cli::{InviteArgs, InviteRole, MembersArgs, RevokeArgs, ServeArgs};
use crate::clock::unix_now;
use crate::config::{ConfigError, Settings};
use crate::membership::farm::{Farm, FarmError};
use crate::membership::register::Member;
use crate::serve::{Coordinator, Places, ServeError};
use crate::status::host::OwnNames;

/// Exit code: the user asked for something that can't be.
const EXIT_USER: u8 = 2;
/// Exit code: the machine stands in the way.
const EXIT_ENVIRONMENT: u8 = 1;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The farm.
    #[error(transparent)]
    Farm(#[from] FarmError),
    /// Serving.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// No address for a ticket.
    #[error(transparent)]
    Guess(#[from] GuessError),
    /// An address for a ticket is none.
    #[error("{address:?} is no address\nhint: write HOST:PORT, for example desk-7:7470 or [fd00::7]:7470")]
    Address {
        /// As given.
        address: String,
    },
    /// Too many addresses for a ticket.
    #[error(
        "{found} addresses are given, a ticket holds {MAX_ADDRESSES_PER_PEER}\nhint: name the ones that most machines can reach"
    )]
    Addresses {
        /// How many.
        found: usize,
    },
    /// A ticket that is to be revoked is none.
    #[error("{0}\nhint: paste the whole line that `buildbee-coordinator invite` printed")]
    Ticket(#[from] ParseTicketError),
    /// A key file can't be read or written.
    #[error("key file {}: {source}\nhint: {hint}", file.display())]
    KeyFile {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The log filter is none.
    #[error("log filter {filter:?}: {reason}\nhint: write for instance info, debug or buildbee_coordinator=debug")]
    Log {
        /// As set.
        filter: String,
        /// What is wrong.
        reason: String,
    },
    /// Nowhere to write to.
    #[error("can't write output: {0}\nhint: is the disk full, or was the pipe closed?")]
    Output(#[from] io::Error),
    /// No randomness.
    #[error("the system gives no random numbers: {0}\nhint: this is a fault of the machine")]
    Random(getrandom::Error),
}

impl CommandError {
    /// 2 for what the user can put right by asking differently, 1 for what is wrong with the machine.
    pub fn exit_code(&self) -> ExitCode {
        let code = match self {
            Self::Config(_)
            | Self::Guess(_)
            | Self::Address { .. }
            | Self::Addresses { .. }
            | Self::Log { .. }
            | Self::Ticket(_)
            | Self::Farm(
                FarmError::Revoke(_)
                | FarmError::NoKey
                | FarmError::KeyElsewhere
                | FarmError::OtherKey { .. }
                | FarmError::Occupied { .. },
            ) => EXIT_USER,
            Self::Farm(_) | Self::Serve(_) | Self::Output(_) | Self::Random(_) | Self::KeyFile { .. } => {
                EXIT_ENVIRONMENT
            }
        };
        ExitCode::from(code)
    }
}

/// `invite`: the ticket, alone, on `out`; what to do with it on `notes`.
pub fn invite(
    settings: &Settings,
    args: &InviteArgs,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), CommandError> {
    let now = unix_now();
    let farm = Farm::open(&settings.state_dir, now)?;
    note_new_farm(&farm, &settings.state_dir, notes)?;
    let addresses = match (&args.addresses[..], &settings.addresses[..]) {
        // A coordinator that was started with --listen knows better than the settings do.
        ([], []) => guess(farm.last_listening()?.unwrap_or(settings.listen))?,
        ([], configured) => configured.to_vec(),
        (given, _) => given.to_vec(),
    };
    if addresses.len() > MAX_ADDRESSES_PER_PEER {
        return Err(CommandError::Addresses { found: addresses.len() });
    }
    if let Some(address) = addresses.iter().find(|address| !crate::offer::is_address(address)) {
        return Err(CommandError::Address { address: address.clone() });
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(CommandError::Random)?;
    let expires_at = now.saturating_add(args.expires.as_secs());
    let (role, uses) = (args.role.into(), args.uses);
    let shown = addresses.join(", ");
    let (issued_at, coordinator) = (now, farm.identity().peer());
    let ticket =
        farm.invite(Ticket { farm: farm.id(), coordinator, addresses, role, issued_at, expires_at, uses, nonce });
    let program = match args.role {
        InviteRole::Agent => "buildbee-agent",
        InviteRole::Client => "buildbee",
    };
    writeln!(
        notes,
        "{} can join farm {} at {shown} with this ticket until {}:\n  {program} join TICKET",
        if uses == 1 { "one machine".to_owned() } else { format!("{uses} machines") },
        farm.id().short(),
        date(expires_at),
    )?;
    writeln!(out, "{}", ticket.to_text())?;
    Ok(out.flush()?)
}

/// `revoke`.
pub fn revoke(settings: &Settings, args: &RevokeArgs, notes: &mut impl Write) -> Result<(), CommandError> {
    let farm = Farm::open(&settings.state_dir, unix_now())?;
    note_new_farm(&farm, &settings.state_dir, notes)?;
    if args.member.trim().starts_with(TICKET_PREFIX) {
        let ticket = Signed::<Ticket>::from_text(&args.member)?;
        farm.revoke_ticket(&ticket, unix_now())?;
        writeln!(notes, "nobody can join with that ticket any more; whoever has joined with it stays")?;
        return Ok(());
    }
    let member = farm.revoke(&args.member, unix_now())?;
    let Member { name, peer, .. } = member;
    writeln!(notes, "{name} ({peer}) is no longer a member; a running coordinator tells the others within seconds")?;
    Ok(())
}

/// `members`.
pub fn members(settings: &Settings, args: &MembersArgs, out: &mut impl Write) -> Result<(), CommandError> {
    let members = Farm::open(&settings.state_dir, unix_now())?.members()?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &members).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    let width = members.iter().map(|member| member.name.chars().count()).max().unwrap_or(0).max("NAME".len());
    writeln!(out, "{:12}  {:<width$}  {:6}  {:20}  STATE", "PEER", "NAME", "ROLE", "UNTIL")?;
    for member in &members {
        let state = member.revoked_at.map_or_else(|| "member".to_owned(), |at| format!("revoked {}", date(at)));
        let (peer, role) = (member.peer.short(), member.role.to_string());
        writeln!(out, "{peer:12}  {:<width$}  {role:6}  {:20}  {state}", member.name, date(member.expires_at))?;
    }
    Ok(out.flush()?)
}

/// `serve`: until SIGTERM or SIGINT.
pub async fn serve(settings: &Settings, args: &ServeArgs, notes: &mut impl Write) -> Result<(), CommandError> {
    let system = |what| move |source| ServeError::System { what, source };
    // Taken before anything is started: a signal that comes early must not be lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("waiting for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("waiting for SIGINT"))?;
    let now = unix_now();
    let farm = Farm::open(&settings.state_dir, now)?;
    note_new_farm(&farm, &settings.state_dir, notes)?;
    let _until_stopped = farm.serve()?;
    // Not that of a coordinator that runs.
    if let Some(file) = &args.ready_file {
        remove_ready_file(file)?;
    }
    let (farm_id, peer) = (farm.id(), farm.identity().peer());
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let places = Places {
        listen: settings.listen,
        mdns: settings.mdns,
        addresses: settings.addresses.clone(),
        members: farm.to_meet()?,
    };
    if let Some(until) = farm.signs_until() {
        tracing::info!("the farm's key is elsewhere; this coordinator may sign until {}", date(until));
    }
    if farm.is_recovering()? {
        tracing::warn!("this farm's list of members is gone; it comes back from the first member that calls");
    }
    let mut coordinator = Coordinator::start(farm, places, &name, now).await?;
    tracing::info!("listening on {} as {peer} of farm {farm_id}", coordinator.addresses().join(", "));
    if let Some(address) = settings.status.0 {
        let names = OwnNames::new(&name, settings.addresses.iter().chain(&settings.status_hosts));
        coordinator.show_status(address, names)?;
    }
    if let Some(file) = &args.ready_file {
        coordinator.write_ready_file(file)?;
    }
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = coordinator.failed() => Err(error.into()),
    };
    tracing::info!("stopping");
    coordinator.stop().await;
    result
}

/// Removes what an earlier run left, so that nobody takes it for this one.
fn remove_ready_file(file: &Path) -> Result<(), ServeError> {
    match std::fs::remove_file(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ServeError::ReadyFile { file: file.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn note_new_farm(farm: &Farm, state_dir: &Path, notes: &mut impl Write) -> io::Result<()> {
    if farm.is_new() {
        writeln!(notes, "a new farm, {}, was made in {}", farm.id().short(), state_dir.display())?;
    }
    Ok(())
}

/// A moment as people and scripts read it.
pub(crate) fn date(at: UnixSeconds) -> String {
    // The formatter panics beyond the year 9999.
    const LAST: UnixSeconds = 253_402_300_799;
    let moment = UNIX_EPOCH.checked_add(Duration::from_secs(at.min(LAST)));
    moment.map_or_else(String::new, |moment| humantime::format_rfc3339_seconds(moment).to_string())
}

#[cfg(test)]
mod tests {
    use buildbee_proto::peer::{PeerId, Role};

    use super::*;

    fn settings(folder: &Path) -> Settings {
        Settings {
            listen: "192.0.2.1:7470".parse().unwrap(),
            state_dir: folder.join("state"),
            addresses: vec![],
            mdns: false,
            status: crate::config::StatusAddress(None),
            status_hosts: vec![],
            log: "info,libp2p_swarm=warn".to_owned(),
        }
    }

    fn invitation(expires: u64, addresses: &[&str]) -> InviteArgs {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        InviteArgs { role: InviteRole::Agent, expires: Duration::from_secs(expires), uses: 1, addresses }
    }

    #[test]
    fn an_invitation_is_one_line_and_good() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        invite(&settings, &invitation(60, &[]), &mut out, &mut notes).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.lines().count(), 1);
        let ticket = Signed::<Ticket>::from_text(&out).unwrap();
        assert_eq!(ticket.value.addresses, ["192.0.2.1:7470"]);
        assert_eq!(ticket.value.role, Role::Agent);
        let notes = String::from_utf8(notes).unwrap();
        assert!(notes.contains("a new farm") && notes.contains("buildbee-agent join TICKET"), "{notes}");
        let farm = Farm::open(&settings.state_dir, unix_now()).unwrap();
        assert!(farm.enrol(&ticket, PeerId([1; 32]), "desk", unix_now()).is_ok());
        let mut second = Vec::new();
        invite(&settings, &invitation(60, &[]), &mut second, &mut Vec::new()).unwrap();
        assert_ne!(out.as_bytes(), second);
    }

    #[test]
    fn addresses_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        let run = |settings: &Settings, addresses: &[&str]| {
            invite(settings, &invitation(60, addresses), &mut Vec::new(), &mut Vec::new())
        };
        assert!(matches!(run(&settings, &["nowhere"]), Err(CommandError::Address { .. })));
        assert!(matches!(run(&settings, &["a:1"; 17]), Err(CommandError::Addresses { found: 17 })));
        assert!(run(&settings, &["a:1", "[fd00::7]:2"]).is_ok());
        settings.listen.set_port(0);
        let error = run(&settings, &[]).unwrap_err();
        assert!(error.to_string().contains("\nhint: "));
    }

    #[test]
    fn members_are_listed_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let farm = Farm::open(&settings.state_dir, unix_now()).unwrap();
        let mut ticket = Vec::new();
        let client = InviteArgs { role: InviteRole::Client, ..invitation(60, &[]) };
        invite(&settings, &client, &mut ticket, &mut Vec::new()).unwrap();
        let text = String::from_utf8(ticket).unwrap();
        let ticket = Signed::<Ticket>::from_text(&text).unwrap();
        farm.enrol(&ticket, PeerId([1; 32]), "desk-7", unix_now()).unwrap();
        let list = |json| {
            let mut out = Vec::new();
            members(&settings, &MembersArgs { json }, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(list(false).contains("010101010101  desk-7  client"), "{}", list(false));
        revoke(&settings, &RevokeArgs { member: "desk-7".to_owned() }, &mut Vec::new()).unwrap();
        assert!(list(false).contains("revoked 20"));
        let json: serde_json::Value = serde_json::from_str(&list(true)).unwrap();
        assert_eq!(json[0]["name"], "desk-7");
        assert_eq!(json[0]["peer"], "01".repeat(32));
        assert!(json[0]["revoked_at"].is_u64());
        revoke(&settings, &RevokeArgs { member: text }, &mut Vec::new()).unwrap();
        let error = farm.enrol(&ticket, PeerId([2; 32]), "desk-9", unix_now()).unwrap_err().to_string();
        assert!(error.contains("was revoked"), "{error}");
        let unknown = revoke(&settings, &RevokeArgs { member: "desk-8".to_owned() }, &mut Vec::new()).unwrap_err();
        assert_eq!(unknown.exit_code(), ExitCode::from(EXIT_USER));
    }

    #[test]
    fn every_moment_has_a_date() {
        assert_eq!(date(1_800_000_000), "2027-01-15T08:00:00Z");
        assert!(date(u64::MAX).starts_with("9999"));
    }
}
