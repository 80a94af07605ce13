//! Finds what a compile reads. First by following includes through the search path, without starting a preprocessor; where a file names
//! what it includes by a macro, or the superset of all branches can't be had, by asking the compiler for its list (`-M`).
//!
//! The outcome is everything that an action needs of the client's files: the tree an agent sees, the read set that a later hit checks,
//! and where each blob can be had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::limits::MAX_READ_SET;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;
use thiserror::Error;

use super::filehash::{FileHashes, FileIdentity, Hashed};
use super::look::Look;
use super::lookup::LookupError;
use super::recorded::SettledFolders;
use super::resolve::ResolveError;
use super::search_path::{Search, SearchPathError, SearchPaths};
use super::tree::{Conflict, Tree};
use crate::compiler::depfile;
use crate::compiler::request::CompileRequest;
use crate::journal::InputCounts;
use crate::toolchain::Compiler;

/// The compiler lists its files within this time, or the compile runs locally.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a compile reads.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// What must be as it is for the result to hold.
    pub read_set: ReadSet,
    /// Folders that lacked what the read set says, as they were then.
    pub folders: SettledFolders,
    /// Whether the compiler had to be asked for its list of files.
    pub listed: bool,
    /// What an agent sees.
    pub tree: Arc<Tree>,
    /// Every file by content, with its place.
    pub files: BTreeMap<Digest, PathBuf>,
    /// Every file by physical place, as hashed.
    pub guards: Vec<(PathBuf, Hashed)>,
    /// Files that the compile may write, in the order of the request's outputs.
    pub outputs: Vec<OutputPlace>,
    /// The spelling of the working directory that the compiler is told by `PWD`.
    pub logical_directory: PathBuf,
}

impl Inputs {
    /// How much it is.
    pub fn counts(&self) -> InputCounts {
        let bytes = self.files.keys().map(|digest| digest.size_bytes).fold(0, u64::saturating_add);
        InputCounts { files: self.files.len(), bytes, absent: self.read_set.absent.len() }
    }
}

/// Where a file is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPlace {
    /// Its physical place.
    pub place: RelPath,
    /// Whether a compile that succeeds always writes it.
    pub always: bool,
    /// The file that was there before the compile.
    pub before: Option<FileIdentity>,
}

/// Why a compile's inputs can't be told. Each ends in a local run.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// `-M` failed; a local run will show the user why.
    #[error("the compiler could not list what it reads")]
    Unlisted,
    /// It could not be started.
    #[error("the compiler could not be started: {0}")]
    Start(std::io::Error),
    /// It took too long.
    #[error("the compiler did not list what it reads in time")]
    Timeout,
    /// Its list makes no sense.
    #[error("the compiler's list of files could not be read: {0}")]
    Malformed(String),
    /// A file can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A pipe or device: reading it takes away what the compiler is to read.
    #[error("{path} is not a regular file", path = .0.display())]
    NotRegular(PathBuf),
    /// A file that was listed is gone.
    #[error("{path} vanished", path = .0.display())]
    Vanished(PathBuf),
    /// The result depends on the time of day.
    #[error("{path} asks for the time (__DATE__, __TIME__ or __TIMESTAMP__)", path = .0.display())]
    TimeMacros(PathBuf),
    /// A file is read that no list names.
    #[error("{path} reads a file by other means than #include (.incbin, #embed, #pragma GCC dependency)", path = .0.display())]
    Embeds(PathBuf),
    /// An include that only the preprocessor can follow.
    #[error("{path} includes a file by a macro's name", path = .0.display())]
    ComputedInclude(PathBuf),
    /// Preprocessed text with directives, which some compilers obey.
    #[error("{path} is preprocessed, yet includes files", path = .0.display())]
    IncludesAfterAll(PathBuf),
    /// A `__has_include` that can't be followed.
    #[error("{path} asks for a computed name (__has_include)", path = .0.display())]
    ComputedProbe(PathBuf),
    /// A file stands where the compiler would remove one.
    #[error("{path} would be removed by the compiler", path = .0.display())]
    Removed(PathBuf),
    /// A place where the sandbox has its own files.
    #[error("{0} is in a place that differs from machine to machine")]
    SpecialPath(RelPath),
    /// An output's folder does not exist, or the output is no regular file.
    #[error("{path} cannot be written", path = .0.display())]
    Output(PathBuf),
    /// Names can't be looked up.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Paths can't be followed.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The search path is not known.
    #[error(transparent)]
    SearchPath(#[from] SearchPathError),
    /// Files changed meanwhile.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// More than a read set holds.
    #[error("more than {MAX_READ_SET} files are read")]
    TooMany,
    /// The task that looked was cut off.
    #[error("interrupted")]
    Interrupted,
}

impl DiscoverError {
    /// The reason's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unlisted | Self::Start(_) | Self::Timeout | Self::Malformed(_) => "inputs-unlisted",
            Self::Unreadable { .. }
            | Self::NotRegular(_)
            | Self::Vanished(_)
            | Self::Conflict(_)
            | Self::Interrupted => "input-unreadable",
            Self::TimeMacros(_) => "time-macros",
            Self::Embeds(_) => "embedded-file",
            Self::ComputedInclude(_) | Self::IncludesAfterAll(_) => "computed-include",
            Self::ComputedProbe(_) => "computed-has-include",
            Self::SpecialPath(_) => "special-path",
            Self::Output(_) | Self::Removed(_) => "unusual-output",
            Self::Lookup(LookupError::PrecompiledHeader(_)) => "precompiled-header",
            Self::Lookup(LookupError::TooMany) | Self::TooMany => "too-many-inputs",
            Self::Lookup(LookupError::Resolve(_)) | Self::Resolve(_) => "unusual-path",
            Self::SearchPath(_) => "search-path-unknown",
        }
    }
}

/// Finds inputs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Discovery {
    hashes: FileHashes,
    search_paths: SearchPaths,
}

impl Discovery {
    /// With a memory of digests.
    pub fn new(hashes: FileHashes) -> Self {
        Self { hashes, search_paths: SearchPaths::default() }
    }

    /// What `request` reads when it runs in `cwd`. `env` is the user's whole environment: the compiler is started in it. Dropping the
    /// future stops the compiler.
    pub async fn inputs(
        &self,
        compiler: &Arc<Compiler>,
        request: &Arc<CompileRequest>,
        env: &[(String, String)],
        cwd: &Path,
    ) -> Result<Inputs, DiscoverError> {
        let language = request.language.option_name();
        if request.language.is_preprocessed() {
            return self.look(request, cwd, Search::default(), Some(vec![request.source.clone()])).await;
        }
        let (arguments, named) = (&request.include_arguments, &request.search_directories);
        let search = self.search_paths.of(compiler, language, arguments, &request.env, cwd, named).await?;
        match self.look(request, cwd, search.clone(), None).await {
            Ok(inputs) => return Ok(inputs),
            Err(error @ DiscoverError::NotRegular(_)) => return Err(error),
            // Perhaps only a branch that is never taken stands in the way: the compiler knows.
            Err(error) => {
                tracing::debug!(source = %request.source.display(), %error, "asking the compiler for its files");
            }
        }
        let listed = list(compiler, request, env, cwd).await?;
        let inputs = self.look(request, cwd, search, Some(listed)).await?;
        Ok(Inputs { listed: true, ..inputs })
    }

    async fn look(
        &self,
        request: &Arc<CompileRequest>,
        cwd: &Path,
        search: Search,
        listed: Option<Vec<PathBuf>>,
    ) -> Result<Inputs, DiscoverError> {
        let (hashes, request, cwd) = (self.hashes.clone(), Arc::clone(request), cwd.to_owned());
        let look = move || {
            let Search { path, followed } = &search;
            match listed {
                // Here it counts which names lead to a file, which is not remembered.
                Some(listed) => Look::new(&hashes, &request, &cwd, path, Arc::default())?.listed(listed),
                None => Look::new(&hashes, &request, &cwd, path, Arc::clone(followed))?.closure(),
            }
        };
        tokio::task::spawn_blocking(look).await.map_err(|_| DiscoverError::Interrupted)?
    }
}

async fn list(
    compiler: &Compiler,
    request: &CompileRequest,
    env: &[(String, String)],
    cwd: &Path,
) -> Result<Vec<PathBuf>, DiscoverError> {
    let mut command = tokio::process::Command::new(&compiler.program);
    command.args(&request.include_arguments).args(["-M", "-MT", "x"]).arg(&request.source);
    command.env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    command.current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .map_err(|_| DiscoverError::Timeout)?
        .map_err(DiscoverError::Start)?;
    if !output.status.success() {
        return Err(DiscoverError::Unlisted);
    }
    let rules = depfile::parse(&output.stdout).map_err(|error| DiscoverError::Malformed(error.to_string()))?;
    Ok(depfile::prerequisites(rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiler::decide::decide;
    use crate::compiler::request::{Decision, DriverLanguage, Invocation};
    use crate::toolchain::Toolchains;
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs;

    async fn compile(
        program: &str,
        driver: DriverLanguage,
        words: &str,
        cwd: &Path,
    ) -> (Arc<Compiler>, Arc<CompileRequest>) {
        let toolchains = Toolchains::new(FileHashes::default());
        let compiler = toolchains.identify(Path::new(program), OsStr::new("/usr/bin:/bin")).await.unwrap();
        let argv: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let asked = Invocation {
            family: compiler.family,
            driver,
            argv: &argv,
            env: &[],
            cwd,
            stderr_is_terminal: false,
            columns: None,
            locale: None,
            variables: &[],
        };
        match decide(&asked, &|path: &Path| fs::read(path)) {
            Decision::Distribute(request) => (compiler, Arc::from(request)),
            Decision::Local(reason) => panic!("{words}: {reason}"),
        }
    }

    fn env() -> Vec<(String, String)> {
        vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())]
    }

    fn project() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("inc/sub")).unwrap();
        fs::create_dir(root.join("src")).unwrap();
        fs::write(root.join("inc/sub/a.h"), "#pragma once\n#include \"../b.h\"\n#include <stdlib.h>\n").unwrap();
        fs::write(root.join("inc/b.h"), "#ifndef B\n#define B\n#include \"sub/a.h\"\n#include <limits.h>\n#endif\n")
            .unwrap();
        fs::write(root.join("src/own.h"), "#if __has_include(<gone.h>)\n#include <gone.h>\n#endif\n").unwrap();
        let body = "#include <stdio.h>\n#include <errno.h>\n#include \"own.h\"\n# include <sub/a.h>\n#ifdef _WIN32\n#include <windows.h>\n#endif\n";
        fs::write(root.join("src/x.c"), body).unwrap();
        let cxx =
            "#include <vector>\n#include <string>\n#include <iostream>\n#include <unordered_map>\n#include <regex>\n";
        fs::write(root.join("src/x.cc"), format!("{cxx}{body}")).unwrap();
        (folder, root)
    }

    #[tokio::test]
    async fn the_closure_holds_all_that_compilers_list() {
        let (_folder, root) = project();
        for (program, driver, words) in [
            ("/usr/bin/gcc", DriverLanguage::C, "-Iinc -c src/x.c"),
            ("/usr/bin/g++", DriverLanguage::Cxx, "-std=c++20 -O2 -Iinc -c src/x.cc"),
            ("/usr/bin/clang", DriverLanguage::C, "-Iinc -c src/x.c"),
            ("/usr/bin/clang++", DriverLanguage::Cxx, "-Iinc -c src/x.cc"),
            ("/usr/bin/gcc", DriverLanguage::C, "-include inc/b.h -iquote inc -isystem inc/sub -Iinc -c src/x.c"),
        ] {
            let (compiler, request) = compile(program, driver, words, &root).await;
            let discovery = Discovery::new(FileHashes::default());
            let language = request.language.option_name();
            let search = discovery
                .search_paths
                .of(&compiler, language, &request.include_arguments, &[], &root, &[])
                .await
                .unwrap();
            let closure = discovery.look(&request, &root, search, None).await.unwrap();
            let found: BTreeSet<PathBuf> = closure.guards.iter().map(|(path, _)| path.clone()).collect();
            let listed = list(&compiler, &request, &env(), &root).await.unwrap();
            assert!(listed.len() > 10);
            for file in listed {
                let file = root.join(&file).canonicalize().unwrap();
                assert!(found.contains(&file), "{program} {words}: {} is missing", file.display());
            }
            let gone = |path: &RelPath| path.as_str().ends_with("gone.h");
            assert!(closure.read_set.absent.iter().any(gone), "a name looked for in vain is missing");
        }
    }

    #[tokio::test]
    async fn a_computed_include_is_left_to_the_compiler() {
        let (_folder, root) = project();
        fs::write(root.join("src/y.c"), "#define NAME <sub/a.h>\n#include NAME\n").unwrap();
        let (compiler, request) = compile("/usr/bin/gcc", DriverLanguage::C, "-Iinc -c src/y.c", &root).await;
        let inputs = Discovery::new(FileHashes::default()).inputs(&compiler, &request, &env(), &root).await.unwrap();
        let header = root.join("inc/sub/a.h");
        assert!(inputs.guards.iter().any(|(path, _)| *path == header));
        let shadow = RelPath::from_absolute(&root.join("src/sub/a.h")).unwrap();
        let shadowed = |absent: &RelPath| shadow.as_str().starts_with(absent.as_str());
        assert!(inputs.read_set.absent.iter().any(shadowed), "{:?}", inputs.read_set.absent);
    }

    #[tokio::test]
    async fn preprocessed_text_that_includes_is_local() {
        let (_folder, root) = project();
        fs::write(root.join("src/y.i"), "int x;\n#include \"own.h\"\n").unwrap();
        let (compiler, request) = compile("/usr/bin/clang", DriverLanguage::C, "-c src/y.i", &root).await;
        let inputs = Discovery::new(FileHashes::default()).inputs(&compiler, &request, &env(), &root).await;
        assert!(matches!(inputs, Err(DiscoverError::IncludesAfterAll(_))), "{inputs:?}");
    }

    #[tokio::test]
    async fn a_pipe_is_left_for_the_compiler_to_read() {
        let (_folder, root) = project();
        let pipe = root.join("src/pipe.h");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(root.join("src/y.c"), "#include \"pipe.h\"\n").unwrap();
        let (compiler, request) = compile("/usr/bin/gcc", DriverLanguage::C, "-c src/y.c", &root).await;
        let inputs = Discovery::new(FileHashes::default()).inputs(&compiler, &request, &env(), &root).await;
        assert!(matches!(inputs, Err(DiscoverError::NotRegular(_))), "{inputs:?}");
    }

    #[tokio::test]
    async fn a_precompiled_header_for_the_command_line_is_not_overlooked() {
        let (_folder, root) = project();
        fs::write(root.join("inc/b.h.pch"), "").unwrap();
        let words = "-Iinc -include inc/b.h -c src/x.c";
        let (_, request) = compile("/usr/bin/clang", DriverLanguage::C, words, &root).await;
        let inputs = Discovery::new(FileHashes::default()).look(&request, &root, Search::default(), None).await;
        assert!(matches!(inputs, Err(DiscoverError::Lookup(LookupError::PrecompiledHeader(_)))), "{inputs:?}");
    }
}
