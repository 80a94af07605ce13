//! Which files of which store paths are not there. Pure.

use std::collections::{BTreeMap, HashSet};

use buildbee_proto::digest::Digest;
use buildbee_proto::store_path::{STORE_HASH_LENGTH, is_store_hash};

use crate::workspace::tree::Directories;

/// A store path of which files are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Its name below the store's folder.
    pub name: String,
    /// The files by their path in it; of a path that is a file, by the empty one.
    pub files: BTreeMap<String, Digest>,
}

impl Lacking {
    /// The hash in its name.
    pub fn hash(&self) -> &str {
        self.name.get(..STORE_HASH_LENGTH).unwrap_or_default()
    }
}

/// What of `missing` stands in store paths of the tree below `root`, whose size has been measured. In order of their names.
pub fn lacking(directories: &Directories, root: &Digest, missing: &[Digest]) -> Vec<Lacking> {
    let missing: HashSet<&Digest> = missing.iter().collect();
    let child = |of: &Digest, name: &str| {
        let children = &directories.get(of)?.directories;
        children.iter().find(|child| child.name.as_str() == name).map(|child| child.digest)
    };
    let store = child(root, "nix").and_then(|nix| child(&nix, "store"));
    let Some(store) = store.and_then(|store| directories.get(&store)) else { return Vec::new() };
    let mut all = Vec::new();
    for file in store.files.iter().filter(|file| missing.contains(&file.digest)) {
        all.push(Lacking { name: file.name.as_str().to_owned(), files: [(String::new(), file.digest)].into() });
    }
    for directory in &store.directories {
        let files = files_below(directories, directory.digest, &missing);
        all.push(Lacking { name: directory.name.as_str().to_owned(), files });
    }
    all.retain(|path| !path.files.is_empty() && is_store_hash(path.hash()));
    all.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    all
}

fn files_below(directories: &Directories, top: Digest, missing: &HashSet<&Digest>) -> BTreeMap<String, Digest> {
    let mut files = BTreeMap::new();
    let mut left = vec![(String::new(), top)];
    while let Some((at, digest)) = left.pop() {
        let Some(directory) = directories.get(&digest) else { continue };
        let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        let lacking = directory.files.iter().filter(|file| missing.contains(&file.digest));
        files.extend(lacking.map(|file| (below(file.name.as_str()), file.digest)));
        left.extend(directory.directories.iter().map(|child| (below(child.name.as_str()), child.digest)));
    }
    files
}

#[cfg(test)]
pub(super) mod tests {
    use buildbee_proto::canonical::Canonical;
    use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, Twin};

    use super::*;

    pub(in super::super) const HASH: &str = "0wwbmlzz12c1mn5a754ndya7mkbbfknm";

    fn file(name: &str, content: &[u8]) -> FileNode {
        FileNode {
            name: name.try_into().unwrap(),
            digest: Digest::of(content),
            executable: false,
            twin: Twin::default(),
        }
    }

    fn holding(known: &mut Directories, name: &str, directory: Directory) -> Directory {
        let digest = directory.digest();
        known.insert(digest, directory);
        let directories = vec![DirectoryNode { name: name.try_into().unwrap(), digest }];
        Directory { directories, ..Directory::default() }
    }

    /// A tree with one store path of this name, which has `bin/cc` with this content: its directories, root and file.
    pub(in super::super) fn tree(name: &str, content: &[u8]) -> (Directories, Digest, Digest) {
        let mut known = Directories::new();
        let bin = Directory { files: vec![file("cc", content)], ..Directory::default() };
        let path = holding(&mut known, "bin", bin);
        let store = holding(&mut known, name, path);
        let nix = holding(&mut known, "store", store);
        let root = holding(&mut known, "nix", nix);
        let top = root.digest();
        known.insert(top, root);
        (known, top, Digest::of(content))
    }

    #[test]
    fn only_what_is_missing_from_store_paths_is_named() {
        let mut known = Directories::new();
        let bin = Directory { files: vec![file("cc", b"cc"), file("ld", b"ld")], ..Directory::default() };
        let path = holding(&mut known, "bin", bin);
        let mut store = holding(&mut known, &format!("{HASH}-gcc"), path);
        let script = format!("{HASH}-script");
        store.files = vec![file("no-hash", b"x"), file(&script, b"script")];
        store.files.sort_by(|left, right| left.name.cmp(&right.name));
        let nix = holding(&mut known, "store", store);
        let mut root = holding(&mut known, "nix", nix);
        root.files = vec![file("outside", b"cc")];
        let top = root.digest();
        known.insert(top, root);
        let of = |contents: &[&[u8]]| {
            let missing: Vec<Digest> = contents.iter().map(|content| Digest::of(content)).collect();
            lacking(&known, &top, &missing)
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[b"x"]), [], "no store path's name");
        let all = of(&[b"cc", b"script"]);
        let shown: Vec<_> =
            all.iter().map(|path| (path.name.as_str(), path.files.keys().collect::<Vec<_>>())).collect();
        assert_eq!(
            shown,
            [(format!("{HASH}-gcc").as_str(), vec![&"bin/cc".to_owned()]), (script.as_str(), vec![&String::new()])]
        );
        assert_eq!(lacking(&known, &Digest::of(b"another"), &[Digest::of(b"cc")]), []);
    }
}
