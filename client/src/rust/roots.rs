//! The folders that a Rust build stands in, and where they stand in an action: the same for every checkout, user and machine.
//!
//! Each root has three spellings: the *real* one on this machine, its *place* in the sandbox, and its *name* in the bytes of outputs, which
//! rustc writes for it because it is told to (`--remap-path-prefix`). Place and name differ on purpose: a path that is remapped is encoded in
//! another way than one that is not, so the sandbox needs the flags too. Pure: no folder is looked at.

use std::path::{Component, Path};

use super::respell::Respell;

/// Which folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RootKind {
    /// The user's workspace.
    Workspace,
    /// `CARGO_HOME`: sources of crates from registries and git.
    CargoHome,
    /// Cargo's target folder.
    Target,
    /// The compiler's own.
    Sysroot,
}

impl RootKind {
    /// Where it stands in the sandbox.
    pub fn place(self) -> &'static str {
        match self {
            Self::Workspace => "/buildbee.d/workspace",
            Self::CargoHome => "/buildbee.d/cargo",
            Self::Target => "/buildbee.d/target",
            Self::Sysroot => "/buildbee.d/rust",
        }
    }

    /// What outputs call it. Debuggers that are started in the workspace find its sources: `/proc/self/cwd` is their working directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Workspace => "/proc/self/cwd",
            Self::CargoHome => "/buildbee/cargo",
            Self::Target => "/buildbee/target",
            Self::Sysroot => "/buildbee/rust",
        }
    }
}

/// `paths = "portable" | "exact"`, `BUILDBEE_PATHS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathSetting {
    /// Outputs hold names, so that they are the same everywhere.
    #[default]
    Portable,
    /// No argument is added; outputs hold real paths.
    Exact,
}

impl PathSetting {
    /// From the word that settings and variables use.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "portable" => Some(Self::Portable),
            "exact" => Some(Self::Exact),
            _ => None,
        }
    }
}

/// Where flags are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This machine: real folders are mapped to names.
    Here,
    /// The sandbox: places are mapped to names.
    Sandbox,
}

/// One root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Root {
    kind: RootKind,
    /// Absolute, no `.`, `..`, double slash or slash at the end.
    real: String,
}

/// The roots of one compile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Roots {
    /// Outer ones before those that lie in them.
    folders: Vec<Root>,
    setting: PathSetting,
    stays: bool,
}

impl Roots {
    /// From real folders. What is not absolute, is `/`, is not UTF-8 or leads through `..` is no root.
    pub fn new<'a>(setting: PathSetting, folders: impl IntoIterator<Item = (RootKind, &'a Path)>) -> Self {
        let mut roots: Vec<Root> = Vec::new();
        for (kind, folder) in folders {
            let Some(real) = normal(folder) else { continue };
            let known = roots.iter().any(|root| root.kind == kind || root.real == real);
            if !known {
                roots.push(Root { kind, real });
            }
        }
        roots.sort_by_key(|root| (root.real.len(), root.kind));
        Self { folders: roots, setting, stays: false }
    }

    /// The setting that these are for.
    pub fn setting(&self) -> PathSetting {
        self.setting
    }

    /// The same, but every root stands at its real place in the sandbox too (the sysroot aside). Flags are still added under
    /// [`PathSetting::Portable`]. For crates whose outputs hold paths that no flag reaches.
    #[must_use]
    pub fn at_real_places(&self) -> Self {
        Self { stays: true, ..self.clone() }
    }

    /// Whether results mean the same wherever the roots are.
    pub fn are_placed(&self) -> bool {
        self.setting == PathSetting::Portable && !self.stays
    }

    /// The real folder of a root, if there is one.
    pub fn real(&self, kind: RootKind) -> Option<&Path> {
        self.folders.iter().find(|root| root.kind == kind).map(|root| Path::new(&root.real))
    }

    /// Where the root stands in the sandbox, if there is one.
    pub fn place(&self, kind: RootKind) -> Option<&Path> {
        self.folders.iter().find(|root| root.kind == kind).map(|root| Path::new(self.place_of(root)))
    }

    /// Every root: what it is, the real folder, its place in the sandbox. Outer ones before those that lie in them.
    pub fn iter(&self) -> impl Iterator<Item = (RootKind, &Path, &Path)> {
        self.folders.iter().map(|root| (root.kind, Path::new(&root.real), Path::new(self.place_of(root))))
    }

    fn place_of<'a>(&self, root: &'a Root) -> &'a str {
        if self.are_placed() || root.kind == RootKind::Sysroot { root.kind.place() } else { &root.real }
    }

    /// Real to place.
    pub fn places(&self) -> Respell {
        Respell::new(self.folders.iter().map(|root| (root.real.as_str(), self.place_of(root))))
    }

    /// Place to real.
    pub fn reals(&self) -> Respell {
        Respell::new(self.folders.iter().map(|root| (self.place_of(root), root.real.as_str())))
    }

    /// Place and name to real: for what people read.
    pub fn shown(&self) -> Respell {
        let names = self.folders.iter().filter(|_| self.setting == PathSetting::Portable);
        let names = names.map(|root| (root.kind.name(), root.real.as_str()));
        Respell::new(self.folders.iter().map(|root| (self.place_of(root), root.real.as_str())).chain(names))
    }

    /// The arguments that make outputs hold names. rustc takes the last one that matches, so those of nested roots come last, and the user's own
    /// have to follow. None under [`PathSetting::Exact`].
    pub fn flags(&self, side: Side) -> Vec<String> {
        if self.setting == PathSetting::Exact {
            return Vec::new();
        }
        let mut roots: Vec<&Root> = self.folders.iter().collect();
        if side == Side::Sandbox && self.are_placed() {
            // No place lies in another, and an action must not tell how the real ones did.
            roots.sort_by_key(|root| root.kind);
        }
        let flag = |root: &Root| {
            let from = match side {
                Side::Here => root.real.as_str(),
                Side::Sandbox => self.place_of(root),
            };
            format!("--remap-path-prefix={from}={}", root.kind.name())
        };
        roots.into_iter().map(flag).collect()
    }
}

/// The path as text without a slash at the end, if it can be a root.
fn normal(path: &Path) -> Option<String> {
    let mut text = String::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                text.push('/');
                text.push_str(name.to_str()?);
            }
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (path.is_absolute() && !text.is_empty() && !text.contains(['\0', '\n'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(setting: PathSetting) -> Roots {
        let folders = [
            (RootKind::Target, "/home/a/app/target"),
            (RootKind::Workspace, "/home/a/app/"),
            (RootKind::CargoHome, "/home/a/.cargo"),
            (RootKind::Sysroot, "/home/a/.rustup/toolchains/stable"),
        ];
        Roots::new(setting, folders.map(|(kind, folder)| (kind, Path::new(folder))))
    }

    #[test]
    fn outer_roots_are_mapped_before_those_within() {
        assert_eq!(
            roots(PathSetting::Portable).flags(Side::Here),
            [
                "--remap-path-prefix=/home/a/app=/proc/self/cwd",
                "--remap-path-prefix=/home/a/.cargo=/buildbee/cargo",
                "--remap-path-prefix=/home/a/app/target=/buildbee/target",
                "--remap-path-prefix=/home/a/.rustup/toolchains/stable=/buildbee/rust",
            ]
        );
    }

    #[test]
    fn a_sandbox_has_the_same_flags_wherever_the_roots_are() {
        let elsewhere = [
            (RootKind::Sysroot, "/r"),
            (RootKind::Workspace, "/home/b/longer/name/app"),
            (RootKind::Target, "/t"),
            (RootKind::CargoHome, "/home/b/longer/name/app/.cargo"),
        ];
        let elsewhere = Roots::new(PathSetting::Portable, elsewhere.map(|(kind, folder)| (kind, Path::new(folder))));
        let flags = roots(PathSetting::Portable).flags(Side::Sandbox);
        assert_eq!(flags, elsewhere.flags(Side::Sandbox));
        assert_eq!(flags[2], "--remap-path-prefix=/buildbee.d/target=/buildbee/target");
    }

    #[test]
    fn exact_roots_add_nothing_and_stay_where_they_are() {
        let exact = roots(PathSetting::Exact);
        assert_eq!(exact.flags(Side::Here), Vec::<String>::new());
        assert_eq!(exact.flags(Side::Sandbox), Vec::<String>::new());
        assert_eq!(exact.places().text("/home/a/app/target/x"), "/home/a/app/target/x");
        assert_eq!(exact.place(RootKind::Sysroot), Some(Path::new("/buildbee.d/rust")));
        let stays = roots(PathSetting::Portable).at_real_places();
        assert_eq!(stays.flags(Side::Sandbox)[0], "--remap-path-prefix=/home/a/app=/proc/self/cwd");
        assert_eq!(stays.place(RootKind::Target), Some(Path::new("/home/a/app/target")));
    }

    #[test]
    fn what_can_be_no_root_is_left_out() {
        for folder in ["/", "x", "", "/a/../b", "/a\nb"] {
            let none = Roots::new(PathSetting::Portable, [(RootKind::Target, Path::new(folder))]);
            assert_eq!(none.iter().count(), 0, "{folder}");
        }
    }

    #[test]
    fn the_deepest_root_gives_the_place() {
        let roots = roots(PathSetting::Portable);
        for (real, placed) in [
            ("/home/a/app/src/main.rs", "/buildbee.d/workspace/src/main.rs"),
            ("/home/a/app", "/buildbee.d/workspace"),
            ("/home/a/app/target/debug/x y", "/buildbee.d/target/debug/x y"),
            ("/home/a/apple", "/home/a/apple"),
            ("/usr/lib", "/usr/lib"),
            ("src/main.rs", "src/main.rs"),
        ] {
            assert_eq!(roots.places().path(Path::new(real)), Path::new(placed));
            assert_eq!(roots.places().text(real), placed);
            assert_eq!(roots.reals().path(Path::new(placed)), Path::new(real));
            assert_eq!(roots.shown().text(placed), real);
        }
        assert_eq!(roots.shown().text(" --> /proc/self/cwd/x.rs:1"), " --> /home/a/app/x.rs:1");
    }
}
