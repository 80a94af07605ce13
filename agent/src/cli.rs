//! The command line, as typed. [`config`](crate::config) makes settings of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Lends this machine's idle cores to the farm and serves its share of the cache.
#[derive(Debug, Parser)]
#[command(name = "buildbee-agent", version)]
#[command(after_help = "`buildbee-agent help config` shows what can be set in the settings file, and where that is.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Lend, until told to stop by SIGTERM or SIGINT.
    Serve(ServeArguments),
    /// Join a farm with a ticket from `buildbee-coordinator invite`.
    Join(JoinArguments),
    /// Lend nothing for a while: what runs is handed back.
    Pause(PauseArguments),
    /// End a pause.
    Resume(PlaceArguments),
    /// Say how much this machine lends now, and why.
    Status(StatusArguments),
    /// Say who used this machine, for what, how much.
    History(HistoryArguments),
    /// Say whether this machine can lend, and what to do where it can't.
    Doctor(DoctorArguments),
    /// Looks after compilers that this machine lends to machines of another architecture.
    #[command(subcommand)]
    Toolchain(ToolchainCommand),
}

/// Doubles of other machines' compilers.
#[derive(Debug, Subcommand)]
pub enum ToolchainCommand {
    /// Add a cross compiler, like `aarch64-linux-gnu-gcc`: boards whose own compiler proves to make the same bytes may have it run here.
    ///
    /// Its C++ (or C) driver beside it is added, too. A running agent takes notice within seconds.
    Add(AddArguments),
    /// List what was added.
    List(PlaceArguments),
}

/// For `toolchain add`.
#[derive(Clone, Debug, Args)]
pub struct AddArguments {
    /// A compiler, or a folder that `buildbee toolchain pack` made.
    #[arg(required = true, value_name = "COMPILER")]
    pub what: Vec<PathBuf>,
    /// Where everything is.
    #[command(flatten)]
    pub place: PlaceArguments,
}

/// Where everything is; for all commands.
#[derive(Clone, Debug, Default, Args)]
pub struct PlaceArguments {
    /// Settings file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for key, membership, store and toolchains.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// For `serve`. What is not given comes from the settings file.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArguments {
    /// Where everything is.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// When to lend: idle (while nobody uses the machine), proportional (what its user leaves over), dedicated (always) or off.
    #[arg(long)]
    pub mode: Option<String>,
    /// How many actions may run at once.
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,
    /// Address to listen on (may be repeated).
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Address at which others reach this machine, as host:port (may be repeated).
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Vec<String>,
    /// Most that the store may take on disk, like "20GiB".
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Do not look for the coordinator by multicast.
    #[arg(long)]
    pub no_mdns: bool,
    /// File that appears, with peer id and addresses, once the agent listens.
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// Loopback address at which Nix finds all agents' stores, as host:port.
    #[arg(long, value_name = "HOST:PORT")]
    pub nix_cache: Option<String>,
    /// Root folder of the system whose Nix store is shared.
    #[arg(long, value_name = "DIR")]
    pub nix_root: Option<PathBuf>,
    /// Name of this machine for people.
    #[arg(long)]
    pub name: Option<String>,
    /// The program buildbee-sandbox, where it is not beside this one.
    #[arg(long, value_name = "PATH")]
    pub sandbox: Option<PathBuf>,
    /// Check the settings and leave.
    #[arg(long)]
    pub check_config: bool,
}

impl ServeArguments {
    /// Whether the setting `key` was given here.
    pub fn gives(&self, key: &str) -> bool {
        match key {
            "mode" => self.mode.is_some(),
            "slots" => self.slots.is_some(),
            "listen" => !self.listen.is_empty(),
            "advertise" => !self.advertise.is_empty(),
            "cache_size" => self.cache_size.is_some(),
            "name" => self.name.is_some(),
            "nix_cache" => self.nix_cache.is_some(),
            _ => false,
        }
    }
}

/// For `join`.
#[derive(Clone, Debug, Args)]
pub struct JoinArguments {
    /// What `buildbee-coordinator invite` printed.
    pub ticket: String,
    /// Name of this machine for people.
    #[arg(long)]
    pub name: Option<String>,
    /// Where everything is.
    #[command(flatten)]
    pub place: PlaceArguments,
}

/// For `pause`.
#[derive(Clone, Debug, Args)]
pub struct PauseArguments {
    /// For how long, like "2h". Without it: until `buildbee-agent resume`.
    #[arg(value_name = "TIME", value_parser = humantime::parse_duration)]
    pub length: Option<Duration>,
    /// Where everything is.
    #[command(flatten)]
    pub place: PlaceArguments,
}

/// For `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArguments {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where everything is.
    #[command(flatten)]
    pub place: PlaceArguments,
}

/// For `history`.
#[derive(Clone, Debug, Args)]
pub struct HistoryArguments {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Each action, the last first, and not what each client used.
    #[arg(long)]
    pub actions: bool,
    /// Of this time only, like "24h". Without it: all that is kept, some ten thousand actions.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
    /// Where everything is.
    #[command(flatten)]
    pub place: PlaceArguments,
}

/// For `doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArguments {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// The program buildbee-sandbox, where it is not beside this one.
    #[arg(long, value_name = "PATH")]
    pub sandbox: Option<PathBuf>,
    /// Where everything is.
    #[command(flatten)]
    pub place: PlaceArguments,
}
