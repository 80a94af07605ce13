//! Trees of real files for tests: a toolchain captured from this machine, inputs from memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::toolchain::Toolchain;
use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, SymlinkNode, Twin};
use buildbee_store::Store;

/// Content by absolute path.
#[derive(Default)]
pub(crate) struct Content(BTreeMap<String, Entry>);

enum Entry {
    File { digest: Digest, executable: bool, twin: Twin },
    Symlink(String),
}

impl Content {
    pub(crate) fn file(self, path: &Path, digest: Digest, executable: bool) -> Self {
        self.twin(path, digest, executable, Twin::default())
    }

    /// One of several files with the same content.
    pub(crate) fn twin(mut self, path: &Path, digest: Digest, executable: bool, twin: Twin) -> Self {
        self.0.insert(key(path), Entry::File { digest, executable, twin });
        self
    }

    pub(crate) fn symlink(mut self, path: &str, target: &str) -> Self {
        self.0.insert(key(Path::new(path)), Entry::Symlink(target.to_owned()));
        self
    }

    /// Puts the directories into `store`; the files are there already.
    pub(crate) fn root(&self, store: &Store) -> Digest {
        let entries: Vec<(Vec<&str>, &Entry)> =
            self.0.iter().map(|(path, entry)| (path.split('/').collect(), entry)).collect();
        directory(store, &entries)
    }
}

fn key(path: &Path) -> String {
    path.to_str().unwrap().trim_start_matches('/').to_owned()
}

fn directory(store: &Store, entries: &[(Vec<&str>, &Entry)]) -> Digest {
    let mut made = Directory::default();
    let mut below: BTreeMap<&str, Vec<(Vec<&str>, &Entry)>> = BTreeMap::new();
    for (path, entry) in entries {
        let name = path[0].try_into().unwrap();
        match (path.len(), entry) {
            (1, Entry::File { digest, executable, twin }) => {
                made.files.push(FileNode { name, digest: *digest, executable: *executable, twin: *twin });
            }
            (1, Entry::Symlink(target)) => made.symlinks.push(SymlinkNode { name, target: target.clone() }),
            _ => below.entry(path[0]).or_default().push((path[1..].to_vec(), entry)),
        }
    }
    for (name, entries) in below {
        made.directories.push(DirectoryNode { name: name.try_into().unwrap(), digest: directory(store, &entries) });
    }
    made.files.sort_by(|left, right| left.name.cmp(&right.name));
    made.symlinks.sort_by(|left, right| left.name.cmp(&right.name));
    store.put_bytes(&made.to_canonical()).unwrap()
}

pub(crate) const GCC: &str = "/usr/bin/x86_64-linux-gnu-gcc-12";

/// A gcc and a few small programs with all the libraries that they need, at their usual places.
pub(crate) fn toolchain(store: &Store) -> Toolchain {
    let cc1 = asked(GCC, &["-print-prog-name=cc1"]);
    let programs =
        [GCC, &cc1, "/usr/bin/as", "/usr/bin/dash", "/usr/bin/sleep", "/usr/bin/date", "/usr/bin/ln", "/usr/bin/mkdir"];
    let mut content =
        Content::default().symlink("/lib", "usr/lib").symlink("/lib64", "usr/lib64").symlink("/bin", "usr/bin");
    for program in programs {
        content = content.file(Path::new(program), store.put_file(Path::new(program)).unwrap(), true);
        for library in libraries(program) {
            content = content.file(&merged(&library), store.put_file(&library).unwrap(), true);
        }
    }
    let headers = Path::new(&cc1).with_file_name("include").join("stddef.h");
    for header in [headers, PathBuf::from("/usr/include/stdc-predef.h")] {
        content = content.file(&header, store.put_file(&header).unwrap(), false);
    }
    let host = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let toolchain = Toolchain { root: content.root(store), host, label: "gcc of the tests".to_owned() };
    store.put_bytes(&toolchain.to_canonical()).unwrap();
    toolchain
}

/// A shell with its libraries.
pub(crate) fn shell(store: &Store) -> Content {
    let put = |path: &Path| store.put_file(path).unwrap();
    let shell = "/usr/bin/dash";
    let links = Content::default().symlink("/lib", "usr/lib").symlink("/lib64", "usr/lib64");
    let content = links.file(Path::new(shell), put(Path::new(shell)), true);
    let all = libraries(shell);
    all.iter().fold(content, |content, library| content.file(&merged(library), put(library), true))
}

fn asked(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn libraries(program: &str) -> Vec<PathBuf> {
    let listed = asked("ldd", &[program]);
    listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| PathBuf::from(word.trim_end_matches(':')))
        .collect()
}

/// The library's place below `/usr`, where `/lib` is a link to it.
fn merged(library: &Path) -> PathBuf {
    let folder = std::fs::canonicalize(library.parent().unwrap()).unwrap();
    folder.join(library.file_name().unwrap())
}
