//! A program's questions: the variables that have it record them, and what its log tells afterwards.
//!
//! The log was written by the program, and is hostile: it is opened as outputs are, read within bounds, and decides nothing here. A
//! program that writes lies into it is one that the action's inputs name, so it deceives only those who run it anyway.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use buildbee_proto::action::Command;
use buildbee_proto::limits::MAX_RECORD_BYTES;
use buildbee_proto::observed::{NotKnown, Observed, View, observe};
use buildbee_proto::path::RelPath;
use buildbee_proto::record::{HEADER_BYTES, VARIABLE, used_bytes};
use buildbee_sandbox::spec::SandboxSpec;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};

use crate::recorder::Recorder;

const PRELOAD: &str = "LD_PRELOAD";

/// Has what `spec` describes record what it asks for. What it preloads itself stays in front.
pub(super) fn set_up(spec: &mut SandboxSpec, recorder: &Recorder) {
    // Below the inputs, above the toolchain: neither has anything there, and a client that puts something there has no record.
    spec.layers.insert(1.min(spec.layers.len()), recorder.layer().to_owned());
    let library = Recorder::library();
    match spec.env.iter_mut().find(|(name, _)| name == PRELOAD) {
        Some((_, list)) => *list = format!("{list}:{library}"),
        None => spec.env.push((PRELOAD.to_owned(), library)),
    }
    spec.env.retain(|(name, _)| name != VARIABLE);
    spec.env.push((VARIABLE.to_owned(), format!("/{}", Recorder::log())));
}

/// What a program that has ended asked for. `layers` are those that it ran over, its inputs first. Blocks.
pub(super) fn collect(upper: &Path, layers: &[impl AsRef<Path>], command: &Command) -> Result<Observed, NotKnown> {
    let log = read(upper).ok_or(NotKnown::Malformed)?;
    let inputs = layers.first().and_then(|layer| File::open(layer).ok());
    let is_input = |path: &RelPath| inputs.as_ref().is_some_and(|inputs| is_there(inputs, path));
    let folders: Vec<File> = layers.iter().filter_map(|layer| File::open(layer).ok()).collect();
    let link = |path: &RelPath| folders.iter().find_map(|folder| target(folder, path));
    let mut observed = observe(&log, View { ignored: &|_| false, link: &link })?;
    // What was there is an input or the toolchain's. Only the former is worth telling: the toolchain is named by the action.
    for there in [&mut observed.files, &mut observed.seen, &mut observed.links, &mut observed.walkers] {
        there.retain(is_input);
    }
    // An older output that a client has, which the sandbox never sees, changes nothing.
    observed.absent.retain(|path| command.output_files.binary_search(path).is_err());
    Ok(observed)
}

fn read(upper: &Path) -> Option<Vec<u8>> {
    let folder = File::open(upper).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = File::from(openat2(&folder, Recorder::log().as_str(), how).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).ok()?;
    let n_bytes = used_bytes(&header)?.min(MAX_RECORD_BYTES) as u64;
    let mut log = Vec::new();
    file.take(n_bytes).read_to_end(&mut log).ok()?;
    Some(log)
}

/// Whether `layer` has something at `path`, symlinks understood as in a root of its own.
fn is_there(layer: &File, path: &RelPath) -> bool {
    path.is_root()
        || parent(layer, path).is_some_and(|(folder, name)| {
            nix::sys::stat::fstatat(&folder, name.as_str(), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
        })
}

fn target(layer: &File, path: &RelPath) -> Option<String> {
    let (folder, name) = parent(layer, path)?;
    readlinkat(&folder, name.as_str()).ok()?.into_string().ok()
}

/// The folder that holds `path`, and its name there.
fn parent(layer: &File, path: &RelPath) -> Option<(std::os::fd::OwnedFd, String)> {
    let (folder, name) = path.split_last()?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let folder = if folder.is_root() { "." } else { folder.as_str() };
    Some((openat2(layer, folder, how).ok()?, name.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use buildbee_proto::record::{Kind, log_of};

    use super::*;

    fn paths(texts: &[&str]) -> Vec<RelPath> {
        texts.iter().map(|text| RelPath::try_from(*text).unwrap()).collect()
    }

    fn command() -> Command {
        Command {
            argv: vec!["rustc".to_owned()],
            env: Vec::new(),
            working_directory: RelPath::root(),
            output_files: paths(&["w/lib.rlib"]),
            output_directories: Vec::new(),
        }
    }

    #[test]
    fn the_toolchain_s_own_files_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let [upper, inputs, toolchain] = ["upper", "inputs", "toolchain"].map(|name| dir.path().join(name));
        for folder in [upper.join("buildbee.d/recorder"), inputs.join("w/src"), toolchain.join("usr/lib/gcc/12")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(inputs.join("w/src/lib.rs"), "").unwrap();
        symlink("/w/src", inputs.join("w/link")).unwrap();
        symlink("usr/lib", toolchain.join("lib")).unwrap();
        let log = log_of(&[
            (Kind::Started, b"/usr/bin/rustc"),
            (Kind::Read, b"/w/src/lib.rs"),
            (Kind::Read, b"/w/link/lib.rs"),
            (Kind::Seen, b"/usr/lib/crt1.o"),
            (Kind::Absent, b"/usr/lib/gcc/12/../../x.o"),
            (Kind::Absent, b"/lib/../y.o"),
            (Kind::Absent, b"/w/lib.rlib"),
            (Kind::Listed, b"/usr/lib"),
            (Kind::Walker, b"/usr/lib/liblto_plugin.so"),
        ]);
        fs::write(upper.join("buildbee.d/recorder/log"), &log).unwrap();
        let told = collect(&upper, &[&inputs, &toolchain], &command()).unwrap();
        assert_eq!(told.files, paths(&["w/link/lib.rs", "w/src/lib.rs"]));
        assert_eq!(told.absent, paths(&["usr/lib/x.o", "usr/y.o"]));
        assert_eq!(told.listed, paths(&["usr/lib"]));
        assert_eq!((told.seen, told.walkers), (vec![], vec![]));
    }

    #[test]
    fn a_log_that_leads_elsewhere_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("upper/buildbee.d/recorder");
        fs::create_dir_all(&place).unwrap();
        let upper = dir.path().join("upper");
        assert_eq!(collect(&upper, &[dir.path()], &command()), Err(NotKnown::Malformed));
        fs::write(dir.path().join("secret"), log_of(&[(Kind::Started, b"")])).unwrap();
        symlink(dir.path().join("secret"), place.join("log")).unwrap();
        assert_eq!(collect(&upper, &[dir.path()], &command()), Err(NotKnown::Malformed));
        fs::remove_file(place.join("log")).unwrap();
        fs::create_dir(place.join("log")).unwrap();
        assert_eq!(collect(&upper, &[dir.path()], &command()), Err(NotKnown::Malformed));
    }
}
