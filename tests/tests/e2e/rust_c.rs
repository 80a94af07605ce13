//! C in build scripts: objects with debug information, and the crates and programs that they get into, are the same in every checkout and home, and
//! are found there; whoever compiles them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use buildbee_tests::cargo::Checkout;
use buildbee_tests::project::{Files, assert_same};

use crate::rust_builds::{Alone, with_paths};

/// Compiles C as the `cc` crate does: in the package's folder, to objects in `OUT_DIR`. A source is named from there, one by its whole path, one is
/// assembler; headers are the package's own, made by the script, and another folder's.
const SCRIPT: &str = r#"use std::{env, fs, process::Command};
fn run(command: &mut Command) { assert!(command.status().unwrap().success(), "{command:?}"); }
fn main() {
    let [out, own] = ["OUT_DIR", "CARGO_MANIFEST_DIR"].map(|name| env::var(name).unwrap());
    let name = env::var("CARGO_PKG_NAME").unwrap();
    fs::write(format!("{out}/made.h"), "static inline int made(int a) { return a + 1; }\n").unwrap();
    let absolute = format!("{own}/c/two.c");
    let mut library = Command::new("ar");
    library.arg("crD").arg(format!("{out}/lib{name}_c.a"));
    for (object, source) in [("one", "c/one.c"), ("two", absolute.as_str()), ("three", "c/three.S")] {
        let object = format!("{out}/{object}.o");
        let mut compiler = Command::new("buildbee");
        compiler.args(["gcc", "-O0", "-ffunction-sections", "-fPIC", "-g", "-fno-omit-frame-pointer", "-Wall", "-I", "c", "-I", &out]);
        run(compiler.arg(format!("-DNAME={name}")).args(["-o", &object, "-c", source]));
        library.arg(object);
    }
    run(&mut library);
    println!("cargo:rustc-link-lib=static={name}_c\ncargo:rustc-link-search=native={out}");
}
"#;

const SOURCES: &[(&str, &str)] = &[
    ("c/own.h", "#define JOIN(a, b) a##b\n#define OF(a, b) JOIN(a, b)\n"),
    (
        "c/one.c",
        "#include <assert.h>\n#include <own.h>\n#include <made.h>\nint OF(NAME, _one)(int a) { assert(a); return made(a); }\n",
    ),
    ("c/two.c", "#include \"own.h\"\nconst char *OF(NAME, _two)(void) { return __FILE__; }\n"),
    ("c/three.S", "\t.text\n\tnop\n"),
];

/// Has a package compile C.
fn with_c(folder: &Path, name: &str) {
    for (file, text) in SOURCES.iter().chain(&[("build.rs", SCRIPT)]) {
        fs::create_dir_all(folder.join("c")).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }
    let library = format!(
        "use std::ffi::{{c_char, c_int, CStr}};\nextern \"C\" {{ fn {name}_one(a: c_int) -> c_int; fn {name}_two() -> *const c_char; }}\n\
         pub fn word() -> &'static str {{ unsafe {{ assert!({name}_one(1) == 2); CStr::from_ptr({name}_two()).to_str().unwrap() }} }}\n"
    );
    fs::write(folder.join("src/lib.rs"), library).unwrap();
}

/// The workspace, none of whose macros asks where it stands, with C in a crate of the cargo home and in a member.
fn prepare(checkout: &Checkout) {
    with_c(&checkout.home.join("kept/kept-1.0.0"), "kept");
    with_c(&checkout.folder.join("native"), "native");
    let main =
        "fn main() {\n    println!(\"word={}\", middle::word());\n    println!(\"native={}\", native::word());\n}\n";
    checkout.edit("app/src/main.rs", main);
}

/// What compilers and `ar` have made, by names without their folders' hashes, which cargo makes of the checkout's place.
fn made(checkout: &Checkout) -> Files {
    let mut files = checkout.files();
    files.retain(|name, _| {
        let suffix = Path::new(name).extension().unwrap_or_default();
        ["o", "a", "rlib", "rmeta"].iter().any(|known| suffix == *known) || name.ends_with("/app")
    });
    files
}

fn names() -> BTreeMap<String, String> {
    let names = [("native", "/proc/self/cwd/native/c/two.c"), ("word", "one /buildbee/cargo/kept/kept-1.0.0/c/two.c")];
    names.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[test]
fn c_of_build_scripts_is_shared_between_checkouts_and_homes() {
    let Some(alone) = Alone::new("portable") else { return };
    prepare(&alone.checkout);
    alone.build_anew(&["build"]);
    assert_eq!(alone.checkout.says(), names());
    let first = made(&alone.checkout);
    assert!(first.keys().filter(|name| name.contains(".o")).count() >= 6, "{:?}", first.keys());
    let foreign = alone.path("").display().to_string();
    for (name, (content, _)) in &first {
        assert!(!String::from_utf8_lossy(content).contains(foreign.trim_end_matches('/')), "{name} names its folder");
    }
    // Another place, another home, and a target folder that is not in the workspace.
    let second = Checkout::write(alone.path("another/and longer/place"), alone.path("home of another"));
    let mut second = with_paths(second, "portable");
    prepare(&second);
    for elsewhere in [false, true] {
        if elsewhere {
            second.env.insert("CARGO_TARGET_DIR".to_owned(), alone.path("objects/target").display().to_string());
        }
        alone.client.zero();
        second.build(Some(&alone.client), &["build"]);
        let (cached, remote, local) = alone.client.compiles();
        assert_eq!((remote, local), (0, 0), "{}", alone.client.json(&["explain"]));
        assert!(cached >= 8 + 6, "{cached}");
    }
    assert_same(&first, &made(&second));
    let explained = alone.client.json(&["explain", "--last", "40"]);
    let c = explained["actions"].as_array().unwrap().iter().find(|action| action["source"] == "c/one.c").unwrap();
    let added = c["added_arguments"].to_string();
    assert!(added.contains("=/buildbee/target") && added.contains("-ffile-prefix-map="), "{added}");
}

#[test]
fn without_a_daemon_c_gets_the_same_names() {
    for paths in ["portable", "exact"] {
        let Some(mut alone) = Alone::new(paths) else { return };
        prepare(&alone.checkout);
        alone.build_anew(&["build"]);
        assert_eq!(alone.checkout.says() == names(), paths == "portable", "{:?}", alone.checkout.says());
        let expected = made(&alone.checkout);
        alone.client.leave();
        alone.checkout.env.insert("BUILDBEE_SOCKET".to_owned(), "/dev/null/none".to_owned());
        alone.checkout.clean();
        alone.checkout.build(Some(&alone.client), &["build"]);
        assert_same(&expected, &made(&alone.checkout));
    }
}

#[test]
fn c_of_build_scripts_follows_its_headers_everywhere() {
    let Some(alone) = Alone::new("portable") else { return };
    prepare(&alone.checkout);
    alone.build_anew(&["build"]);
    let second = Checkout::write(alone.path("second"), alone.path("second home"));
    let second = with_paths(second, "portable");
    prepare(&second);
    second.edit("native/c/own.h", "#define JOIN(a, b) a##b\n#define OF(a, b) JOIN(a, b)\n#define __FILE__ \"other\"\n");
    second.build(Some(&alone.client), &["build"]);
    assert_eq!(second.says()["native"], "other");
    assert_eq!(alone.checkout.says(), names());
}
