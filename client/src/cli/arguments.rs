//! What can be asked on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::shell::Shell;

/// Builds with the whole office: a compiler wrapper with a farm and a cache behind it.
///
/// Put it before the compiler: `make CC="buildbee gcc"`, `RUSTC_WRAPPER=buildbee cargo build`, `cmake
/// -DCMAKE_CXX_COMPILER_LAUNCHER=buildbee`. The commands below look after the daemon that runs behind it.
#[derive(Debug, Parser)]
#[command(name = "buildbee", bin_name = "buildbee", version, arg_required_else_help = true)]
#[command(after_help = "`buildbee help config` shows what can be set in the settings file, and where that is.")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the daemon, the farm, the cache and what runs now.
    Status(Listing),
    /// Counts actions: cached, remote, local, and why.
    Stats {
        /// How to show it.
        #[command(flatten)]
        listing: Listing,
        /// Start counting anew after showing.
        #[arg(long)]
        zero: bool,
    },
    /// Tells what became of a compile, and why: hit, miss or local, where it ran, and how long each part took.
    ///
    /// Without FILE and --last, the last 20 actions in short.
    Explain {
        /// How to show it.
        #[command(flatten)]
        listing: Listing,
        /// A source or an object, as a path, or a part of its name.
        #[arg(value_name = "FILE")]
        file: Option<String>,
        /// The last N actions in full (about FILE, if one is given). Without a number, one.
        #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1")]
        last: Option<u32>,
    },
    /// Looks for what keeps this machine from working well.
    Doctor(Listing),
    /// Asks the daemon to leave once what runs is done.
    Stop,
    /// Joins a farm with a ticket from `buildbee-coordinator invite`.
    Join {
        /// The ticket, one word that starts with "buildbee-ticket-".
        ticket: String,
        /// What others see this machine as. By default the user's and the machine's name.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists the peers that the daemon is connected to.
    Peers(Listing),
    /// Looks after the local cache.
    #[command(subcommand)]
    Cache(Cache),
    /// Looks after compilers as agents take them.
    #[command(subcommand)]
    Toolchain(Toolchain),
    /// Shows the farm at work, live: agents with what they do for this user, cache, transfers.
    ///
    /// Keys: q or Ctrl-C quits. Where the output is no terminal, it is shown once.
    Top {
        /// Show it once, as text.
        #[arg(long)]
        once: bool,
    },
    /// Prints what became of a build as a trace for Perfetto (ui.perfetto.dev) or Chrome (`chrome://tracing`).
    ///
    /// One row for each compile under way at a time, one for each slot of an agent that was used, and one for each compiler that ran here.
    Trace {
        /// The last build (all up to a pause of half a minute, or the last `buildbee run`), or everything that the daemon remembers.
        #[arg(value_enum, default_value_t = Traced::Last)]
        which: Traced,
    },
    /// Runs a build with the variables of `buildbee env`, and says at its end what became of its compiles.
    ///
    /// Ends with the command's own exit code.
    Run {
        /// The command, as in `buildbee run -- make -j16`.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Starts farms for trying out.
    #[command(subcommand)]
    Farm(Farm),
    /// Prints what a shell evaluates to build through buildbee: `eval "$(buildbee env)"`.
    ///
    /// Sets `CC` and `CXX` (a compiler that they name already stays, behind the wrapper), the launchers that `CMake` looks for, and
    /// `RUSTC_WRAPPER`.
    Env(EnvArguments),
    /// Links every compiler's name to buildbee in a folder, to stand first in PATH.
    ///
    /// For builds that can't use a compiler of two words. A link passes the compile on to the compiler of its name later in PATH,
    /// links of ccache, distcc, icecc and sccache left out.
    InstallLinks(InstallLinks),
    /// Runs the daemon; the wrapper does that by itself.
    Daemon {
        /// Start it in the background, and end when it listens.
        #[arg(long)]
        background: bool,
        /// Be the one in the background.
        #[arg(long, hide = true, conflicts_with = "background")]
        detached: bool,
    },
}

/// What to trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Traced {
    /// The last build.
    Last,
    /// Everything.
    All,
}

/// How to show a listing.
#[derive(Clone, Copy, Debug, Args)]
pub struct Listing {
    /// As a JSON document, for scripts.
    #[arg(long)]
    pub json: bool,
}

/// What to print for a shell.
#[derive(Clone, Debug, Args)]
pub struct EnvArguments {
    /// For which shell.
    #[arg(long, value_enum, default_value_t = Shell::Sh)]
    pub shell: Shell,
    /// Use the links in this folder (see `install-links`) instead of CC, CXX and the launchers.
    #[arg(long, value_name = "DIR")]
    pub links: Option<PathBuf>,
}

/// A folder of links.
#[derive(Clone, Debug, Args)]
pub struct InstallLinks {
    /// The folder. Made if it is not there.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Replace links of other wrappers (ccache, distcc, …) and links to nothing, too. Files and links to compilers always stay.
    #[arg(long)]
    pub force: bool,
    /// Remove the links to buildbee instead.
    #[arg(long, conflicts_with = "force")]
    pub remove: bool,
}

/// The local cache.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// How much it holds.
    #[command(visible_alias = "stats")]
    Usage(Listing),
    /// Drops what is of no use any more, and what was not used for longest beyond a size.
    Gc {
        /// How to show it.
        #[command(flatten)]
        listing: Listing,
        /// Largest size to keep, as in "5 GiB". By default the settings' `cache_size`.
        #[arg(long, value_name = "SIZE")]
        size: Option<bytesize::ByteSize>,
    },
    /// Reads all of it and drops what is damaged.
    Verify(Listing),
    /// Empties it.
    Clear(Listing),
}

/// Compilers as agents take them.
#[derive(Debug, Subcommand)]
pub enum Toolchain {
    /// Packs a cross compiler, with its C++ (or C) driver, into a folder for `buildbee-agent toolchain add`; a rustc with each target's library that
    /// it has, and with this machine's linker.
    Pack {
        /// The compiler, by its place or its name.
        #[arg(required = true, value_name = "COMPILER")]
        compilers: Vec<PathBuf>,
        /// The folder. Made if it is not there.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Lists the compilers that the daemon knows as toolchains, and the agents that have them.
    List(Listing),
    /// Shows one of them, with its files.
    Show {
        /// How to show it.
        #[command(flatten)]
        listing: Listing,
        /// The compiler, by its place or its name, or the beginning of the toolchain's id.
        #[arg(value_name = "COMPILER")]
        which: String,
    },
    /// Reads their files and compares them with what agents were told.
    Verify {
        /// How to show it.
        #[command(flatten)]
        listing: Listing,
        /// One, as in `show`; by default all.
        #[arg(value_name = "COMPILER")]
        which: Option<String>,
    },
    /// Forgets those of compilers that have changed or are gone; agents drop theirs by themselves when they need room.
    Gc(Listing),
    /// Has all agents that are there fetch compilers before a build needs them.
    Warm {
        /// How to show it.
        #[command(flatten)]
        listing: Listing,
        /// The compilers, by their places or names: those of C and C++, and rustc, which is what rustup starts in this folder. "+nightly" is that
        /// of another of rustup's toolchains; a file rust-toolchain.toml stands for what it names, its targets included.
        #[arg(value_name = "COMPILER", required_unless_present = "list")]
        compilers: Vec<PathBuf>,
        /// A file with one of them a line; "#" begins a comment.
        #[arg(long, value_name = "FILE")]
        list: Option<PathBuf>,
    },
}

/// Farms for trying out.
#[derive(Debug, Subcommand)]
pub enum Farm {
    /// Starts a coordinator and agents on this machine, runs a command with them, and takes everything down.
    Up(FarmUp),
}

/// A throw-away farm.
#[derive(Clone, Debug, Args)]
pub struct FarmUp {
    /// How many agents.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub agents: u16,
    /// How many actions each agent runs at once. By default the processor's threads, shared among the agents.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub slots: Option<u16>,
    /// Keep the farm's folder with its logs, and say where it is.
    #[arg(long)]
    pub keep: bool,
    /// Where the farm's processes listen.
    #[arg(long, value_name = "WHERE", default_value = "loopback", value_parser = ["loopback"])]
    pub network: String,
    /// The command to run, with `buildbee` in its PATH.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::wrapper::program::COMMAND_WORDS;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_wrapper_knows_every_command() {
        for command in Arguments::command().get_subcommands() {
            assert!(COMMAND_WORDS.contains(&command.get_name()), "{}", command.get_name());
        }
        let known = |word: &&&str| word.starts_with('-') || **word == "help";
        for word in COMMAND_WORDS.iter().filter(|word| !known(word)) {
            assert!(Arguments::command().find_subcommand(word).is_some(), "{word}");
        }
    }

    #[test]
    fn commands_of_a_farm_keep_their_own_options() {
        let arguments =
            Arguments::try_parse_from(["buildbee", "farm", "up", "--agents", "3", "--", "make", "-j4", "--keep"])
                .unwrap();
        let Command::Farm(Farm::Up(up)) = arguments.command else { panic!("not farm up") };
        assert_eq!((up.agents, up.keep), (3, false));
        assert_eq!(up.command, ["make", "-j4", "--keep"]);
        assert!(Arguments::try_parse_from(["buildbee", "farm", "up"]).is_err());
        assert!(Arguments::try_parse_from(["buildbee", "farm", "up", "--agents", "0", "--", "true"]).is_err());
    }
}
