//! Outputs as hostile programs leave them: what is collected, and what is refused.

use std::os::unix::fs::{PermissionsExt, symlink};

use buildbee_store::{Durability, Options};

use super::*;

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 256 << 20, durability: Durability::Lazy };
        let (store, _) = Store::open(&dir.path().join("store"), &options).unwrap();
        for folder in ["upper", "inputs", "toolchain"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        Self { dir, store }
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.path(path), content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.path(path)).unwrap();
    }

    fn collect(&self, files: &[&str], folders: &[&str]) -> Result<Collected, CollectError> {
        let paths = |texts: &[&str]| texts.iter().map(|&text| text.try_into().unwrap()).collect();
        let command = Command {
            argv: vec!["x".to_owned()],
            env: Vec::new(),
            working_directory: RelPath::root(),
            output_files: paths(files),
            output_directories: paths(folders),
        };
        let layers = [self.path("inputs"), self.path("toolchain")];
        collect(&self.store, &Small::default(), &self.path("upper"), &layers, &command)
    }

    fn names(&self, files: &[&str], folders: &[&str]) -> Vec<String> {
        let collected = self.collect(files, folders).unwrap();
        collected.outputs.iter().map(|file| file.path.to_string()).collect()
    }
}

#[test]
fn files_come_with_content_and_mode() {
    let place = Place::new();
    place.write("upper/w/a.o", b"object");
    fs::set_permissions(place.path("upper/w/a.o"), fs::Permissions::from_mode(0o4755)).unwrap();
    let large = vec![7; usize::try_from(SMALL_FILE_BYTES).unwrap() + 3];
    place.write("upper/w/large", &large);
    let collected = place.collect(&["w/a.o", "w/absent", "w/large"], &[]).unwrap();
    let expected = [("w/a.o", Digest::of(b"object"), 0o755), ("w/large", Digest::of(&large), 0o644)];
    for (file, (path, digest, mode)) in collected.outputs.iter().zip(expected) {
        assert_eq!((file.path.as_str(), file.digest, file.mode & 0o755), (path, digest, mode));
        assert_eq!(Digest::of(&place.store.read(&digest, u64::MAX).unwrap().unwrap()), digest);
    }
    assert_eq!(collected.outputs.len(), 2);
}

#[test]
fn links_lead_nowhere() {
    let place = Place::new();
    place.write("secret/key", b"the agent's own");
    place.write("upper/w/real", b"real");
    let secret = place.path("secret");
    place.link("upper/w/file", secret.join("key").to_str().unwrap());
    place.link("upper/w/near", "real");
    place.link("upper/dir", secret.to_str().unwrap());
    place.link("upper/w/up", "../../secret");
    let files = ["dir/key", "w/file", "w/near", "w/up/key"];
    assert!(place.names(&files, &["dir", "w/up"]).is_empty());
    assert_eq!(place.names(&[], &["w"]), ["w/real"], "nor do links inside a folder");
}

#[test]
fn links_of_the_inputs_are_followed_inside_only() {
    let place = Place::new();
    fs::create_dir_all(place.path("inputs/data/project")).unwrap();
    place.link("inputs/home/me/p", "/data/project");
    place.link("inputs/home/me/around", "p/../../me/p");
    place.link("inputs/home/me/loop", "loop");
    place.link("inputs/home/me/out", "../../../../../../upper");
    place.write("upper/data/project/x", b"x");
    place.write("upper/upper/x", b"x");
    let collected = place.collect(&["home/me/around/x", "home/me/loop/x", "home/me/p/x"], &[]);
    assert!(matches!(collected, Ok(found) if found.outputs.len() == 1), "\"..\" in \"p/..\" is that of the target");
    assert_eq!(place.names(&["home/me/out/x", "home/me/p/x"], &[]), ["home/me/out/x", "home/me/p/x"]);
}

#[test]
fn a_folder_of_the_inputs_wins_over_a_link_of_the_toolchain() {
    let place = Place::new();
    fs::create_dir_all(place.path("inputs/lib/sub")).unwrap();
    place.link("toolchain/lib", "usr/lib");
    place.write("upper/lib/x", b"x");
    place.write("upper/usr/lib/y", b"y");
    assert_eq!(place.names(&["lib/x", "lib/y"], &[]), ["lib/x"]);
}

#[test]
fn only_files_count() {
    let place = Place::new();
    let fifo = place.path("upper/w/pipe");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(place.path("upper/w/socket")).unwrap();
    fs::create_dir(place.path("upper/w/folder")).unwrap();
    place.write("upper/w/folder/inner", b"");
    assert!(place.names(&["w/folder", "w/pipe", "w/socket"], &["w/pipe"]).is_empty());
    assert_eq!(place.names(&["w/folder/inner"], &["w"]), ["w/folder/inner"], "once, though named twice");
    drop(listener);
}

#[test]
fn too_many_are_refused() {
    let place = Place::new();
    for n in 0..=MAX_OUTPUTS {
        place.write(&format!("upper/w/{n}"), b"");
    }
    assert!(matches!(place.collect(&[], &["w"]), Err(CollectError::TooMany)));
}

#[test]
fn a_labyrinth_of_links_is_left_before_long() {
    let place = Place::new();
    fs::create_dir_all(place.path("upper/w/x")).unwrap();
    place.link("inputs/w/long", &"x/../".repeat(800));
    let outputs: Vec<String> = (0..200).map(|n| format!("w/long/f{n}/a.o")).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    assert!(matches!(place.collect(&outputs, &[]), Err(CollectError::TooDeep)));
    let beside: Vec<String> = (0..4000).map(|n| format!("w/long/x/{n}.o")).collect();
    let beside: Vec<&str> = beside.iter().map(String::as_str).collect();
    assert_eq!(place.names(&beside, &[]).len(), 0, "one folder is walked to once");
}
