//! A daemon that can't start, several that start at once, and sockets that can't be used.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use buildbee_tests::network::skipped;

use crate::place::{Place, explains, is_root, refused, run, wait};

#[test]
fn twenty_wrappers_at_once_start_one_daemon() {
    let place = Place::new();
    for n in 0..20 {
        place.write(&format!("f{n}.c"), &format!("#include <stdio.h>\nint f{n}(void) {{ return printf(\"{n}\"); }}\n"));
        let file = format!("f{n}.c");
        assert_eq!(run(place.command("gcc").args(["-c", &file, "-o", &format!("p{n}.o")])).code, Some(0));
    }
    let wrappers: Vec<_> = (0..20)
        .map(|n| {
            let file = format!("f{n}.c");
            let mut wrapper = place.buildbee(&["gcc", "-c", &file]);
            wrapper.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (n, wrapper) in wrappers.into_iter().enumerate() {
        let output = wrapper.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let plain = fs::read(place.path(&format!("p{n}.o"))).unwrap();
        assert_eq!(fs::read(place.path(&format!("f{n}.o"))).unwrap(), plain, "f{n}.o");
    }
    wait("one daemon", || place.daemons().len() == 1);
    // Another one by hand is told to leave the first alone.
    refused(&mut place.buildbee(&["daemon"]), 1, &["running already"]);
    assert_eq!(run(&mut place.buildbee(&["daemon", "--background"])).code, Some(0), "there is one, as was wanted");
    let answers = place.json(&["status"])["pid"].as_i64().unwrap();
    wait("the others to leave", || place.daemons() == [i32::try_from(answers).unwrap()]);
}

#[test]
fn a_state_folder_that_can_not_be_used_is_named_and_the_build_goes_on() {
    let Some(place) = Place::ordinary() else { return };
    place.write("x.c", "int x;\n");
    place.write("closed/kept", "kept\n");
    let closed = place.path("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let file = place.write("file", "a file\n");
    let before = place.snapshot("closed");
    for folder in [closed.join("state"), file.clone()] {
        let folder = folder.to_str().unwrap();
        let environment = [("BUILDBEE_STATE_DIR", folder)];
        let _ = fs::remove_dir_all(place.path("run"));
        explains(&place.compiles_as_gcc_does_with("x.c", &environment).err, &[folder]);
        assert_eq!(place.compiles_as_gcc_does_with("x.c", &environment).err, "", "once is enough");
        refused(place.buildbee(&["status"]).envs(environment), 1, &[folder]);
        let doctor = run(place.buildbee(&["doctor"]).envs(environment));
        assert_eq!(doctor.code, Some(1));
        assert!(doctor.out.contains("FAIL  daemon: ") && doctor.out.contains(folder), "{doctor:?}");
        let strict = run(place.buildbee(&["gcc", "-c", "x.c"]).envs(environment).env("BUILDBEE", "strict"));
        assert_eq!(strict.code, Some(1));
        explains(&strict.err, &["strict: would run locally: no-daemon"]);
    }
    assert_eq!(place.snapshot("closed"), before);
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file\n");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let place = Place::new();
    place.write("x.c", "int x;\n");
    place.compiles_as_gcc_does("x.c");
    run(&mut place.buildbee(&["stop"]));
    wait("the daemon has left", || place.daemons().is_empty());
    let key = place.path("home/.local/state/buildbee/identity.key");
    let before = fs::read(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    explains(&place.compiles_as_gcc_does("x.c").err, &["identity.key"]);
    refused(&mut place.buildbee(&["status"]), 1, &["identity.key"]);
    assert_eq!(fs::read(&key).unwrap(), before);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let _ = fs::remove_file(place.path("run/s.failed"));
    assert_eq!(place.compiles_as_gcc_does("x.c").err, "");
    assert_eq!(place.json(&["stats"])["cached"], 1, "the cache has lost what it held");
}

#[test]
fn a_socket_path_that_is_too_long() {
    let place = Place::new();
    place.write("x.c", "int x;\n");
    let long = place.path(&"s".repeat(120)).display().to_string();
    let said = place.compiles_as_gcc_does_with("x.c", &[("BUILDBEE_SOCKET", &long)]);
    explains(&said.err, &["socket path", "107"]);
    assert_eq!(said.err.lines().count(), 2, "{said:?}");
    refused(place.buildbee(&["status"]).env("BUILDBEE_SOCKET", &long), 2, &["socket path", "107"]);
}

#[test]
fn a_socket_folder_that_others_can_write_to() {
    let place = Place::new();
    place.write("x.c", "int x;\n");
    fs::create_dir_all(place.path("runtime/buildbee")).unwrap();
    fs::set_permissions(place.path("runtime/buildbee"), fs::Permissions::from_mode(0o777)).unwrap();
    let runtime = place.path("runtime").display().to_string();
    // The default place below XDG_RUNTIME_DIR, then the same folder named by the variable.
    let named = place.path("runtime/buildbee/s").display().to_string();
    let said = place.compiles_as_gcc_does_with("x.c", &[("BUILDBEE_SOCKET", ""), ("XDG_RUNTIME_DIR", &runtime)]);
    explains(&said.err, &["runtime/buildbee", "others can write to it"]);
    let mut status = place.buildbee(&["status"]);
    refused(status.env("BUILDBEE_SOCKET", "").env("XDG_RUNTIME_DIR", &runtime), 1, &["others can write to it"]);
    let said = place.compiles_as_gcc_does_with("x.c", &[("BUILDBEE_SOCKET", &named)]);
    explains(&said.err, &["runtime/buildbee", "others may write to it"]);
    assert!(!place.path("runtime/buildbee/s").exists());
}

#[test]
fn a_socket_folder_of_somebody_else() {
    if !is_root() {
        return skipped("only root can give a folder to somebody else");
    }
    let place = Place::new();
    place.write("x.c", "int x;\n");
    fs::create_dir_all(place.path("runtime/buildbee")).unwrap();
    std::os::unix::fs::chown(place.path("runtime/buildbee"), Some(65_534), Some(65_534)).unwrap();
    let runtime = place.path("runtime").display().to_string();
    let said = place.compiles_as_gcc_does_with("x.c", &[("BUILDBEE_SOCKET", ""), ("XDG_RUNTIME_DIR", &runtime)]);
    explains(&said.err, &["runtime/buildbee", "belongs to another user"]);
    assert!(fs::read_dir(place.path("runtime/buildbee")).unwrap().next().is_none());
}

#[test]
fn a_link_beside_the_socket_is_not_written_through() {
    let place = Place::new();
    place.write("x.c", "int x;\n");
    let kept = place.write("precious", "kept\n");
    let config = place.write("config.toml", "racing = \"fast\"\n");
    fs::create_dir(place.path("run")).unwrap();
    for name in ["run/s.failed", "run/s.starting"] {
        std::os::unix::fs::symlink(&kept, place.path(name)).unwrap();
    }
    place.compiles_as_gcc_does_with("x.c", &[("BUILDBEE_CONFIG", config.to_str().unwrap())]);
    fs::remove_file(place.path("run/s.starting")).unwrap();
    place.compiles_as_gcc_does_with("x.c", &[("BUILDBEE_CONFIG", config.to_str().unwrap())]);
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept\n");
}
