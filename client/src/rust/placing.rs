//! Gives the paths of a command their places, and refuses those that would mean something else there.

use std::path::{Component, Path, PathBuf};

use super::reason::{RustReason, RustReasonKind as Why};
use super::respell::Respell;
use super::roots::{RootKind, Roots};

/// Folders that are no content.
const SPECIAL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Places the paths of one command.
#[derive(Debug)]
pub(super) struct Placer<'a> {
    roots: &'a Roots,
    places: Respell,
    cwd: &'a Path,
}

impl<'a> Placer<'a> {
    pub(super) fn new(roots: &'a Roots, cwd: &'a Path) -> Self {
        Self { roots, places: roots.places(), cwd }
    }

    /// The place of a path as spelled. A relative one stays as it is, if it leads to a place of its folder's root.
    pub(super) fn place(&self, spelled: &str) -> Result<String, RustReason> {
        self.check(spelled)?;
        let path = Path::new(spelled);
        Ok(if path.is_absolute() { self.places.path(path).to_string_lossy().into_owned() } else { spelled.to_owned() })
    }

    /// Whether a text holds the real name of a root that stands elsewhere in the action, be it by chance.
    pub(super) fn is_bound(&self, text: &str) -> bool {
        let moved = self.roots.iter().filter(|(_, real, place)| real != place);
        moved.filter_map(|(_, real, _)| real.to_str()).any(|real| text.contains(real))
    }

    fn check(&self, spelled: &str) -> Result<(), RustReason> {
        let path = Path::new(spelled);
        let whole = self.cwd.join(path);
        if SPECIAL.iter().any(|folder| whole.starts_with(folder)) || spelled.is_empty() {
            return Err(RustReason::about(Why::SpecialPath, spelled));
        }
        if !self.roots.are_placed() {
            return Ok(());
        }
        // From where on the way must stay in one root: from the working directory, or from the first step up.
        let mut settled = (!path.is_absolute()).then(|| self.root_of(self.cwd));
        let mut at = if path.is_absolute() { PathBuf::from("/") } else { self.cwd.to_owned() };
        for component in path.components() {
            match component {
                Component::Normal(name) => at.push(name),
                Component::ParentDir => {
                    settled = settled.or_else(|| Some(self.root_of(&at)));
                    at.pop();
                }
                _ => {}
            }
            if settled.is_some_and(|root| root != self.root_of(&at)) {
                return Err(RustReason::about(Why::UnplaceablePath, spelled));
            }
        }
        Ok(())
    }

    /// The deepest root that holds an absolute path.
    fn root_of(&self, path: &Path) -> Option<RootKind> {
        let holding = self.roots.iter().filter(|(_, real, _)| path.starts_with(real));
        holding.last().map(|(kind, ..)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rust::roots::PathSetting;

    #[test]
    fn paths_keep_their_meaning_or_stay() {
        let folders = [(RootKind::Workspace, "/w"), (RootKind::Target, "/w/target"), (RootKind::CargoHome, "/c")];
        let roots = Roots::new(PathSetting::Portable, folders.map(|(kind, folder)| (kind, Path::new(folder))));
        let cwd = Path::new("/w/sub");
        let placer = Placer::new(&roots, cwd);
        let unplaceable = |path: &str| Err(RustReason::about(Why::UnplaceablePath, path));
        for (spelled, placed) in [
            ("/w/x.rs", "/buildbee.d/workspace/x.rs"),
            ("/w/target/debug/deps", "/buildbee.d/target/debug/deps"),
            ("/w/a/../x.rs", "/buildbee.d/workspace/a/../x.rs"),
            ("src/main.rs", "src/main.rs"),
            ("../x.rs", "../x.rs"),
            ("/usr/lib/../x", "/usr/lib/../x"),
        ] {
            assert_eq!(placer.place(spelled), Ok(placed.to_owned()));
        }
        for spelled in ["../target/x", "../../c/x", "/w/target/../x.rs", "/w/../w/x", "/w/a/../target/x", "/x/../w/y"] {
            assert_eq!(placer.place(spelled), unplaceable(spelled));
            let stays = roots.at_real_places();
            assert_eq!(Placer::new(&stays, cwd).place(spelled), Ok(spelled.to_owned()));
        }
        for spelled in ["/dev/null", "/proc/self/fd/3", ""] {
            assert_eq!(placer.place(spelled), Err(RustReason::about(Why::SpecialPath, spelled)));
        }
        assert!(placer.is_bound("-Wl,-rpath,/w/lib"));
        assert!(!placer.is_bound("feature=\"w\""));
    }
}
