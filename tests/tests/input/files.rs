//! Sources and headers that are not there or can't be read: what the compiler says of them, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::place::{Place, run};

#[test]
fn a_missing_source_is_gccs_to_report() {
    let place = Place::new();
    let said = place.compiles_as_gcc_does("missing.c");
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
    // The same where a daemon knows it from before.
    place.write("there.c", "int x;\n");
    place.compiles_as_gcc_does("there.c");
    let object = fs::read(place.path("there.o")).unwrap();
    fs::remove_file(place.path("there.c")).unwrap();
    let said = run(&mut place.buildbee(&["gcc", "-c", "there.c", "-o", "other.o"]));
    let plain = run(place.command("gcc").args(["-c", "there.c", "-o", "other.o"]));
    assert_eq!(said, plain);
    assert_eq!(fs::read(place.path("there.o")).unwrap(), object, "an object that was there is gone");
}

#[test]
fn a_missing_header_is_gccs_to_report() {
    let place = Place::new();
    place.write("x.c", "#include \"nowhere.h\"\nint x;\n");
    place.write("x.o.before", "");
    let said = place.compiles_as_gcc_does("x.c");
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
    assert!(!place.path("x.o").exists());
}

#[test]
fn an_unreadable_source_or_header_is_gccs_to_report() {
    let Some(place) = Place::ordinary() else { return };
    place.write("x.c", "#include \"x.h\"\nint x = X;\n");
    place.write("x.h", "#define X 1\n");
    assert_eq!(place.compiles_as_gcc_does("x.c").code, Some(0));
    for file in ["x.h", "x.c"] {
        fs::set_permissions(place.path(file), fs::Permissions::from_mode(0o000)).unwrap();
        let _ = fs::remove_file(place.path("x.o"));
        let said = place.compiles_as_gcc_does("x.c");
        assert_eq!((said.code, said.err.as_str()), (Some(1), ""), "a hit for a {file} that can't be read");
        fs::set_permissions(place.path(file), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(place.compiles_as_gcc_does("x.c").code, Some(0));
    }
    let actions = place.json(&["explain"]);
    let reasons: Vec<_> = actions["actions"].as_array().unwrap().iter().map(|action| &action["reason"]).collect();
    assert!(reasons.iter().any(|reason| *reason == "input-unreadable"), "{reasons:?}");
}

#[test]
fn an_output_that_can_not_be_written_is_gccs_to_report() {
    let Some(place) = Place::ordinary() else { return };
    place.write("x.c", "int x;\n");
    assert_eq!(place.compiles_as_gcc_does("x.c").code, Some(0));
    let folder = place.path("closed");
    place.write("closed/kept", "kept\n");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    // In the cache, so that placing it is what fails.
    let words = ["-O1", "-g", "-Wall", "-c", "x.c", "-o", "closed/x.o"];
    let said = run(place.buildbee(&["gcc"]).args(words));
    let plain = run(place.command("gcc").args(words));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(plain.code, Some(0));
    // gcc names a temporary file of its own in some messages; none of them is in this one.
    assert_eq!(said, plain);
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["kept"]);
}
