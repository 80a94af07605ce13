//! The command line. Not here: what the commands do, and settings from the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use buildbee_proto::limits::MAX_TICKET_USES;
use buildbee_proto::peer::Role;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::StatusAddress;

/// The coordinator of a buildbee farm: lets machines in and deals out their idle slots.
#[derive(Debug, Parser)]
#[command(name = "buildbee-coordinator", version, arg_required_else_help = true)]
#[command(
    after_help = "`buildbee-coordinator help config` shows what can be set in the settings file, and where that is."
)]
pub struct Cli {
    /// Where settings come from.
    #[command(flatten)]
    pub sources: Sources,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Sources {
    /// Settings file (TOML) [default: /etc/buildbee/coordinator.toml for root, else ~/.config/buildbee/coordinator.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the farm's key and its list of members [default: /var/lib/buildbee-coordinator for root, else ~/.local/state/buildbee-coordinator]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the coordinator in the foreground until it is told to stop.
    Serve(ServeArgs),
    /// Print a ticket that lets one machine join the farm.
    Invite(InviteArgs),
    /// Send a member away: everybody refuses it from now on. Or call a ticket back.
    Revoke(RevokeArgs),
    /// List who belongs to the farm.
    Members(MembersArgs),
    /// Keep the farm's secret key elsewhere, and make the coordinator again from it.
    #[command(subcommand)]
    Key(KeyCommand),
}

/// What can be done with the farm's key.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Write the key into a file that only you can read, or to standard output. Keep it where this machine's disk is not.
    Export(KeyExportArgs),
    /// Make the coordinator of a farm again, in an empty state folder. Nobody has to join again: members bring the list of members back.
    Import(KeyImportArgs),
    /// Have the coordinator, which must not run, sign with another key for some time, and remove the farm's own from its state folder.
    Delegate(KeyDelegateArgs),
}

/// Options of `key export`.
#[derive(Clone, Debug, Args)]
pub struct KeyExportArgs {
    /// A file that does not exist yet, or "-" for standard output.
    pub file: PathBuf,
}

/// Options of `key delegate`.
#[derive(Clone, Debug, Args)]
pub struct KeyDelegateArgs {
    /// What `key export` wrote, or "-" for standard input. All members must know of delegation: upgrade them first.
    pub file: PathBuf,
    /// For how long the other key may sign: memberships end with it, so give the file again (also while it lasts) before it is over; a week to a year.
    #[arg(long = "for", value_name = "TIME", default_value = "180d", value_parser = delegation)]
    pub signs_for: Duration,
}

/// Options of `key import`.
#[derive(Clone, Debug, Args)]
pub struct KeyImportArgs {
    /// What `key export` wrote, or "-" for standard input.
    pub file: PathBuf,
    /// Where an agent of the farm listens, if members can't find the coordinator where it will be: it is dialled, and tells the others; may be
    /// given more than once.
    #[arg(long = "member", value_name = "HOST:PORT")]
    pub members: Vec<String>,
    /// No member is left: start with an empty list, and wait for nobody.
    #[arg(long)]
    pub no_members: bool,
}

/// Options of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 is any free one [default: 0.0.0.0:7470]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Address and port of the status page and of /metrics, or "off" [default: 127.0.0.1:7472]
    #[arg(long, value_name = "ADDR")]
    pub status: Option<StatusAddress>,
    /// Don't answer to peers that look for the coordinator by multicast on the local network.
    #[arg(long)]
    pub no_mdns: bool,
    /// Write peer, farm and addresses as JSON into this file once the coordinator listens.
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// Check settings and leave.
    #[arg(long)]
    pub check_config: bool,
}

/// What a newcomer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InviteRole {
    /// Lends its idle cores.
    Agent,
    /// Has its compiles done.
    Client,
}

impl From<InviteRole> for Role {
    fn from(role: InviteRole) -> Self {
        match role {
            InviteRole::Agent => Self::Agent,
            InviteRole::Client => Self::Client,
        }
    }
}

/// Options of `invite`.
#[derive(Clone, Debug, Args)]
pub struct InviteArgs {
    /// What the machine may do.
    #[arg(long, value_enum, default_value = "client")]
    pub role: InviteRole,
    /// For how long the ticket is good, for instance 30min or 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub expires: Duration,
    /// How many machines it lets in.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TICKET_USES)))]
    pub uses: u32,
    /// Where the coordinator can be reached; may be given more than once [default: the `addresses` setting, else this machine's]
    #[arg(long = "address", value_name = "HOST:PORT")]
    pub addresses: Vec<String>,
}

/// Options of `revoke`.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    /// Peer id, the beginning of it as `members` shows it, or name; or a whole ticket.
    pub member: String,
}

/// Options of `members`.
#[derive(Clone, Debug, Args)]
pub struct MembersArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Shortest time to delegate for: members need days to come by for new memberships.
const MIN_DELEGATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Longest. Members believe a little more.
const MAX_DELEGATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

fn delegation(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if (MIN_DELEGATION..=MAX_DELEGATION).contains(&time) { Ok(time) } else { Err("must be 7d to 366d".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration < Duration::from_secs(1) => Err("must be at least 1s".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error} (write for instance 30min, 24h or 7d)")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        let cli = Cli::try_parse_from(["x", "--state-dir", "/a", "invite", "--expires", "90min"]).unwrap();
        let Command::Invite(invite) = cli.command else { panic!("another command") };
        assert_eq!(invite.expires, Duration::from_secs(5_400));
        assert_eq!(invite.role, InviteRole::Client);
        let cli = Cli::try_parse_from(["x", "members", "--state-dir", "/a"]).unwrap();
        assert_eq!(cli.sources.state_dir, Some(PathBuf::from("/a")));
        assert!(Cli::try_parse_from(["x", "invite", "--expires", "soon"]).is_err());
        assert!(Cli::try_parse_from(["x", "invite", "--uses", "0"]).is_err());
        assert!(Cli::try_parse_from(["x", "key", "delegate", "f", "--for", "6d"]).is_err());
        assert!(Cli::try_parse_from(["x", "key", "delegate", "f", "--for", "400d"]).is_err());
        assert!(Cli::try_parse_from(["x", "key", "delegate", "f"]).is_ok());
        assert!(Cli::try_parse_from(["x", "invite", "--expires", "0s"]).is_err());
    }
}
