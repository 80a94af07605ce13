//! Which folders a compile is in that may be elsewhere in another checkout. By names alone; symlinks are the caller's business.
//!
//! Mostly it is one: the deepest one that holds all that the command names and that was looked at, the system's places aside. A command of
//! one of cargo's build scripts has those that the build knows by name (workspace, cargo home, target folder). A folder that is named
//! for outputs alone, by an absolute path, is one more: that path reaches no byte of an object.

use std::path::{Component, Path, PathBuf};

use buildbee_proto::limits::MAX_HINT_ROOTS;
use buildbee_proto::outcome::ReadSet;
use buildbee_proto::path::{PathError, RelPath};

use super::Obstacle;
use super::options::Folders;
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

/// The project's folders, and the places outside of them that the command names.
#[derive(Debug)]
pub(super) struct Project {
    /// Those that files are read from, then perhaps one for outputs. None twice; one may be in another.
    pub(super) roots: Vec<RelPath>,
    /// How many of them may hold files that are read.
    pub(super) n_read: usize,
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
        let start = RelPath::from_absolute(cwd)?;
        let place = |path: &Path| RelPath::from_absolute(&absolute(cwd, path));
        let read = read(request).map(place).collect::<Result<Vec<_>, _>>()?;
        let written = outputs(request).map(place).collect::<Result<Vec<_>, _>>()?;
        let given = request.roots.iter().map(|folder| RelPath::from_absolute(folder)).collect::<Result<Vec<_>, _>>()?;
        let mut roots: Vec<RelPath> = given.into_iter().filter(is_project).collect();
        if roots.is_empty() {
            // An output that is spelled from here stands where it stands to the rest.
            let beside = outputs(request).zip(&written).filter(|(path, _)| path.is_relative()).map(|(_, place)| place);
            roots.push(one_root(&start, read.iter().chain(beside), mapped, read_set, &place)?);
        } else if !roots.iter().any(|root| is_below(&start, root)) {
            roots.push(Some(start.clone()).filter(is_project).ok_or_else(|| root_obstacle(cwd))?);
        }
        let n_read = roots.len();
        let is_free = |folder: &RelPath| {
            let holds = |path: &RelPath| is_below(path, folder);
            is_project(folder) && !roots.iter().chain(&read).chain(looked_at(read_set)).any(holds)
        };
        let outside = written.iter().filter(|path| !roots.iter().any(|root| is_below(path, root)));
        let folders = outside.filter_map(|path| path.split_last().map(|(folder, _)| folder));
        // Of several the one that comes first: an object and its dependency file are mostly in one folder.
        if let Some(folder) = folders.into_iter().find(is_free).filter(|_| n_read < MAX_HINT_ROOTS) {
            roots.push(folder);
        }
        let mut project = Self { roots, n_read, fixed: Vec::new() };
        let around = project.around(&start).ok_or_else(|| root_obstacle(cwd))?;
        // From one folder no way leads into another, but by its whole name: elsewhere it may not be there.
        for path in spelled(request).filter(|path| path.is_relative()) {
            let at = place(path)?;
            if climbs_out(around, &start, path) || project.around(&at).is_some_and(|other| other != around) {
                return Err(Obstacle::Outside(at));
            }
        }
        project.fixed = read.into_iter().chain(written).filter(|path| project.around(path).is_none()).collect();
        Ok(project)
    }

    /// What options have to be weighed against, for a command in `cwd`.
    pub(super) fn folders(&self, cwd: &Path) -> Result<Folders, Obstacle> {
        let start = RelPath::from_absolute(cwd)?;
        let text = |root: &RelPath| format!("/{root}");
        let around = self.around(&start).map(text).ok_or_else(|| root_obstacle(cwd))?;
        Ok(Folders { all: self.roots.iter().map(text).collect(), n_read: self.n_read, around })
    }

    /// The last names of folders that are in another one: without such a name no way leads from that into them.
    pub(super) fn inner_names(&self) -> Vec<&str> {
        let is_in_another = |root: &&RelPath| self.roots.iter().any(|other| other != *root && is_below(root, other));
        self.roots.iter().filter(is_in_another).filter_map(|root| root.components().next_back()).collect()
    }

    /// The folder that a path is in, of those that are in each other the inner one.
    pub(super) fn around(&self, path: &RelPath) -> Option<&RelPath> {
        self.roots.iter().filter(|root| is_below(path, root)).max_by_key(|root| root.as_str().len())
    }

    /// Fails if something was looked at that is neither in the project, nor the system's, nor named by the command: it may stand in
    /// another relation to another checkout.
    pub(super) fn check(&self, read_set: &ReadSet) -> Result<(), Obstacle> {
        let settled = |path: &RelPath| {
            self.around(path).is_some() || is_system(path) || self.fixed.iter().any(|place| is_below(path, place))
        };
        if let Some(path) = looked_at(read_set).find(|path| !settled(path)) {
            return Err(Obstacle::Outside(path.clone()));
        }
        let inner = self.inner_names();
        let inside = read_set.symlinks.iter().filter_map(|(path, target)| Some((self.around(path)?, path, target)));
        for (root, path, target) in inside {
            let folder = path.split_last().map_or_else(RelPath::root, |(folder, _)| folder);
            let target = Path::new(target);
            let leads_in = target.iter().any(|part| inner.iter().any(|name| part == *name));
            if target.is_absolute() || leads_in || climbs_out(root, &folder, target) {
                return Err(Obstacle::Outside(path.clone()));
            }
        }
        Ok(())
    }
}

/// The deepest folder that holds the working directory and all that is named and looked at.
fn one_root<'a>(
    start: &RelPath,
    named: impl Iterator<Item = &'a RelPath>,
    mapped: &[&Path],
    read_set: &ReadSet,
    place: &dyn Fn(&Path) -> Result<RelPath, PathError>,
) -> Result<RelPath, Obstacle> {
    let mut root = start.clone();
    if !is_project(&root) {
        return Err(root_obstacle(&start.to_absolute()));
    }
    for path in named {
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
    Ok(root)
}

fn root_obstacle(folder: &Path) -> Obstacle {
    Obstacle::Root(folder.display().to_string())
}

/// Every path that the command names, as spelled.
fn spelled(request: &CompileRequest) -> impl Iterator<Item = &Path> {
    read(request).chain(outputs(request))
}

fn outputs(request: &CompileRequest) -> impl Iterator<Item = &Path> {
    request.outputs.iter().map(|output| output.path.as_path())
}

fn read(request: &CompileRequest) -> impl Iterator<Item = &Path> {
    let named = std::iter::once(&request.source).chain(&request.explicit_inputs);
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
        let project = Project { roots: vec![path("home/a/p")], n_read: 1, fixed: vec![path("data/sdk")] };
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
