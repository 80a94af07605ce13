//! What `buildbee toolchain warm` is told, as calls to the daemon: compilers of C and C++, rustc, and what `rust-toolchain.toml` asks for.
//!
//! Which toolchain such a file, a folder or rustup's settings mean is rustup's to say: its stand-in is asked from there. Only the targets
//! are read here.

use std::path::{Path, PathBuf};

use buildbee_proto::local::AdminCall;
use serde::Deserialize;

use super::run::absolute;
use super::toolchain::no_program;
use crate::config;
use crate::exit::Failure;
use crate::toolchain::double;

/// The longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Targets of one file.
const MAX_TARGETS: usize = 16;

/// The parts of `rust-toolchain.toml` that are of interest; rustup knows more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolchainFile {
    toolchain: ToolchainTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolchainTable {
    targets: Vec<String>,
}

/// What the daemon is asked for one word of the command line or of a list.
pub(super) fn calls(word: &Path) -> Result<Vec<AdminCall>, Failure> {
    let name = word.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(channel) = word.to_str().and_then(|word| word.strip_prefix('+')) {
        return Ok(vec![rust(Path::new("rustc"), Path::new("."), Some(channel), None)?]);
    }
    if matches!(name, "rust-toolchain.toml" | "rust-toolchain") {
        let file = absolute(word)?;
        let folder = file.parent().unwrap_or(Path::new("/"));
        let own = [None].into_iter();
        let all = own.chain(targets(&file)?.into_iter().map(Some));
        return all.map(|target| rust(Path::new("rustc"), folder, None, target)).collect();
    }
    let search = config::shell_variables().path;
    let program = double::find(word, &search).ok_or_else(|| no_program(word))?;
    if double::is_rustc(&program) {
        let own = config::rust_variables().rustup_toolchain.and_then(|own| own.into_string().ok());
        return Ok(vec![rust(&program, Path::new("."), own.as_deref(), None)?]);
    }
    Ok(vec![AdminCall::ToolchainWarm { program: text(&program)?, search }])
}

fn rust(program: &Path, folder: &Path, channel: Option<&str>, target: Option<String>) -> Result<AdminCall, Failure> {
    let search = config::shell_variables().path;
    let program = double::find(program, &search).ok_or_else(|| no_program(program))?;
    let variables = config::rust_variables();
    let text_of = |value: Option<std::ffi::OsString>| value.and_then(|value| value.into_string().ok());
    Ok(AdminCall::ToolchainWarmRust {
        program: text(&program)?,
        search,
        folder: text(&absolute(folder)?)?,
        home: text_of(variables.home),
        rustup_home: text_of(variables.rustup_home),
        rustup_toolchain: channel.map(str::to_owned),
        target,
    })
}

fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| no_program(path))
}

/// The targets that a toolchain file names. A file of one line, as before there were tables, names none.
fn targets(file: &PathBuf) -> Result<Vec<String>, Failure> {
    let hint = "hint: rustup's book says what stands in it, under \"Overrides\"";
    let odd = |why: &dyn std::fmt::Display| Failure::user(format!("{}: {why}\n{hint}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| odd(&error))?.len();
    if size > MAX_FILE_BYTES {
        return Err(odd(&"it is too long"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| odd(&error))?;
    of_text(&text).map_err(|why| odd(&why))
}

fn of_text(text: &str) -> Result<Vec<String>, String> {
    if !text.contains('[') {
        return Ok(Vec::new());
    }
    let read: ToolchainFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let targets = read.toolchain.targets;
    if targets.len() > MAX_TARGETS {
        return Err(format!("more than {MAX_TARGETS} targets"));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_toolchain_files() {
        let targets = ["wasm32-unknown-unknown".to_owned()];
        let text = "[toolchain]\nchannel = \"1.88\"\ntargets = [\"wasm32-unknown-unknown\"]\nprofile = \"minimal\"\n";
        assert_eq!(of_text(text).unwrap(), targets);
        for none in ["stable\n", "", "[toolchain]\nchannel = \"nightly\"\n", "[toolchain]\npath = \"/opt/rust\"\n"] {
            assert_eq!(of_text(none).unwrap(), [""; 0], "{none}");
        }
        let many = format!("[toolchain]\ntargets = {:?}\n", vec!["x"; MAX_TARGETS + 1]);
        for odd in ["[toolchain\n", "[toolchain]\ntargets = 1\n", &many] {
            assert!(of_text(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn words_name_compilers() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, content: &str| {
            std::fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name)
        };
        let rustc = path("rustc", "");
        match &calls(&rustc).unwrap()[..] {
            [AdminCall::ToolchainWarmRust { program, target: None, .. }] => assert_eq!(Path::new(program), rustc),
            other => panic!("{other:?}"),
        }
        let gcc = path("gcc", "");
        assert!(
            matches!(&calls(&gcc).unwrap()[..], [AdminCall::ToolchainWarm { program, .. }] if Path::new(program) == gcc)
        );
        assert!(calls(&folder.path().join("nothing")).is_err());
        if double::find(Path::new("rustc"), &config::shell_variables().path).is_none() {
            return;
        }
        let named = path("rust-toolchain.toml", "[toolchain]\ntargets = [\"x\"]\n");
        let called = calls(&named).unwrap();
        let targets = called.iter().filter_map(|call| match call {
            AdminCall::ToolchainWarmRust { target, rustup_toolchain: None, folder: from, .. } => {
                (Path::new(from) == folder.path()).then_some(target.as_deref())
            }
            _ => None,
        });
        assert_eq!(targets.collect::<Vec<_>>(), [None, Some("x")]);
        let other = calls(Path::new("+nightly")).unwrap();
        let is_nightly = |call: &AdminCall| matches!(call, AdminCall::ToolchainWarmRust { rustup_toolchain: Some(it), .. } if it == "nightly");
        assert!(other.len() == 1 && is_nightly(&other[0]), "{other:?}");
    }
}
