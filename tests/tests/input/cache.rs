//! A client's cache that is full, can't be written, or is of a newer version: the build goes on, the same objects, and `status` says
//! what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use buildbee_tests::network::skipped;

use crate::place::{Place, explains, run, wait};

/// Fills a small disk from below the daemon. Runs in namespaces of its own, so that an ordinary user can do it too.
const ON_A_SMALL_DISK: &str = r#"
set -eu
mount -t tmpfs -o size=$((SIZE * 1024)) none cache
for n in 0 1 2 3 4 5 6 7; do
    buildbee gcc -c -O1 f$n.c -o f$n.o || { echo "failed: $n"; exit 3; }
done
buildbee status --json > status.json
buildbee stats --json > stats.json
buildbee stop > /dev/null
while [ -e run/s ]; do sleep 0.05; done
"#;

fn in_namespaces(place: &Place, script: &str) -> std::process::Command {
    let mut command = place.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "bash", "-c", script]);
    command
}

#[test]
fn a_full_disk_costs_the_cache_and_not_the_build() {
    let place = Place::new();
    if run(&mut in_namespaces(&place, "mount -t tmpfs none /mnt")).code != Some(0) {
        return skipped("there are no user namespaces here");
    }
    // Objects of about 1 MiB that don't compress into nothing.
    for n in 0..8 {
        let words: Vec<String> = (0..60_000_u64).map(|word| (word * 2_654_435_761 + n).to_string()).collect();
        place.write(&format!("f{n}.c"), &format!("unsigned long long f{n}[] = {{{}}};\n", words.join("ULL,")));
        let (file, object) = (format!("f{n}.c"), format!("p{n}.o"));
        assert_eq!(run(place.command("gcc").args(["-c", "-O1", &file, "-o", &object])).code, Some(0));
    }
    // From a disk too small for the store's own files to one that fills up on the way.
    for kib in [16, 256, 3 << 10, 1 << 20] {
        let _ = fs::remove_dir_all(place.path("cache"));
        fs::create_dir(place.path("cache")).unwrap();
        let mut build = in_namespaces(&place, ON_A_SMALL_DISK);
        build.env("SIZE", kib.to_string()).env("BUILDBEE_CACHE_DIR", place.path("cache"));
        let said = run(&mut build);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""), "{kib} KiB");
        for n in 0..8 {
            let plain = fs::read(place.path(&format!("p{n}.o"))).unwrap();
            assert!(fs::read(place.path(&format!("f{n}.o"))).unwrap() == plain, "f{n}.o with {kib} KiB");
            fs::remove_file(place.path(&format!("f{n}.o"))).unwrap();
        }
        let document =
            |name: &str| -> serde_json::Value { serde_json::from_slice(&fs::read(place.path(name)).unwrap()).unwrap() };
        let status = document("status.json");
        assert_eq!(document("stats.json")["local"], 8, "{kib} KiB");
        let warnings: Vec<_> =
            status["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        if kib == 1 << 20 {
            assert!(warnings.is_empty(), "there is room: {warnings:?}");
        } else {
            assert_eq!(warnings.len(), 1, "{kib} KiB: {status}");
            explains(warnings[0], &["local cache", "no space left"]);
        }
    }
}

#[test]
fn a_cache_that_can_not_be_written_costs_the_cache_and_not_the_build() {
    let Some(place) = Place::ordinary() else { return };
    place.write("x.c", "int x;\n");
    let cache = place.path("cache").display().to_string();
    let environment = [("BUILDBEE_CACHE_DIR", cache.as_str())];
    place.write("cache/.keep", "");
    fs::remove_file(place.path("cache/.keep")).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o555)).unwrap();
    let before = place.snapshot("cache");
    assert_eq!(place.compiles_as_gcc_does_with("x.c", &environment).err, "");
    explains(&place.warnings(), &["no local cache", &cache, "can't be written"]);
    let shown = run(&mut place.buildbee(&["status"]));
    assert!(shown.out.contains("can't be written") && shown.out.contains("hint: "), "{shown:?}");
    assert_eq!(run(&mut place.buildbee(&["cache", "usage"])).code, Some(0));
    assert_eq!(place.snapshot("cache"), before);
    run(&mut place.buildbee(&["stop"]));
    wait("the daemon has left", || place.daemons().is_empty());
    // What is wrong no more is not warned of.
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(place.compiles_as_gcc_does_with("x.c", &environment).err, "");
    assert_eq!(place.warnings(), "");
}

/// A file system that is mounted read-only, from below the daemon.
const ON_A_READ_ONLY_DISK: &str = r"
set -eu
mount --bind cache cache
mount -o remount,bind,ro cache
buildbee gcc -c x.c -o x.o
buildbee status --json > status.json
buildbee stop > /dev/null
while [ -e run/s ]; do sleep 0.05; done
";

#[test]
fn a_filled_cache_on_a_disk_that_is_read_only_now_is_not_lost() {
    let place = Place::new();
    if run(&mut in_namespaces(&place, "mount -t tmpfs none /mnt")).code != Some(0) {
        return skipped("there are no user namespaces here");
    }
    place.write("x.c", "int x;\n");
    let cache = place.path("cache").display().to_string();
    let environment = [("BUILDBEE_CACHE_DIR", cache.as_str())];
    place.compiles_as_gcc_does_with("x.c", &environment);
    run(&mut place.buildbee(&["stop"]));
    wait("the daemon has left", || place.daemons().is_empty());
    let (before, object) = (place.snapshot("cache"), fs::read(place.path("x.o")).unwrap());
    let said = run(in_namespaces(&place, ON_A_READ_ONLY_DISK).envs(environment));
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""));
    assert_ne!(object, b"");
    let status: serde_json::Value = serde_json::from_slice(&fs::read(place.path("status.json")).unwrap()).unwrap();
    explains(status["warnings"][0].as_str().unwrap(), &["no local cache", "can't be written", "mounted read-write"]);
    assert_eq!(place.snapshot("cache"), before);
    assert_eq!(place.compiles_as_gcc_does_with("x.c", &environment).err, "");
    assert_eq!(place.json(&["stats"])["cached"], 1, "the cache has lost what it held");
}

#[test]
fn a_cache_of_a_newer_version_is_left_alone() {
    let place = Place::new();
    place.write("x.c", "int x;\n");
    place.compiles_as_gcc_does("x.c");
    run(&mut place.buildbee(&["stop"]));
    wait("the daemon has left", || place.daemons().is_empty());
    let cache = "home/.cache/buildbee";
    let format = format_file(&place, cache);
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, newer(&text)).unwrap();
    let before = place.snapshot(cache);
    assert_eq!(place.compiles_as_gcc_does("x.c").err, "");
    explains(&place.warnings(), &["no local cache", "format"]);
    assert!(place.json(&["status"])["cache"].is_null());
    let usage = run(&mut place.buildbee(&["cache", "usage"]));
    assert!(usage.out.contains("there is no local cache"), "{usage:?}");
    run(&mut place.buildbee(&["stop"]));
    wait("the daemon has left", || place.daemons().is_empty());
    assert_eq!(place.snapshot(cache), before, "the newer version's cache was touched");
    fs::write(&format, text).unwrap();
    place.compiles_as_gcc_does("x.c");
    assert_eq!(place.json(&["stats"])["cached"], 1, "the cache has lost what it held");
}

/// The file that says which version wrote a store.
pub(crate) fn format_file(place: &Place, store: &str) -> std::path::PathBuf {
    let found = place.snapshot(store).into_keys().find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().contains("format")) && path.is_file()
    });
    found.unwrap_or_else(|| panic!("no format file in {store}"))
}

/// The same with a number that no program knows yet.
pub(crate) fn newer(text: &str) -> String {
    let at = text.rfind(|letter: char| letter.is_ascii_digit()).unwrap();
    format!("{}99{}", &text[..at], &text[at + 1..])
}

#[test]
fn a_folder_that_is_no_cache_is_left_alone() {
    let place = Place::new();
    place.write("x.c", "int x;\n");
    place.write("photos/cat.jpg", "meow\n");
    let before = place.snapshot("photos");
    let photos = place.path("photos").display().to_string();
    assert_eq!(place.compiles_as_gcc_does_with("x.c", &[("BUILDBEE_CACHE_DIR", &photos)]).err, "");
    explains(&place.warnings(), &["no local cache", "is not a store", "cat.jpg"]);
    assert_eq!(run(&mut place.buildbee(&["cache", "clear"])).code, Some(0));
    assert_eq!(place.snapshot("photos"), before);
}
