//! Which folder a compile's project is in: the deepest one that holds all that the command names and that was looked at, the system's
//! places aside. By names alone; symlinks are the caller's business.

use std::path::{Component, Path, PathBuf};

use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::RelPath;

use super::Obstacle;
use super::respell::is_below;
use crate::compiler::places::absolute;
use crate::compiler::request::CompileRequest;

/// Nobody's project is at `/` or `/home`.
const MIN_DEPTH: usize = 2;
/// What stands at the same place on every machine, as far as the farm is concerned: it is content of the toolchain or of the input tree. clang looks into
/// `/include`.
const SYSTEM: [&str; 11] = ["bin", "etc", "gnu", "include", "lib", "lib32", "lib64", "nix", "opt", "sbin", "usr"];

/// Whether `path` belongs to the system and not to a project.
pub(super) fn is_system(path: &RelPath) -> bool {
    path.components().next().is_some_and(|first| SYSTEM.contains(&first))
}

/// Whether a project can be at `root`.
pub(super) fn is_project(root: &RelPath) -> bool {
    !is_system(root) && root.components().count() >= MIN_DEPTH
}

/// The project's folder, and the places outside of it that the command names.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) root: RelPath,
    fixed: Vec<RelPath>,
}

impl Project {
    /// Of a command in `cwd`, with `mapped` (what its prefix maps replace) and with what it reads.
    pub(super) fn of(
        cwd: &Path,
        request: &CompileRequest,
        mapped: &[&Path],
        read_set: &ReadSet,
    ) -> Result<Self, Obstacle> {
        let mut root = RelPath::from_absolute(cwd)?;
        if !is_project(&root) {
            return Err(Obstacle::Root(cwd.display().to_string()));
        }
        let place = |path: &Path| RelPath::from_absolute(&absolute(cwd, path));
        let named = spelled(request).map(place).collect::<Result<Vec<_>, _>>()?;
        for path in &named {
            widen(&mut root, path);
        }
        for path in mapped {
            // What has nothing to do with the project does not make it larger.
            let path = place(path)?;
            if is_below(&root, &path) {
                widen(&mut root, &path);
            }
        }
        for path in looked_at(read_set) {
            widen(&mut root, path);
        }
        let start = RelPath::from_absolute(cwd)?;
        if let Some(path) = spelled(request).find(|path| climbs_out(&root, &start, path)) {
            return Err(Obstacle::Outside(place(path)?));
        }
        let fixed = named.into_iter().filter(|path| !is_below(path, &root)).collect();
        Ok(Self { root, fixed })
    }

    /// Fails if something was looked at that is neither in the project, nor the system's, nor named by the command: it may stand in
    /// another relation to another checkout.
    pub(super) fn check(&self, read_set: &ReadSet) -> Result<(), Obstacle> {
        let settled = |path: &RelPath| {
            is_below(path, &self.root) || is_system(path) || self.fixed.iter().any(|place| is_below(path, place))
        };
        if let Some(path) = looked_at(read_set).find(|path| !settled(path)) {
            return Err(Obstacle::Outside(path.clone()));
        }
        let inside = read_set.symlinks.iter().filter(|(path, _)| is_below(path, &self.root));
        for (path, target) in inside {
            let folder = path.split_last().map_or_else(RelPath::root, |(folder, _)| folder);
            let target = Path::new(target);
            if target.is_absolute() || climbs_out(&self.root, &folder, target) {
                return Err(Obstacle::Outside(path.clone()));
            }
        }
        Ok(())
    }
}

/// Every path that the command names, as spelled.
fn spelled(request: &CompileRequest) -> impl Iterator<Item = &Path> {
    let outputs = request.outputs.iter().map(|output| &output.path);
    let named = std::iter::once(&request.source).chain(outputs).chain(&request.explicit_inputs);
    let named = named.chain(request.named_inputs.iter().map(|input| &input.path));
    named.chain(request.search_directories.iter().map(|folder| &folder.path)).map(PathBuf::as_path)
}

/// Whether a relative path from `folder`, which is in `root`, leaves `root` on its way, and be it to come back: under another name there is
/// no way back.
fn climbs_out(root: &RelPath, folder: &RelPath, path: &Path) -> bool {
    let mut depth = folder.components().count().saturating_sub(root.components().count());
    !path.is_absolute()
        && path.components().any(|component| match component {
            Component::ParentDir if depth == 0 => true,
            Component::ParentDir => {
                depth -= 1;
                false
            }
            Component::Normal(_) => {
                depth += 1;
                false
            }
            _ => false,
        })
}

fn looked_at(read_set: &ReadSet) -> impl Iterator<Item = &RelPath> {
    let files = read_set.files.iter().map(|(path, _)| path);
    files.chain(&read_set.absent).chain(read_set.symlinks.iter().map(|(path, _)| path))
}

/// Makes `root` hold `path` too, if that leaves a project's folder.
fn widen(root: &mut RelPath, path: &RelPath) {
    if is_below(path, root) || is_system(path) {
        return;
    }
    let same: Vec<&str> =
        root.components().zip(path.components()).take_while(|(one, two)| one == two).map(|(one, _)| one).collect();
    if same.len() >= MIN_DEPTH
        && let Ok(wider) = RelPath::try_from(same.join("/"))
    {
        *root = wider;
    }
}

#[cfg(test)]
mod tests {
    use buildbee_proto::digest::Digest;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::try_from(text).unwrap()
    }

    fn widened(root: &str, other: &str) -> String {
        let mut root = path(root);
        widen(&mut root, &path(other));
        root.to_string()
    }

    #[test]
    fn a_root_holds_what_is_near_and_leaves_the_rest_where_it_is() {
        assert_eq!(widened("home/a/p/build", "home/a/p/src/x.c"), "home/a/p");
        assert_eq!(widened("home/a/p", "home/a/p/x.c"), "home/a/p");
        assert_eq!(widened("home/a/p", "home/a/q"), "home/a");
        assert_eq!(widened("home/a/p", "home/b/q"), "home/a/p");
        assert_eq!(widened("home/a/p", "usr/include/x.h"), "home/a/p");
        assert_eq!(widened("home/a/pp", "home/a/p"), "home/a");
    }

    #[test]
    fn what_lies_elsewhere_keeps_a_compile_in_its_folder() {
        let project = Project { root: path("home/a/p"), fixed: vec![path("data/sdk")] };
        let absent = |text: &str| ReadSet { absent: vec![path(text)], ..ReadSet::default() };
        let link = |target: &str| ReadSet {
            symlinks: vec![(path("home/a/p/l/x"), target.to_owned())],
            files: vec![(path("home/a/p/x.c"), Digest::of(b"x"))],
            ..ReadSet::default()
        };
        for text in ["home/a/p/x.h", "usr/include/x.h", "data/sdk/x.h"] {
            assert_eq!(project.check(&absent(text)), Ok(()), "{text}");
        }
        for text in ["home/x.h", "home/a/x.h", "data/x.h"] {
            assert_eq!(project.check(&absent(text)), Err(Obstacle::Outside(path(text))));
        }
        for (target, good) in
            [("../y", true), ("/usr/share/y", false), ("/home/a/p/y", false), ("../../y", false), ("../../p/y", false)]
        {
            assert_eq!(project.check(&link(target)).is_ok(), good, "{target}");
        }
    }
}
