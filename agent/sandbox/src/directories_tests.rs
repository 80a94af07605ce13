//! Folders as an action sees them: made, shared, and closed to what climbs out.

use std::os::unix::fs::symlink;

use buildbee_proto::path::RelPath;
use tempfile::TempDir;

use super::*;
use crate::spec::Limits;

struct Place {
    _folder: TempDir,
    spec: SandboxSpec,
}

fn place() -> Place {
    let folder = TempDir::new().unwrap();
    let [top, bottom, scratch] = ["top", "bottom", "scratch"].map(|name| folder.path().join(name));
    for path in [&top, &bottom, &scratch] {
        fs::create_dir(path).unwrap();
    }
    let spec = SandboxSpec {
        layers: vec![top, bottom],
        scratch,
        argv: vec!["true".into()],
        env: Vec::new(),
        working_directory: RelPath::root(),
        make_directories: Vec::new(),
        stderr_is_terminal: false,
        job_tokens: None,
        limits: Limits::default(),
    };
    Place { _folder: folder, spec }
}

impl Place {
    fn wanting(mut self, path: &str) -> Self {
        self.spec.make_directories = vec![path.try_into().unwrap()];
        self
    }

    fn prepare(&self) -> Result<(), DirectoryError> {
        prepare(&self.spec)
    }

    fn made(&self, path: &str) -> bool {
        self.spec.upper().join(path).is_dir()
    }
}

#[test]
fn new_folders_and_a_private_tmp() {
    let place = place().wanting("a/b/c");
    place.prepare().unwrap();
    assert!(place.made("a/b/c"));
    assert_eq!(fs::metadata(place.spec.upper().join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
}

#[test]
fn folders_that_a_layer_has_are_left_to_it() {
    let place = place().wanting("a/b");
    fs::create_dir_all(place.spec.layers[1].join("a/b")).unwrap();
    place.prepare().unwrap();
    assert!(!place.made("a"));
}

#[test]
fn a_new_folder_below_an_old_one_keeps_its_mode() {
    let place = place().wanting("a/b");
    let old = place.spec.layers[1].join("a");
    fs::create_dir(&old).unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o711)).unwrap();
    place.prepare().unwrap();
    assert!(place.made("a/b"));
    assert_eq!(fs::metadata(place.spec.upper().join("a")).unwrap().permissions().mode() & 0o7777, 0o711);
}

#[test]
fn links_lead_where_the_command_would_see_them_lead() {
    let place = place().wanting("x/link/out");
    fs::create_dir_all(place.spec.layers[0].join("x")).unwrap();
    fs::create_dir_all(place.spec.layers[1].join("real")).unwrap();
    symlink("../../../../real/./deep", place.spec.layers[0].join("x/link")).unwrap();
    place.prepare().unwrap();
    assert!(place.made("real/deep/out"));
    assert!(!place.made("x"));
}

#[test]
fn a_link_never_leads_onto_the_host() {
    let outside = TempDir::new().unwrap();
    let place = place().wanting("link/out");
    symlink(outside.path(), place.spec.layers[0].join("link")).unwrap();
    place.prepare().unwrap();
    assert!(!outside.path().join("out").exists());
    assert!(place.spec.upper().join(outside.path().strip_prefix("/").unwrap()).join("out").is_dir());
}

#[test]
fn circles_files_and_reserved_places_are_refused() {
    let circle = place().wanting("a/b");
    symlink("c", circle.spec.layers[0].join("a")).unwrap();
    symlink("a", circle.spec.layers[0].join("c")).unwrap();
    assert!(matches!(circle.prepare(), Err(DirectoryError::Links(_))));

    let file = place().wanting("a/b");
    fs::write(file.spec.layers[1].join("a"), "").unwrap();
    assert!(matches!(file.prepare(), Err(DirectoryError::NotAFolder(_))));

    let through_a_link = place().wanting("a/b");
    symlink("/dev", through_a_link.spec.layers[0].join("a")).unwrap();
    assert!(matches!(through_a_link.prepare(), Err(DirectoryError::Reserved(_))));

    let link = place();
    symlink("/etc", link.spec.layers[1].join("proc")).unwrap();
    assert!(matches!(link.prepare(), Err(DirectoryError::Reserved(_))));

    let full = place();
    fs::create_dir_all(full.spec.layers[0].join("sys/a")).unwrap();
    assert!(matches!(full.prepare(), Err(DirectoryError::Reserved(_))));

    let empty = place();
    fs::create_dir(empty.spec.layers[0].join("dev")).unwrap();
    empty.prepare().unwrap();
}

#[test]
fn an_upper_folder_hides_a_lower_file_only_where_a_layer_does() {
    // The topmost layer's folder hides the file below: the folder is what counts.
    let place = place().wanting("a/b");
    fs::create_dir(place.spec.layers[0].join("a")).unwrap();
    fs::write(place.spec.layers[1].join("a"), "").unwrap();
    place.prepare().unwrap();
    assert!(place.made("a/b"));
}

#[test]
fn a_used_scratch_folder_is_refused() {
    let place = place();
    place.prepare().unwrap();
    assert!(matches!(place.prepare(), Err(DirectoryError::Io { .. })));
}
