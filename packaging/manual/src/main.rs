//! `buildbee-manual FOLDER`: writes what packages ship beside the programs and what is made from their command lines: a man page for each
//! command, and completions for bash, zsh and fish.
//!
//! One folder a program, laid out as below an installation's prefix. Runs when packages are made, and is no part of them; so no program
//! that is shipped links what makes these. Hidden commands get no page.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

const MAN: &str = "share/man/man1";
/// Where each shell looks, and what it wants the file to be called: this, with `%` for the program.
const SHELLS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions", "%"),
    (Shell::Zsh, "share/zsh/vendor-completions", "_%"),
    (Shell::Fish, "share/fish/vendor_completions.d", "%.fish"),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        return complain("usage: buildbee-manual FOLDER");
    };
    match write(&PathBuf::from(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("error: {error}\nhint: name a folder that can be made and written to")),
    }
}

fn complain(text: &str) -> ExitCode {
    // Nowhere to write to is no reason for another exit code.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(2)
}

fn write(folder: &Path) -> io::Result<()> {
    let programs = [
        ("buildbee", buildbee::cli::arguments::Arguments::command()),
        ("buildbee-agent", buildbee_agent::cli::Cli::command()),
        ("buildbee-coordinator", buildbee_coordinator::cli::Cli::command()),
    ];
    programs.into_iter().try_for_each(|(name, command)| write_program(&folder.join(name), name, command))
}

fn write_program(folder: &Path, name: &str, command: Command) -> io::Result<()> {
    for (shell, place, file_name) in SHELLS {
        let place = folder.join(place);
        fs::create_dir_all(&place)?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), name, &mut text);
        fs::write(place.join(file_name.replace('%', name)), text)?;
    }
    let place = folder.join(MAN);
    fs::create_dir_all(&place)?;
    clap_mangen::generate_to(command, &place)
}
