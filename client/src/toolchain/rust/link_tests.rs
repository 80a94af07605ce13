//! Compiles and links in a sandbox that holds exactly what was captured, and compares the bytes with a local run's.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::tree::Directory;

use super::*;
use crate::toolchain::Parts;

const SOURCE: &str = r#"
use std::collections::HashMap;
pub fn area(radius: f64) -> f64 { radius.sin().powf(1.5) * std::f64::consts::PI }
#[unsafe(no_mangle)] pub extern "C" fn counted(n: u32) -> usize {
    let map: HashMap<u32, String> = (0..n).map(|n| (n, n.to_string())).collect();
    std::thread::spawn(move || map.len()).join().unwrap_or(0)
}
#[test] fn tested() { assert_eq!(counted(3), 3); }
"#;
const MAIN: &str = "fn main() { println!(\"{} {}\", area(2.0), counted(4)); }\n";
const MACRO: &str = "extern crate proc_macro; #[proc_macro] pub fn five(_: proc_macro::TokenStream) -> proc_macro::TokenStream { \"5\".parse().unwrap() }";

/// Makes the sandbox's arguments: every file, folder and symlink of the tree, and nothing else.
fn mounts(parts: &Parts) -> Vec<String> {
    let files: HashMap<Digest, &Path> = parts.files.iter().map(|(path, digest)| (*digest, path.as_path())).collect();
    let directories: HashMap<Digest, Directory> =
        parts.directories.iter().map(|(digest, bytes)| (*digest, Directory::from_canonical(bytes).unwrap())).collect();
    let mut mounts = Vec::new();
    let mut todo = vec![(String::new(), parts.toolchain.root)];
    while let Some((place, digest)) = todo.pop() {
        let directory = &directories[&digest];
        for inner in &directory.directories {
            let place = format!("{place}/{}", inner.name);
            mounts.extend(["--dir".to_owned(), place.clone()]);
            todo.push((place, inner.digest));
        }
        for file in &directory.files {
            let real = files[&file.digest];
            assert_eq!(fs::metadata(real).unwrap().permissions().mode() & 0o100 != 0, file.executable);
            mounts.extend(["--ro-bind".to_owned(), real.display().to_string(), format!("{place}/{}", file.name)]);
        }
        for link in &directory.symlinks {
            mounts.extend(["--symlink".to_owned(), link.target.clone(), format!("{place}/{}", link.name)]);
        }
    }
    mounts
}

struct Bench {
    compiler: Arc<RustCompiler>,
    linker: Arc<LinkerParts>,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new(linker: Option<&str>, arguments: &[&str]) -> Self {
        let program = rustc();
        let toolchains = RustToolchains::new(FileHashes::default());
        let compiler = toolchains.identify(caller(&program)).await.unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let question = LinkQuestion { linker: linker.map(Path::new), ..links(&arguments) };
        let linker = toolchains.linker(&compiler, question).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("l.rs", SOURCE.to_owned()), ("b.rs", format!("{SOURCE}{MAIN}")), ("m.rs", MACRO.to_owned())]
        {
            fs::create_dir_all(folder.path().join("s")).unwrap();
            fs::write(folder.path().join("s").join(name), text).unwrap();
        }
        Self { compiler, linker, folder }
    }

    /// Runs rustc here and in the sandbox. Both must leave the same.
    fn same(&self, parts: &Parts, arguments: &[&str]) {
        let (here, there) = (self.folder.path().join("here"), self.folder.path().join("there"));
        for out in [&here, &there] {
            let _ = fs::remove_dir_all(out);
            fs::create_dir_all(out).unwrap();
        }
        let sources = self.folder.path().join("s");
        let mut local = Command::new(&self.compiler.program);
        local.current_dir(&sources).args(arguments).arg("--out-dir").arg(&here).env("PATH", "/usr/bin:/bin");
        for (from, to) in [(sources.as_path(), "/w"), (&self.compiler.sysroot, "/r"), (&here, "/n")] {
            local.arg(format!("--remap-path-prefix={}={to}", from.display()));
        }
        let local = local.output().unwrap();
        assert!(local.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&local.stderr));
        let mut sandbox = Command::new("bwrap");
        sandbox.args(["--unshare-all", "--die-with-parent", "--clearenv", "--setenv", "PATH", &self.linker.search]);
        sandbox.args(mounts(parts)).args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        sandbox.arg("--ro-bind").arg(&sources).arg("/s").arg("--bind").arg(&there).args(["/o", "--chdir", "/s"]);
        sandbox.arg(&self.compiler.place).args(&self.compiler.arguments).args(arguments).args(["--out-dir", "/o"]);
        sandbox.args([
            "--remap-path-prefix=/s=/w",
            "--remap-path-prefix=/buildbee.d/rust=/r",
            "--remap-path-prefix=/o=/n",
        ]);
        let output = sandbox.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stderr, local.stderr);
        let names = |folder: &Path| -> Vec<_> {
            let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&here), names(&there));
        assert!(!names(&here).is_empty());
        for name in names(&here) {
            let (one, other) = (fs::read(here.join(&name)).unwrap(), fs::read(there.join(&name)).unwrap());
            assert!(one == other, "{arguments:?} leaves another {}", name.display());
        }
    }
}

#[tokio::test]
async fn compiling_needs_no_linker() {
    let bench = Bench::new(None, &[]).await;
    for arguments in [
        ["l.rs", "--crate-type=lib", "--emit=metadata,link", "-Cdebuginfo=2", "-Copt-level=0"],
        ["l.rs", "--crate-type=staticlib", "--emit=link,asm,llvm-ir", "-Cpanic=abort", "-Copt-level=2"],
        ["b.rs", "--crate-type=bin", "--emit=metadata", "--cfg=x", "-Aunexpected_cfgs"],
    ] {
        bench.same(&bench.compiler.parts, &arguments);
    }
}

#[tokio::test]
async fn every_kind_of_link_works_with_exactly_what_was_captured() {
    let bench = Bench::new(None, &[]).await;
    for arguments in [
        &["b.rs"] as &[&str],
        &["b.rs", "-Cdebuginfo=2", "-Csplit-debuginfo=packed"],
        &["b.rs", "-O", "-Cstrip=symbols", "-Cpanic=abort"],
        &["b.rs", "-Ctarget-feature=+crt-static"],
        &["b.rs", "-Crelocation-model=static"],
        &["b.rs", "-Crelocation-model=static", "-Ctarget-feature=+crt-static"],
        &["b.rs", "-Cprefer-dynamic"],
        &["b.rs", "-Clinker-features=-lld"],
        &["b.rs", "-Cprofile-generate=/p"],
        &["l.rs", "--test", "-Cdebuginfo=1"],
        &["l.rs", "--crate-type=cdylib"],
        &["l.rs", "--crate-type=dylib"],
        &["l.rs", "--crate-type=staticlib"],
        &["m.rs", "--crate-type=proc-macro", "-Cdebuginfo=2"],
    ] {
        bench.same(&bench.linker.parts, arguments);
    }
}

#[tokio::test]
async fn other_linkers_are_captured_with_their_parts() {
    for (linker, chosen) in [("clang", None), ("gcc", Some("-fuse-ld=bfd")), ("/usr/bin/gcc", None)] {
        let chosen: Vec<&str> = chosen.into_iter().collect();
        let bench = Bench::new(Some(linker), &chosen).await;
        let mut arguments = vec!["-Clinker".to_owned() + "=" + linker];
        arguments.extend(chosen.iter().map(|argument| format!("-Clink-arg={argument}")));
        for (source, kind) in [("b.rs", "bin"), ("l.rs", "cdylib")] {
            let kind = format!("--crate-type={kind}");
            let all: Vec<&str> = [source, &kind, "-Clinker-features=-lld"]
                .into_iter()
                .chain(arguments.iter().map(String::as_str))
                .collect();
            bench.same(&bench.linker.parts, &all);
        }
    }
}

#[tokio::test]
async fn a_linker_whose_bytes_depend_on_places_is_refused() {
    let (program, toolchains) = (rustc(), RustToolchains::new(FileHashes::default()));
    let compiler = toolchains.identify(caller(&program)).await.unwrap();
    for (argument, code) in
        [("-fuse-ld=gold", "unknown-linker"), ("-fuse-ld=/x/ld", "unknown-linker"), ("-B/x", "unknown-linker")]
    {
        let arguments = [argument.to_owned()];
        assert_eq!(toolchains.linker(&compiler, links(&arguments)).await.unwrap_err().code(), code, "{argument}");
    }
}
