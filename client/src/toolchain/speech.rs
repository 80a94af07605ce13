//! Asks compilers out of stores in which locale they speak, once: their C library looks for locales elsewhere than this system's does, so
//! that nobody else knows.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use buildbee_proto::toolchain::ToolchainId;

use super::Compiler;
use crate::compiler::environment::CommonLocale;

/// Answers remembered; beyond it the memory starts over.
const MAX_ANSWERS: usize = 256;
/// How variables begin that say how messages come out, and where what they name is found.
const NAMES: [&str; 6] = ["LANG", "LC_", "LOCALE_ARCHIVE", "LOCPATH", "NLSPATH", "TEXTDOMAINDIR"];
/// Every compiler complains of it with a name in quotation marks.
const WRONG: &[u8] = b"int one = another;\n";

type Known = HashMap<(ToolchainId, Vec<(String, String)>), Option<CommonLocale>>;

/// Knows how compilers speak. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    known: Arc<Mutex<Known>>,
}

impl Speech {
    /// The locale that has every toolchain and in which `compiler` says what it says under `env`; `None` where there is none. Starts it
    /// three times the first time.
    pub fn of(&self, compiler: &Compiler, env: &[(String, String)]) -> Option<CommonLocale> {
        let says = |(name, _): &&(String, String)| NAMES.iter().any(|start| name.starts_with(start));
        let named: Vec<(String, String)> = env.iter().filter(says).cloned().collect();
        let key = (compiler.parts.id, named);
        // Held while asking: a build's first hundred compiles make one question.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(&key) {
            return *answer;
        }
        let answer = ask(compiler, &key.1);
        if known.len() >= MAX_ANSWERS {
            known.clear();
        }
        known.insert(key, answer);
        answer
    }
}

fn ask(compiler: &Compiler, named: &[(String, String)]) -> Option<CommonLocale> {
    let words = complaint(compiler, named).ok()?;
    let under = |locale: &str| complaint(compiler, &[("LC_ALL".to_owned(), locale.to_owned())]).ok();
    let common = [("C", CommonLocale::Plain), ("C.UTF-8", CommonLocale::Utf8)];
    common.into_iter().find_map(|(name, locale)| (under(name).as_ref() == Some(&words)).then_some(locale))
}

fn complaint(compiler: &Compiler, env: &[(String, String)]) -> io::Result<Vec<u8>> {
    let mut command = Command::new(&compiler.program);
    command.args(["-fsyntax-only", "-x", "c", "-"]).env_clear().env("PATH", &compiler.asked_with);
    command.envs(env.iter().map(|(name, value)| (name, value))).current_dir("/");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(WRONG)?;
    }
    Ok(child.wait_with_output()?.stderr)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::*;
    use crate::inputs::filehash::FileHashes;
    use crate::toolchain::Toolchains;

    #[tokio::test]
    async fn a_compiler_says_how_it_speaks() {
        let toolchains = Toolchains::new(FileHashes::default());
        let gcc = toolchains.identify(Path::new("/usr/bin/gcc"), OsStr::new("/usr/bin:/bin")).await.unwrap();
        let spoken = |env: &[(&str, &str)]| {
            let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Speech::default().of(&gcc, &env)
        };
        assert_eq!(spoken(&[("HOME", "/"), ("LANG", "xx_YY.UTF-8")]), Some(CommonLocale::Plain), "not installed");
        assert_eq!(spoken(&[("LANG", "C.UTF-8")]), Some(CommonLocale::Utf8));
        assert_eq!(spoken(&[("LANG", "C.UTF-8"), ("LC_ALL", "C")]), Some(CommonLocale::Plain));
    }
}
