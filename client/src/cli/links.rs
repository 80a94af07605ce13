//! `buildbee install-links DIR`: a folder of links under compilers' names that lead to the wrapper.
//!
//! Touches nothing in the folder but links to a buildbee and, where that is wanted, links of other wrappers of its kind.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::programs::{is_program, same_file};
use crate::compiler::detect;
use crate::wrapper::links::{StandIn, stand_in};

/// Suffix of a link that is about to get its name.
const NEW_SUFFIX: &str = ".buildbee-new";

/// Why the links are not as they should be.
#[derive(Debug, Error)]
pub enum LinksError {
    /// The wrapper is not there.
    #[error("{program} is not there\nhint: install buildbee and buildbee-cli in the same folder", program = .0.display())]
    NoWrapper(PathBuf),
    /// The folder or a link can't be made, read or removed.
    #[error("cannot change {path}: {error}\nhint: choose a folder of your own, as in `buildbee install-links ~/bee`", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Nothing to link.
    #[error("no compilers in PATH\nhint: install gcc or clang first; links are made for those that are there")]
    NoCompilers,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names that lead to the wrapper now (or no longer, where links were removed).
    pub done: Vec<String>,
    /// Names that were left as they are, because something else stands there.
    pub left: Vec<String>,
}

/// Makes a link in `folder` to `wrapper` for each compiler in `path`. With `force`, links of other wrappers and links to nothing make
/// way; a file or a link to a compiler never does.
pub fn install(folder: &Path, wrapper: &Path, path: &OsStr, force: bool) -> Result<Report, LinksError> {
    if !is_program(wrapper) {
        return Err(LinksError::NoWrapper(wrapper.to_owned()));
    }
    let names = compilers(path);
    if names.is_empty() {
        return Err(LinksError::NoCompilers);
    }
    fs::create_dir_all(folder).map_err(|error| LinksError::Io { path: folder.to_owned(), error })?;
    let mut report = Report::default();
    for name in names {
        let link = folder.join(&name);
        if makes_way(&link, force) {
            replace(&link, wrapper).map_err(|error| LinksError::Io { path: link.clone(), error })?;
            report.done.push(name);
        } else {
            report.left.push(name);
        }
    }
    Ok(report)
}

/// Removes every link in `folder` that stands in for a compiler and leads to a buildbee.
pub fn remove(folder: &Path) -> Result<Report, LinksError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| LinksError::Io { path, error }
    };
    let mut report = Report::default();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let link = entry.map_err(failed(folder))?.path();
        let Some(name) = link.file_name().and_then(OsStr::to_str) else { continue };
        if detect::from_program_name(name).is_some() && stand_in(&link) == Some(StandIn::Own) {
            fs::remove_file(&link).map_err(failed(&link))?;
            report.done.push(name.to_owned());
        }
    }
    report.done.sort();
    Ok(report)
}

/// The first compiler in `path` that `folder` comes too late for. `None`: the links are found first.
pub fn found_before(folder: &Path, path: &OsStr) -> Option<PathBuf> {
    let links = links_in(folder);
    for earlier in std::env::split_paths(path) {
        if same_file(&earlier, folder) {
            return None;
        }
        if let Some(name) = links.iter().find(|name| is_program(&earlier.join(name))) {
            return Some(earlier.join(name));
        }
    }
    // It is not in PATH at all.
    Some(folder.to_owned())
}

fn links_in(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| stand_in(&entry.path()) == Some(StandIn::Own)).map(|entry| entry.file_name()).collect()
}

/// Names of the C and C++ compilers in `path`, sorted.
fn compilers(path: &OsStr) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let place = entry.path();
            if detect::from_program_name(&name).is_some() && stand_in(&place).is_none() && is_program(&place) {
                names.insert(name);
            }
        }
    }
    names
}

/// Whether what stands at `link`, if anything, may be replaced.
fn makes_way(link: &Path, force: bool) -> bool {
    match fs::symlink_metadata(link) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(found) if !found.is_symlink() => false,
        Ok(_) => match stand_in(link) {
            Some(StandIn::Own) => true,
            Some(StandIn::Other(_)) => force,
            None => force && !link.exists(),
        },
    }
}

/// At no moment is there no link: a build may be using it.
fn replace(link: &Path, wrapper: &Path) -> io::Result<()> {
    let mut new = OsString::from(link);
    new.push(NEW_SUFFIX);
    let new = PathBuf::from(new);
    // Left by one that was interrupted.
    let _ = fs::remove_file(&new);
    symlink(wrapper, &new)?;
    fs::rename(&new, link)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            for folder in ["bin", "links"] {
                fs::create_dir(place.at(folder)).unwrap();
            }
            for name in ["buildbee", "gcc-12", "clang++", "aarch64-linux-gnu-gcc", "gcc-ar", "ld"] {
                place.program(&format!("bin/{name}"));
            }
            symlink("gcc-12", place.at("bin/gcc")).unwrap();
            symlink("buildbee", place.at("bin/cc")).unwrap();
            place
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn program(&self, name: &str) {
            fs::write(self.at(name), "").unwrap();
            fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn install(&self, force: bool) -> Report {
            install(&self.at("links"), &self.at("bin/buildbee"), self.at("bin").as_os_str(), force).unwrap()
        }
    }

    const ALL: [&str; 4] = ["aarch64-linux-gnu-gcc", "clang++", "gcc", "gcc-12"];

    #[test]
    fn there_is_a_link_for_every_compiler_and_for_nothing_else() {
        let place = Place::new();
        for _ in 0..2 {
            assert_eq!(place.install(false), Report { done: ALL.map(str::to_owned).to_vec(), left: vec![] });
        }
        assert_eq!(fs::read_dir(place.at("links")).unwrap().count(), ALL.len());
        assert_eq!(fs::read_link(place.at("links/gcc")).unwrap(), place.at("bin/buildbee"));
        assert_eq!(remove(&place.at("links")).unwrap().done, ALL);
        assert_eq!(fs::read_dir(place.at("links")).unwrap().count(), 0);
        assert!(remove(&place.at("bin")).unwrap().done == ["cc"], "compilers stay");
        assert!(place.at("bin/gcc").exists());
    }

    #[test]
    fn nothing_of_others_is_replaced() {
        let place = Place::new();
        place.program("links/gcc");
        symlink(place.at("bin/clang++"), place.at("links/clang++")).unwrap();
        symlink("/usr/bin/ccache", place.at("links/gcc-12")).unwrap();
        assert_eq!(place.install(false).left, ["clang++", "gcc", "gcc-12"]);
        assert_eq!(place.install(true).left, ["clang++", "gcc"], "only another wrapper's link makes way");
        assert_eq!(stand_in(&place.at("links/gcc-12")), Some(StandIn::Own));
    }

    #[test]
    fn the_place_in_path_is_looked_at() {
        let place = Place::new();
        place.install(false);
        let (links, bin) = (place.at("links"), place.at("bin"));
        let path = |folders: &[&Path]| std::env::join_paths(folders).unwrap();
        assert_eq!(found_before(&links, &path(&[&links, &bin])), None);
        assert!(found_before(&links, &path(&[&bin, &links])).is_some_and(|found| found.starts_with(&bin)));
        assert_eq!(found_before(&links, &path(&[Path::new("/nowhere")])), Some(links));
    }

    #[test]
    fn without_a_compiler_or_the_wrapper_there_is_an_error() {
        let place = Place::new();
        let (links, wrapper) = (place.at("links"), place.at("bin/buildbee"));
        assert!(matches!(install(&links, &wrapper, links.as_os_str(), false), Err(LinksError::NoCompilers)));
        assert!(matches!(install(&links, &links, OsStr::new("/"), false), Err(LinksError::NoWrapper(_))));
        assert!(matches!(remove(&place.at("gone")), Err(LinksError::Io { .. })));
    }
}
