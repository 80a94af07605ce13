//! `buildbee-coordinator`: command line, settings, log, runtime. Wiring only.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use buildbee_coordinator::cli::{Cli, Command, KeyCommand, ServeArgs};
use buildbee_coordinator::commands::{self, CommandError};
use buildbee_coordinator::config::{self, Environment, Settings};
use buildbee_coordinator::keys;
use buildbee_coordinator::serve::ServeError;
use buildbee_p2p::log;
use clap::Parser as _;

/// How long work on the disk may go on after everything else has stopped.
const DISK_GRACE: Duration = Duration::from_millis(200);

/// How clap ends its errors.
const MORE_INFORMATION: &str = "For more information, try '--help'.";

/// Asks for the settings; no command of its own, but where people look for it.
const HELP_ON_SETTINGS: [&str; 2] = ["help", "config"];

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(HELP_ON_SETTINGS) {
        let file =
            Environment::read().settings_file().map_or_else(|| "none".to_owned(), |file| file.display().to_string());
        // A reader that left is no error.
        let _ = write!(io::stdout(), "settings file: {file}\n\n{}", config::ANNOTATED);
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render().to_string().replace(MORE_INFORMATION, "hint: `--help` lists what can be given");
            // Nowhere to write to is no reason for another exit code.
            let _ = if error.use_stderr() { write!(io::stderr(), "{text}") } else { write!(io::stdout(), "{text}") };
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            error.exit_code()
        }
    }
}

fn run(cli: &Cli) -> Result<(), CommandError> {
    let defaults = ServeArgs::default();
    let serve = if let Command::Serve(serve) = &cli.command { serve } else { &defaults };
    let environment = Environment::read();
    let settings = Settings::load(&cli.sources, serve, &environment)?;
    let (mut out, mut notes) = (io::stdout().lock(), io::stderr());
    match &cli.command {
        Command::Serve(args) => {
            start_log(&settings.log, &environment)?;
            if args.check_config {
                return Ok(());
            }
            run_serve(&settings, args)
        }
        Command::Invite(args) => commands::invite(&settings, args, &mut out, &mut notes),
        Command::Revoke(args) => commands::revoke(&settings, args, &mut notes),
        Command::Members(args) => commands::members(&settings, args, &mut out),
        Command::Key(KeyCommand::Export(args)) => keys::export(&settings, args, &mut out, &mut notes),
        Command::Key(KeyCommand::Delegate(args)) => {
            keys::delegate(&settings, args, &mut io::stdin().lock(), &mut notes)
        }
        Command::Key(KeyCommand::Import(args)) => keys::import(&settings, args, &mut io::stdin().lock(), &mut notes),
    }
}

fn run_serve(settings: &Settings, args: &ServeArgs) -> Result<(), CommandError> {
    // One thread: a coordinator has little to do, and is to be small.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ServeError::System { what: "starting the runtime", source })?;
    let result = runtime.block_on(commands::serve(settings, args, &mut io::stderr()));
    runtime.shutdown_timeout(DISK_GRACE);
    result
}

fn start_log(filter: &str, environment: &Environment) -> Result<(), CommandError> {
    log::start(filter, environment.journal_stream())
        .map_err(|error| CommandError::Log { filter: filter.to_owned(), reason: error.to_string() })
}
