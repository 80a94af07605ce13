//! `buildbee-agent`: reads the command line, does what it says, waits for signals. Everything else is in the library.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use buildbee_agent::add;
use buildbee_agent::cli::{Cli, CliCommand, DoctorArguments, JoinArguments, ServeArguments, ToolchainCommand};
use buildbee_agent::config::{self, ConfigError, SERVICE_STATE_DIR, Settings};
use buildbee_agent::doctor;
use buildbee_agent::join::{JoinFailure, join};
use buildbee_agent::owner::words::{self, WordsError};
use buildbee_agent::serve::Agent;
use buildbee_p2p::log;
use buildbee_proto::membership::UnixSeconds;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code: the user asked for something that can't be.
const EXIT_USER: u8 = 2;

/// Asks for the settings; no command of its own, but where people look for it.
const HELP_ON_SETTINGS: [&str; 2] = ["help", "config"];

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(HELP_ON_SETTINGS) {
        say(&format!("settings file: {}\n\n{}", config::settings_file().display(), config::ANNOTATED.trim_end()));
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render().to_string().replace(MORE_INFORMATION, "hint: `--help` lists what can be given");
            // A reader that left is no error.
            let _ = if error.use_stderr() { write!(io::stderr(), "{text}") } else { write!(io::stdout(), "{text}") };
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USER));
        }
    };
    run(cli).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error}");
        let is_users =
            error.is::<ConfigError>() || error.downcast_ref::<JoinFailure>().is_some_and(JoinFailure::is_users);
        if is_users { ExitCode::from(EXIT_USER) } else { ExitCode::FAILURE }
    })
}

/// How clap ends its errors.
const MORE_INFORMATION: &str = "For more information, try '--help'.";

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let filter = config::log_filter();
    log::start(&filter, config::journal_stream().as_deref())
        .map_err(|error| ConfigError::Log { filter, error: error.to_string() })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow!("no threads: {error}\nhint: the system may be out of processes or memory"))?;
    let code = runtime.block_on(async {
        match cli.command {
            CliCommand::Serve(arguments) => Box::pin(serve(arguments)).await,
            CliCommand::Join(arguments) => Box::pin(join_farm(arguments)).await,
            CliCommand::Doctor(arguments) => Box::pin(examine(arguments)).await,
            CliCommand::Toolchain(command) => toolchain(command),
            CliCommand::Pause(arguments) => told(words::pause(&arguments, SystemTime::now())),
            CliCommand::Resume(place) => told(words::resume(&place)),
            CliCommand::Status(arguments) => told(words::status(&arguments, SystemTime::now())),
            CliCommand::History(arguments) => told(words::history(&arguments, SystemTime::now())),
        }
    });
    // Work that blocks on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

fn told(text: Result<String, WordsError>) -> anyhow::Result<ExitCode> {
    match text {
        Ok(text) => say(&text),
        Err(WordsError::Config(error)) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&arguments)?;
    if arguments.check_config {
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything is started: a signal from now on leads to an orderly end.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let agent = tokio::select! {
        started = Agent::start(&settings) => started?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    agent.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn join_farm(arguments: JoinArguments) -> anyhow::Result<ExitCode> {
    let settings = Settings::load_places(&arguments.place, None)?;
    let service = Path::new(SERVICE_STATE_DIR);
    if arguments.place.state_dir.is_none() && settings.state_dir != service && service.is_dir() {
        return Err(JoinFailure::Service.into());
    }
    let host_name = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = arguments.name.or_else(host_name).unwrap_or_else(|| "agent".to_owned());
    let (enrolment, peer) = join(&settings.state_dir, &arguments.ticket, &name, now()).await?;
    say(&format!("joined farm {} as {name:?}, peer {peer}", enrolment.membership.value.farm.short()));
    Ok(ExitCode::SUCCESS)
}

fn toolchain(command: ToolchainCommand) -> anyhow::Result<ExitCode> {
    let labels = match command {
        ToolchainCommand::Add(arguments) => {
            let settings = Settings::load_places(&arguments.place, None)?;
            let own = std::env::current_exe()?;
            let mut labels = Vec::new();
            for what in arguments.what {
                labels = add::add(&settings.state_dir, &what, own.parent().unwrap_or(Path::new("/")))?;
            }
            labels
        }
        ToolchainCommand::List(place) => add::labels(&Settings::load_places(&place, None)?.state_dir)?,
    };
    for label in labels {
        say(&label);
    }
    Ok(ExitCode::SUCCESS)
}

async fn examine(arguments: DoctorArguments) -> anyhow::Result<ExitCode> {
    let settings = Settings::load_places(&arguments.place, arguments.sandbox)?;
    let findings = doctor::examine(&settings, now()).await;
    if arguments.json {
        say(&serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            say(&format!("{} {}: {}", if finding.ok { "ok     " } else { "problem" }, finding.check, finding.message));
        }
    }
    Ok(if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn now() -> UnixSeconds {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[expect(clippy::print_stdout, reason = "what a person or script asked for")]
fn say(text: &str) {
    println!("{text}");
}
