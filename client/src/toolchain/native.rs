//! Asks compilers what `native` is on this machine, once.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use buildbee_proto::toolchain::ToolchainId;

use super::Compiler;
use crate::compiler::native::meaning;
use crate::compiler::request::CompilerFamily;

/// Answers remembered; beyond it the memory starts over.
const MAX_ANSWERS: usize = 256;

/// Answers by compiler and options. A processor does not change while a daemon lives.
type Known = HashMap<(ToolchainId, Vec<String>), Option<Vec<String>>>;

/// Knows what `native` is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Natives {
    known: Arc<Mutex<Known>>,
}

impl Natives {
    /// What `options` come to with `compiler`, in its driver's words; `None` where it does not say. Starts it twice the first time.
    pub fn read(&self, compiler: &Compiler, options: &[String]) -> Option<Vec<String>> {
        let key = (compiler.parts.id, options.to_vec());
        // Held while asking: a build's first hundred compiles make one question.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(&key) {
            return answer.clone();
        }
        let answer = ask(&compiler.program, &compiler.asked_with, compiler.family, options);
        if known.len() >= MAX_ANSWERS {
            known.clear();
        }
        known.insert(key, answer.clone());
        answer
    }
}

fn ask(program: &Path, search: &str, family: CompilerFamily, options: &[String]) -> Option<Vec<String>> {
    let plan = |options: &[String]| {
        let mut command = Command::new(program);
        command.args(options).args(["-###", "-c", "-x", "c", "/dev/null"]);
        command.env_clear().env("LC_ALL", "C").env("PATH", search);
        let output = command.stdin(Stdio::null()).current_dir("/").output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stderr).ok()).flatten()
    };
    meaning(&plan(options)?, &plan(&[])?, family, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_compilers_say_what_native_is() {
        let options = ["-march=native".to_owned()];
        for (program, family) in [("/usr/bin/gcc", CompilerFamily::Gcc), ("/usr/bin/clang", CompilerFamily::Clang)] {
            let told = ask(Path::new(program), "/usr/bin:/bin", family, &options).unwrap();
            assert!(told.iter().any(|option| option.starts_with("-march=") && !option.ends_with("native")), "{told:?}");
        }
    }
}
