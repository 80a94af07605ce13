//! Asks: agents which doubles they have, this machine's compiler what it is, and either of a pair a question.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::double::Double;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::limits::MAX_DOUBLES;

use super::clang;
use crate::compiler::request::{CompilerFamily, DriverLanguage};
use crate::dispatch::farm::Farm;
use crate::toolchain::Compiler;
use crate::toolchain::double::compressing;

/// Agents that are asked.
const MAX_ASKED: usize = 16;
/// An agent answers within this time, or counts as having none.
const AGENT_DEADLINE: Duration = Duration::from_secs(3);
/// A compiler of this machine answers within this time: on a slow or emulated board too.
const LOCAL_DEADLINE: Duration = Duration::from_secs(180);

/// What this machine's compiler is, in the words that doubles are looked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As in [`Double`].
    pub family: &'static str,
    /// As in [`Double`].
    pub driver: &'static str,
    /// As in [`Double`].
    pub version: String,
    /// What it compiles for.
    pub target: String,
    /// Libraries that it compresses with.
    pub libraries: Vec<String>,
}

impl Identity {
    /// Whether `double` may be this compiler's.
    pub fn suits(&self, double: &Double) -> bool {
        double.family == self.family
            && double.driver == self.driver
            && double.version == self.version
            && (double.target.is_empty() || double.target == self.target)
    }

    /// Whether both compress with the same libraries. Neither may be unknown.
    pub fn compresses_as(&self, double: &Double) -> bool {
        !self.libraries.is_empty() && self.libraries == double.libraries
    }

    /// For people.
    pub fn label(&self) -> String {
        format!("{} {} for {}", self.family, self.version, self.target)
    }
}

/// The doubles that the farm's agents tell of, each once.
pub async fn agents(farm: &Farm) -> Vec<Double> {
    let asked = farm.responsive_agents().into_iter().take(MAX_ASKED).map(|agent| async move {
        let asking = farm.cache_streams().ask(agent, &[CacheRequest::Doubles]);
        match tokio::time::timeout(AGENT_DEADLINE, asking).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(error)) => {
                tracing::debug!(agent = %agent.short(), %error, "an agent does not tell of doubles");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    });
    let told: BTreeSet<Vec<u8>> = (futures::future::join_all(asked).await.into_iter().flatten())
        .filter_map(|reply| if let CacheReply::Doubles(doubles) = reply { Some(doubles) } else { None })
        .flatten()
        .map(|bytes| bytes.0)
        .take(MAX_ASKED * MAX_DOUBLES)
        .collect();
    told.iter().filter_map(|bytes| Double::from_canonical(bytes).ok()).collect()
}

/// What `compiler` says that it is; why nothing, where it does not.
pub async fn identity(compiler: &Compiler, driver: DriverLanguage) -> Result<Identity, String> {
    let program = compiler.program.as_path();
    let (family, version, target) = match compiler.family {
        CompilerFamily::Gcc => ("gcc", line(program, "-dumpfullversion").await?, line(program, "-dumpmachine").await?),
        CompilerFamily::Clang => {
            let output = run(program, &["--version".to_owned()], Path::new("/"), &[]).await?;
            let told = clang::target_and_version(&String::from_utf8_lossy(&output.stdout));
            let (target, version) = told.ok_or("clang does not say what it compiles for")?;
            ("clang", version, target)
        }
    };
    let libraries = compressing(compiler.parts.files.iter().map(|(path, _)| path.as_path()));
    Ok(Identity { family, driver: driver_word(driver), version, target, libraries })
}

/// What a gcc of this machine compiles for, in its own word.
pub async fn machine(compiler: &Compiler) -> Result<String, String> {
    line(&compiler.program, "-dumpmachine").await
}

/// As in [`Double`].
pub fn driver_word(driver: DriverLanguage) -> &'static str {
    match driver {
        DriverLanguage::C => "c",
        DriverLanguage::Cxx => "c++",
    }
}

async fn line(program: &Path, question: &str) -> Result<String, String> {
    let output = run(program, &[question.to_owned()], Path::new("/"), &[]).await?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let is_answer = output.status.success() && !text.is_empty() && !text.contains(char::is_whitespace);
    if is_answer { Ok(text) } else { Err(format!("{} does not answer {question}", program.display())) }
}

/// Runs a program of this machine, with nothing set but what `env` says.
pub async fn run(
    program: &Path,
    arguments: &[String],
    folder: &Path,
    env: &[(String, String)],
) -> Result<Output, String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(LOCAL_DEADLINE, command.output()).await;
    let output = output.map_err(|_| format!("{} takes too long", program.display()))?;
    output.map_err(|error| format!("{} can't be run: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use buildbee_proto::digest::Digest;
    use buildbee_proto::toolchain::Toolchain;

    use super::*;
    use crate::inputs::filehash::FileHashes;
    use crate::toolchain::Toolchains;

    #[tokio::test]
    async fn doubles_are_looked_for_by_what_a_compiler_says() {
        let toolchains = Toolchains::new(FileHashes::default());
        let compiler = toolchains.identify(Path::new("/usr/bin/gcc"), OsStr::new("/usr/bin:/bin")).await.unwrap();
        let identity = identity(&compiler, DriverLanguage::C).await.unwrap();
        assert!(identity.libraries.iter().any(|name| name.starts_with("libz.so.")), "{identity:?}");
        let double = Double {
            toolchain: Toolchain { root: Digest::of(b""), host: String::new(), label: String::new() },
            program: "/usr/bin/gcc".to_owned(),
            search: String::new(),
            family: "gcc".to_owned(),
            driver: "c".to_owned(),
            version: identity.version.clone(),
            target: identity.target.clone(),
            libraries: identity.libraries.clone(),
        };
        assert!(identity.suits(&double) && identity.compresses_as(&double));
        for other in [
            Double { family: "clang".to_owned(), ..double.clone() },
            Double { driver: "c++".to_owned(), ..double.clone() },
            Double { version: "1.2.3".to_owned(), ..double.clone() },
            Double { target: "pdp11".to_owned(), ..double.clone() },
        ] {
            assert!(!identity.suits(&other), "{other:?}");
        }
        assert!(!identity.compresses_as(&Double { libraries: Vec::new(), ..double }));
    }
}
