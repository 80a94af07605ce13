//! A compile as an action, with everything an agent may ask for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildbee_proto::action::{Action, Command, STDERR_TERMINAL, TARGET_PROPERTY};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::path::{PathError, RelPath};

use crate::compiler::request::CompileRequest;
use crate::doubles::pair::Dressed;
use crate::inputs::discover::{Inputs, OutputPlace};
use crate::toolchain::Compiler;
use crate::toolchain::parts::Parts;

/// Wall-clock limit of one compile.
const TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// An action ready to be sent.
#[derive(Debug)]
pub struct Job {
    /// The action's name.
    pub action: Digest,
    /// Its canonical bytes.
    pub action_bytes: Vec<u8>,
    /// Canonical bytes of its command.
    pub command_bytes: Vec<u8>,
    /// What runs it.
    pub parts: Arc<Parts>,
    /// What it reads.
    pub inputs: Inputs,
    /// The source's place.
    pub source: Option<PathBuf>,
    /// Outputs, sorted by place.
    pub outputs: Vec<OutputPlace>,
    /// Whether the compiler is told a path through a symlink by `PWD`. bubblewrap sets `PWD` to where it goes, so no sandbox can say it, and
    /// debug information would name another folder.
    pub through_symlink: bool,
}

/// What is run, how and where.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The program's place.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory, absolute.
    pub working_directory: &'a Path,
    /// What the action asks of an agent, sorted by name.
    pub platform: Vec<(String, String)>,
}

/// What compiles.
struct Runs<'a> {
    program: &'a Path,
    arguments: &'a [String],
    search: &'a str,
    target: Option<&'a str>,
    variable: Option<(String, String)>,
}

impl Job {
    /// Puts an action together. `cwd` is absolute and physical.
    pub fn new(compiler: &Compiler, request: &CompileRequest, inputs: Inputs, cwd: &Path) -> Result<Self, PathError> {
        let runs = Runs {
            program: &compiler.program,
            arguments: &request.argv,
            search: &compiler.search,
            target: None,
            variable: None,
        };
        Self::compiling(Arc::clone(&compiler.parts), &runs, request, inputs, cwd)
    }

    /// The same compile as an action of the compiler's double.
    pub fn for_double(
        double: &Dressed,
        request: &CompileRequest,
        inputs: Inputs,
        cwd: &Path,
    ) -> Result<Self, PathError> {
        let (program, arguments) = (double.program(), double.arguments(request));
        let target = Some(double.target.as_str());
        let variable = double.variable(request);
        let runs = Runs { program: &program, arguments: &arguments, search: &double.double.search, target, variable };
        Self::compiling(Arc::clone(&double.parts), &runs, request, inputs, cwd)
    }

    fn compiling(
        parts: Arc<Parts>,
        runs: &Runs<'_>,
        request: &CompileRequest,
        inputs: Inputs,
        cwd: &Path,
    ) -> Result<Self, PathError> {
        let mut env: BTreeMap<String, String> = request.env.iter().cloned().collect();
        env.insert("PATH".to_owned(), runs.search.to_owned());
        env.extend(runs.variable.clone());
        env.insert("PWD".to_owned(), inputs.logical_directory.to_str().unwrap_or("/").to_owned());
        let through_symlink = inputs.logical_directory.as_os_str() != cwd.as_os_str();
        let terminal = request.stderr_is_terminal.then(|| (STDERR_TERMINAL.0.to_owned(), STDERR_TERMINAL.1.to_owned()));
        let target = runs.target.map(|target| (TARGET_PROPERTY.to_owned(), target.to_owned()));
        let source = inputs.files.values().find(|path| path.file_name() == request.source.file_name()).cloned();
        let recipe = Recipe {
            program: runs.program,
            arguments: runs.arguments,
            env,
            working_directory: cwd,
            platform: terminal.into_iter().chain(target).collect(),
        };
        Ok(Self { source, through_symlink, ..Self::of(parts, recipe, inputs)? })
    }

    /// From what any front-end says.
    pub fn of(parts: Arc<Parts>, recipe: Recipe<'_>, inputs: Inputs) -> Result<Self, PathError> {
        let mut outputs = inputs.outputs.clone();
        outputs.sort_by(|one, other| one.place.cmp(&other.place));
        outputs.dedup_by(|one, other| one.place == other.place);
        let program = recipe.program.to_str().ok_or_else(|| PathError::NotUtf8(recipe.program.to_owned()))?;
        let command = Command {
            argv: std::iter::once(program.to_owned()).chain(recipe.arguments.iter().cloned()).collect(),
            env: recipe.env.into_iter().collect(),
            working_directory: RelPath::from_absolute(recipe.working_directory)?,
            output_files: outputs.iter().map(|output| output.place.clone()).collect(),
            output_directories: Vec::new(),
        };
        let command_bytes = command.to_canonical();
        let action = Action {
            command: Digest::of(&command_bytes),
            input_root: inputs.tree.root,
            toolchain: parts.id,
            platform: recipe.platform,
            timeout_ms: TIMEOUT_MS,
            do_not_cache: false,
        };
        let action_bytes = action.to_canonical();
        Ok(Self {
            action: Digest::of(&action_bytes),
            action_bytes,
            command_bytes,
            parts,
            inputs,
            source: None,
            outputs,
            through_symlink: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::compiler::decide::decide;
    use crate::compiler::request::{Decision, DriverLanguage, Invocation};
    use crate::inputs::discover::Discovery;
    use crate::inputs::filehash::FileHashes;
    use crate::toolchain::Toolchains;

    #[tokio::test]
    async fn a_working_directory_behind_a_symlink_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        std::fs::write(root.join("real/x.c"), "int x;\n").unwrap();
        let hashes = FileHashes::default();
        let toolchains = Toolchains::new(hashes.clone());
        let compiler = toolchains.identify(Path::new("/usr/bin/gcc"), OsStr::new("/usr/bin:/bin")).await.unwrap();
        let argv = ["-c", "x.c"].map(str::to_owned);
        for (logical, expected) in [("link", true), ("real", false), ("gone", false)] {
            let env = [("PWD".to_owned(), root.join(logical).to_str().unwrap().to_owned())];
            let cwd = root.join("real");
            let asked = Invocation {
                family: compiler.family,
                driver: DriverLanguage::C,
                argv: &argv,
                env: &env,
                cwd: &cwd,
                stderr_is_terminal: false,
                columns: None,
                locale: None,
                variables: &[],
            };
            let Decision::Distribute(request) = decide(&asked, &|path: &Path| std::fs::read(path)) else {
                panic!("{logical} is local")
            };
            let request = Arc::from(request);
            let inputs = Discovery::new(hashes.clone()).inputs(&compiler, &request, &env, &cwd).await.unwrap();
            let job = Job::new(&compiler, &request, inputs, &cwd).unwrap();
            assert_eq!(job.through_symlink, expected, "{logical}");
        }
    }
}
