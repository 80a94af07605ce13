//! A toolchain layer with a shell, the usual small tools and gcc, copied from this machine and shared by all tests.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};

use tempfile::TempDir;

const TOOLS: &[&str] = &[
    "bash", "cat", "chmod", "cp", "env", "head", "id", "ln", "ls", "mkdir", "mv", "nproc", "readlink", "rm", "setsid",
    "sleep", "stat", "timeout", "touch", "true", "unshare", "wc", "as", "gcc", "ld", "hostname", "mount",
];

/// The toolchain layer; removed when the last test that holds it is done.
pub(crate) struct Layer {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

/// The layer that tests share while any of them runs.
pub(crate) fn toolchain() -> Arc<Layer> {
    static LAYER: Mutex<Weak<Layer>> = Mutex::new(Weak::new());
    let mut shared = LAYER.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let layer = Arc::new(build());
        *shared = Arc::downgrade(&layer);
        layer
    })
}

/// The C compiler, in the layer as on this machine.
pub(crate) const GCC: &str = "/usr/bin/gcc";

fn build() -> Layer {
    let folder = TempDir::with_prefix("buildbee-toolchain-").unwrap();
    let path = folder.path().join("root");
    let mut files = BTreeSet::new();
    for tool in TOOLS {
        let found =
            ["/usr/bin", "/bin"].map(|place| Path::new(place).join(tool)).into_iter().find(|file| file.exists());
        let found = found.unwrap_or_else(|| panic!("{tool} is needed on this machine"));
        copy(&path, &found);
        let target = fs::canonicalize(&found).unwrap();
        let place = path.join("bin").join(tool);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&target, place).unwrap();
        files.insert(target);
    }
    for part in ["cc1", "collect2", "liblto_plugin.so"] {
        let found = output(Command::new(GCC).arg(format!("-print-prog-name={part}")));
        if Path::new(&found).is_absolute() {
            copy(&path, Path::new(&found));
            files.insert(found.into());
        }
    }
    // Read before every C source.
    copy(&path, Path::new("/usr/include/stdc-predef.h"));
    for file in &files {
        for library in libraries(file) {
            copy(&path, &library);
        }
    }
    Layer { _folder: folder, path }
}

/// Copies `file` to its own path below `root`, links resolved.
fn copy(root: &Path, file: &Path) {
    let target = root.join(file.strip_prefix("/").unwrap());
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    if !target.exists() {
        fs::copy(file, target).unwrap();
    }
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = output(Command::new("ldd").arg(program));
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A link, for tests that put one into an input tree.
pub(crate) fn link(target: &str, path: &Path) {
    symlink(target, path).unwrap();
}
