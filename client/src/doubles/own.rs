//! Where this machine's compiler is a double itself: a desktop's cross compiler that agents run for boards, file for file.
//!
//! A board's action and a desktop's then differ in the folders in which either compiler looks by itself, and in what lies there: the board's headers
//! and the cross compiler's stand at other places, which debug information, `__FILE__` and dependency files name. A compile that looks in none of
//! those folders (`-nostdinc`, preprocessed sources, assembler) has the same action on both once the desktop asks for it as the board does:
//! with the toolchain without headers, and with what it compiles for. So each has the other's results.

use std::sync::Arc;

use buildbee_proto::double::Double;
use tokio::time::Instant;

use super::ask;
use super::known::{ASK_AGAIN, Doubles, Known};
use super::pair::Dressed;
use crate::compiler::request::CompilerFamily;
use crate::dispatch::farm::Farm;
use crate::inputs::filehash::FileHashes;
use crate::toolchain::Compiler;
use crate::toolchain::double::bare;
use crate::toolchain::parts::Parts;

/// Whose it is said to be where it is none.
const NONE: &str = "no-double";

impl Doubles {
    /// `compiler` as boards use it, if it is the very double that they do: for compiles in which it looks nowhere by itself. The first time that takes
    /// as long as a look at the compiler; dropped early, nothing is remembered.
    pub async fn own(&self, farm: &Farm, hashes: &FileHashes, compiler: &Arc<Compiler>) -> Option<Arc<Dressed>> {
        let look = async {
            match Box::pin(look(farm, hashes, compiler)).await {
                Ok(dressed) => Known::Proved(Arc::new(dressed)),
                Err(text) => Known::Refused { why: (NONE.to_owned(), text), until: Instant::now() + ASK_AGAIN },
            }
        };
        self.owns.of(compiler.parts.id, Box::pin(look)).await.ok()
    }
}

/// `compiler` as the double that agents tell of; why it is none.
async fn look(farm: &Farm, hashes: &FileHashes, compiler: &Arc<Compiler>) -> Result<Dressed, String> {
    let target = ask::machine(compiler).await?;
    if target.split('-').next() == Some(std::env::consts::ARCH) {
        return Err("it compiles for this machine".to_owned());
    }
    let mut told = ask::agents(farm).await;
    told.retain(|double| double.target == target && compiler.program.to_str() == Some(double.program.as_str()));
    if told.is_empty() {
        return Err("no agent has it".to_owned());
    }
    let (hashes, program) = (hashes.clone(), compiler.program.clone());
    let looking = tokio::task::spawn_blocking(move || bare(&hashes, &program));
    let parts = looking.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    of(told, Arc::new(parts), compiler.family).ok_or_else(|| "agents have another build of it".to_owned())
}

/// The one of `told` that is made of `parts`.
fn of(told: Vec<Double>, parts: Arc<Parts>, family: CompilerFamily) -> Option<Dressed> {
    let double = told.into_iter().find(|double| double.toolchain == parts.toolchain)?;
    let target = double.target.clone();
    Some(Dressed { parts, family, double, target, front: Vec::new(), folders: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::Path;

    use buildbee_proto::digest::Digest;
    use buildbee_proto::toolchain::Toolchain;

    use super::*;
    use crate::compiler::decide::decide;
    use crate::compiler::request::{Decision, DriverLanguage, Invocation};
    use crate::dispatch::job::Job;
    use crate::inputs::discover::Discovery;
    use crate::toolchain::Toolchains;

    fn parts(root: &[u8]) -> Arc<Parts> {
        let toolchain = Toolchain { root: Digest::of(root), host: "x86_64-linux".to_owned(), label: "gcc".to_owned() };
        Arc::new(Parts { id: toolchain.id(), toolchain, files: Vec::new(), directories: Vec::new() })
    }

    fn double() -> Double {
        Double {
            toolchain: parts(b"gcc").toolchain.clone(),
            program: "/usr/bin/aarch64-linux-gnu-gcc".to_owned(),
            search: "/usr/bin".to_owned(),
            family: "gcc".to_owned(),
            driver: "c".to_owned(),
            version: "14.2.0".to_owned(),
            target: "aarch64-linux-gnu".to_owned(),
            libraries: Vec::new(),
        }
    }

    #[test]
    fn another_build_is_no_double() {
        let own = of(vec![double()], parts(b"gcc"), CompilerFamily::Gcc).unwrap();
        assert_eq!((own.double, own.target.as_str()), (double(), "aarch64-linux-gnu"));
        assert!(of(vec![double()], parts(b"another gcc"), CompilerFamily::Gcc).is_none());
    }

    #[tokio::test]
    async fn a_board_and_a_desktop_ask_for_the_same_where_no_folder_of_the_compilers_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for (name, text) in [("x.c", "int x;\n"), ("x.i", "int x;\n"), ("x.s", ".text\n"), ("x.S", ".text\n")] {
            fs::write(root.join(name), text).unwrap();
        }
        let hashes = FileHashes::default();
        let toolchains = Toolchains::new(hashes.clone());
        let compiler = toolchains.identify(Path::new("/usr/bin/gcc"), OsStr::new("/usr/bin:/bin")).await.unwrap();
        let on_desktop = of(vec![double()], parts(b"gcc"), CompilerFamily::Gcc).unwrap();
        let folders = ["-isystem", "/usr/lib/gcc/aarch64-linux-gnu/14/include"].map(str::to_owned).to_vec();
        let on_board = Dressed { folders, ..on_desktop.clone() };
        for (line, expected) in [
            ("-O2 -g -nostdinc -c x.c", true),
            ("-O2 -g -c x.i", true),
            ("-c x.s", true),
            ("-O2 -c x.c", false),
            ("-c x.S", false),
        ] {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let asked = Invocation {
                family: CompilerFamily::Gcc,
                driver: DriverLanguage::C,
                argv: &argv,
                env: &[],
                cwd: &root,
                stderr_is_terminal: false,
                columns: None,
                locale: None,
                variables: &[],
            };
            let Decision::Distribute(request) = decide(&asked, &|path: &Path| fs::read(path)) else {
                panic!("{line} is local")
            };
            let request = Arc::from(request);
            let inputs = Discovery::new(hashes.clone()).inputs(&compiler, &request, &[], &root).await.unwrap();
            let action = |double| Job::for_double(double, &request, inputs.clone(), &root).unwrap().action;
            assert_eq!(action(&on_board) == action(&on_desktop), expected, "{line}");
            assert_eq!(Dressed::looks_by_itself(&request), !expected, "{line}");
        }
    }
}
