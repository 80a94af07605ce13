//! Puts the wrapper in the place of a build script's program, once that is made. Blocks.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::context::Context;
use super::super::crates::plan::CratePlan;
use super::super::placement::{Content, Placed, place};
use crate::compiler::outputs::Existing;
use crate::config::{BUILD_SCRIPTS_VARIABLE, switch};
use crate::rust::request::RustOutputKind;
use crate::rust::script::{is_script, program_behind};
use crate::wrapper::program::OWN_NAME;

/// Whether a build wants the runs of its scripts kept: its own word, or the `setting`.
pub fn are_wanted(setting: bool, env: &[(String, String)]) -> bool {
    let word = env.iter().find(|(name, _)| name == BUILD_SCRIPTS_VARIABLE);
    word.and_then(|(_, word)| switch(word)).unwrap_or(setting)
}

impl CratePlan {
    /// The program that the wrapper is to stand in for, once it is made.
    fn script(&self, context: &Context) -> Option<PathBuf> {
        if !is_script(&self.request.crate_name) || !are_wanted(context.settings.build_scripts, &self.call.env) {
            return None;
        }
        let program = self.request.outputs.iter().find(|output| output.what == RustOutputKind::Executable)?;
        Some(self.absolute(&program.path))
    }

    /// Whether that is to be.
    pub fn is_stood_in_for(&self, context: &Context) -> bool {
        self.script(context).is_some()
    }

    /// Has the wrapper stand in for the program that was just made, if it is a build script's. A failure leaves the program where it is.
    pub fn stand_in(&self, context: &Context) {
        let Some(program) = self.script(context) else { return };
        let (Some(behind), Ok(own)) = (program_behind(&program), std::env::current_exe()) else { return };
        let wrapper = own.with_file_name(OWN_NAME);
        let (Ok(made), Ok(copied)) = (context.hashes.hash(&program), context.hashes.hash(&wrapper)) else { return };
        // It stands there already where nothing was made.
        if made.digest == copied.digest {
            return;
        }
        match exchange(&program, &behind, &wrapper) {
            Ok(meta) => context.hashes.remember_made(&behind, made.digest, &meta),
            Err(error) => tracing::info!(program = %program.display(), %error, "nothing stands in for a build script"),
        }
    }
}

/// The program gets the name `behind`, and a copy of the wrapper its own. Returns what the program is then.
fn exchange(program: &Path, behind: &Path, wrapper: &Path) -> io::Result<fs::Metadata> {
    let copied = File::open(wrapper)?;
    let (n_bytes, mode) = (copied.metadata()?.len(), fs::metadata(program)?.permissions().mode());
    fs::rename(program, behind)?;
    let stand_in = Placed {
        path: program.to_owned(),
        content: Content::File(&copied, n_bytes),
        mode: mode & 0o777,
        existing: Existing::Replaced,
    };
    place(&[stand_in]).map_err(|error| fs::rename(behind, program).err().unwrap_or(error.error))?;
    fs::metadata(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_s_own_word_counts() {
        let env = |word: &str| vec![(BUILD_SCRIPTS_VARIABLE.to_owned(), word.to_owned())];
        assert!(are_wanted(false, &env("1")) && !are_wanted(true, &env("off")));
        assert!(are_wanted(true, &env("perhaps")) && !are_wanted(false, &[]));
    }

    #[test]
    fn a_program_changes_places_with_the_wrapper_or_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [program, behind, wrapper] = ["build_script_x", ".real", "buildbee"].map(|name| folder.path().join(name));
        fs::write(&program, "program").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(exchange(&program, &behind, &wrapper).is_err());
        assert_eq!(fs::read(&program).unwrap(), b"program");
        fs::write(&wrapper, "wrapper").unwrap();
        exchange(&program, &behind, &wrapper).unwrap();
        assert_eq!((fs::read(&program).unwrap(), fs::read(&behind).unwrap()), (b"wrapper".into(), b"program".into()));
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o750);
    }
}
