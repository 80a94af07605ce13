//! Edits of everything that a Rust build is made of: cargo rebuilds what it rebuilds plainly, each of those crates is looked up, and the
//! program is made of the new pieces. An edit that is taken back is a hit.

use std::collections::BTreeMap;
use std::fs;

use buildbee_tests::cargo::Checkout;
use buildbee_tests::client::plain;
use buildbee_tests::network::skipped;

use crate::rust_builds::Alone;
use crate::rust_traps::macros;

/// One edit: what it is, how it is done, what the application then says under which key.
struct Edit {
    what: &'static str,
    go: fn(&mut Checkout, &str),
    words: &'static [&'static str],
    key: &'static str,
    says: [&'static str; 2],
}

const EDITS: &[Edit] = &[
    Edit {
        what: "a module of the leaf",
        go: |checkout, to| checkout.edit("leaf/src/part.rs", &format!("pub const WORD: &str = \"{to}\";\n")),
        words: &["build"],
        key: "word",
        says: ["one kept", "two kept"],
    },
    Edit {
        what: "the application's own source",
        go: |checkout, to| swap(checkout, "app/src/main.rs", ["\"head={}\"", "\"head={}!\""], to),
        words: &["build"],
        key: "head",
        says: ["one", "one!"],
    },
    Edit {
        what: "a build script",
        go: |checkout, to| swap(checkout, "app/build.rs", ["MADE_BY: u32 = 1", "MADE_BY: u32 = 2"], to),
        words: &["build"],
        key: "config",
        says: ["one 1", "one 2"],
    },
    Edit {
        what: "an included file",
        go: |checkout, to| checkout.edit("app/note.txt", &format!("{to}\n")),
        words: &["build"],
        key: "note",
        says: ["one", "two"],
    },
    Edit {
        what: "what a build script reads",
        go: |checkout, to| checkout.edit("app/config.txt", to),
        words: &["build"],
        key: "config",
        says: ["one 1", "two 1"],
    },
    Edit {
        what: "the git head that a build script hands on",
        go: |checkout, to| checkout.edit(".git/HEAD", to),
        words: &["build"],
        key: "head",
        says: ["one", "two"],
    },
    Edit {
        what: "a C source of a build script",
        go: |checkout, to| {
            let value = if to == "one" { 1 } else { 2 };
            checkout.edit("native/value.c", &format!("int value(void) {{ return {value}; }}\n"));
        },
        words: &["build"],
        key: "numbers",
        says: ["(1, 1)", "(2, 1)"],
    },
    Edit {
        what: "a variable that option_env! names",
        go: |checkout, to| {
            checkout.env.insert("APP_SAYS".to_owned(), to.to_owned());
        },
        words: &["build"],
        key: "option",
        says: ["Some(\"one\")", "Some(\"two\")"],
    },
    Edit {
        what: "a variable that option_env! names and that is not set",
        go: |checkout, to| {
            checkout.env.remove("APP_SAYS");
            if to == "two" {
                checkout.env.insert("APP_SAYS".to_owned(), String::new());
            }
        },
        words: &["build"],
        key: "option",
        says: ["None", "Some(\"\")"],
    },
    Edit {
        what: "RUSTFLAGS",
        go: |checkout, to| {
            checkout.env.insert("RUSTFLAGS".to_owned(), if to == "one" { "" } else { "--cfg shout" }.to_owned());
        },
        words: &["build"],
        key: "word",
        says: ["one kept", "one? kept"],
    },
];

/// Has a source hold the first of two texts for "one", and the second for "two".
fn swap(checkout: &Checkout, name: &str, texts: [&str; 2], to: &str) {
    let [one, two] = texts;
    let text = fs::read_to_string(checkout.folder.join(name)).unwrap().replace(two, one);
    checkout.edit(name, &if to == "two" { text.replace(one, two) } else { text });
}

#[test]
fn what_cargo_rebuilds_is_looked_up_and_right() {
    let Some(mut alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    for edit in EDITS {
        // The first build of each edit's "one" is there already, or is made here.
        for (n, to) in ["one", "two", "one"].into_iter().enumerate() {
            (edit.go)(&mut alone.checkout, to);
            alone.client.zero();
            let built = alone.checkout.build(Some(&alone.client), edit.words);
            let (cached, remote, local) = alone.client.compiles();
            let says = alone.checkout.says();
            assert_eq!(says[edit.key], edit.says[usize::from(to == "two")], "{}, {to}: {says:?}", edit.what);
            // Build scripts' runs end in an entry of their own and are no artifacts of compilers.
            assert_eq!(cached + remote + local, built.compiled.len() as u64, "{}, {to}: {built:?}", edit.what);
            if n == 2 {
                assert_eq!((remote, local), (0, 0), "{}, back: {}", edit.what, alone.client.json(&["explain"]));
            }
        }
    }
    features(&alone);
    as_cargo_would(&alone);
}

fn features(alone: &Alone) {
    for (words, word, is_known) in [
        (&["build", "--features", "loud"][..], "one! kept", false),
        (&["build"][..], "one kept", true),
        (&["build", "--features", "loud"][..], "one! kept", true),
    ] {
        let (_, (_, _, local)) = alone.build_anew(words);
        assert_eq!(alone.checkout.says()["word"], word, "{words:?}");
        assert_eq!(local == 0, is_known, "{words:?}: {}", alone.client.json(&["explain"]));
    }
}

/// After all of it, a clean build still is what it was.
fn as_cargo_would(alone: &Alone) {
    alone.build_anew(&["build"]);
    let says: BTreeMap<String, String> = alone.checkout.says();
    alone.checkout.clean();
    alone.checkout.build(None, &["build"]);
    assert_eq!(alone.checkout.says(), says);
}

/// The same version of the same compiler, with other bytes in it.
#[test]
fn another_compiler_in_its_place() {
    let Some(mut alone) = Alone::new("portable") else { return };
    let sysroot = plain("rustc").args(["--print", "sysroot"]).output().unwrap();
    let (sysroot, own) = (String::from_utf8(sysroot.stdout).unwrap(), alone.path("compiler"));
    fs::create_dir_all(own.join("lib/rustlib")).unwrap();
    let line = "cp -al \"$1/bin\" \"$2/\" && cp -al \"$1\"/lib/lib* \"$2/lib/\" && cp -al \"$1\"/lib/rustlib/*-linux-* \"$2/lib/rustlib/\"";
    let mut linked = plain("sh");
    linked.args(["-c", line, "sh", sysroot.trim()]).arg(&own);
    if !linked.output().is_ok_and(|output| output.status.success()) {
        return skipped("the compiler can't be linked to, being another user's or on another file system");
    }
    let rustc = own.join("bin/rustc");
    alone.checkout.env.insert("RUSTC".to_owned(), rustc.display().to_string());
    let first = fs::read(&rustc).unwrap();
    let put = |bytes: &[u8]| {
        let new = own.join("bin/new");
        fs::write(&new, bytes).unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::rename(&new, &rustc).unwrap();
    };
    for (bytes, is_known) in [(&first[..], false), (&[&first[..], b"x"].concat()[..], false), (&first[..], true)] {
        put(bytes);
        let (cached, remote, local) = alone.says("word", "one kept");
        let expected = if is_known { (8, 0, 0) } else { (0, 0, 8) };
        assert_eq!((cached, remote, local), expected, "{}", alone.client.json(&["explain"]));
    }
}

#[test]
fn edits_behave_with_incremental_sessions_too() {
    let Some(mut alone) = Alone::new("portable") else { return };
    alone.checkout.env.insert("CARGO_INCREMENTAL".to_owned(), "1".to_owned());
    alone.build_anew(&["build"]);
    // From clean there is no session, so all of it is from the cache.
    assert_eq!(alone.build_anew(&["build"]).1, (8, 0, 0), "{}", alone.client.json(&["explain"]));
    for word in ["two", "three", "one"] {
        alone.checkout.edit("leaf/src/part.rs", &format!("pub const WORD: &str = \"{word}\";\n"));
        alone.checkout.build(Some(&alone.client), &["build"]);
        assert_eq!(alone.checkout.says()["word"], format!("{word} kept"));
    }
    assert_eq!(alone.says("word", "one kept"), (8, 0, 0), "{}", alone.client.json(&["explain"]));
}

#[test]
fn a_failing_build_says_what_cargo_says_until_it_is_mended() {
    let Some(alone) = Alone::new("exact") else { return };
    alone.build_anew(&["build"]);
    alone.checkout.edit("leaf/src/part.rs", "pub const WORD: &str = 1;\n");
    let words = &["build", "-p", "leaf"];
    let plain = alone.checkout.try_build(None, words);
    assert!(!plain.output.status.success());
    for counts in [(0, 0, 1), (1, 0, 0)] {
        alone.client.zero();
        let failed = alone.checkout.try_build(Some(&alone.client), words);
        assert_eq!((failed.output.status, &failed.messages), (plain.output.status, &plain.messages));
        assert_eq!(alone.client.compiles(), counts, "{}", alone.client.json(&["explain"]));
    }
    alone.checkout.edit("leaf/src/part.rs", "pub const WORD: &str = \"one\";\n");
    assert_eq!(alone.says("word", "one kept"), (8, 0, 0));
}

/// What a macro says of a failure may have any cause: it is asked again.
#[test]
fn a_macro_that_gives_up_may_succeed_the_next_time() {
    let Some(alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    alone.checkout.edit("macros/src/lib.rs", &macros("panic!(\"not today\")"));
    for _ in 0..2 {
        alone.client.zero();
        let failed = alone.checkout.try_build(Some(&alone.client), &["build"]);
        assert!(failed.messages.iter().any(|message| message.contains("not today")), "{:?}", failed.messages);
        assert!(alone.client.compiles().2 > 0, "{}", alone.client.json(&["explain"]));
    }
}

/// As build scripts do that try what the compiler can do: the compiler is started for the first one alone.
#[test]
fn a_trial_that_fails_is_not_run_twice() {
    let Some(alone) = Alone::new("portable") else { return };
    let script = "use std::{env, path::Path, process::Command};\nfn main() {\n    \
                  let (out, rustc) = (env::var(\"OUT_DIR\").unwrap(), env::var(\"RUSTC\").unwrap());\n    \
                  let mut trial = match env::var(\"RUSTC_WRAPPER\") { Ok(it) => { let mut it = Command::new(it); it.arg(rustc); it } Err(_) => Command::new(rustc) };\n    \
                  let works = trial.args([\"--crate-name=trial\", \"--crate-type=lib\", \"--emit=metadata\", \"trial.rs\", \"--out-dir\"]).arg(&out).output().unwrap();\n    \
                  assert!(String::from_utf8_lossy(&works.stderr).contains(\"E0554\"), \"{works:?}\");\n    \
                  assert!(!Path::new(&out).join(\"libtrial.rmeta\").exists());\n    \
                  println!(\"cargo:rustc-env=WORKS={:?}\", works.status.code());\n}\n";
    alone.checkout.edit("leaf/build.rs", script);
    alone.checkout.edit("leaf/trial.rs", "#![feature(rustc_attrs)]\n");
    alone.checkout.edit(
        "leaf/src/lib.rs",
        "mod part;\npub fn word() -> String { format!(\"{} {}\", part::WORD, env!(\"WORKS\")) }\n",
    );
    // A script is one more crate, and its trial another.
    assert_eq!(alone.says("word", "one Some(1) kept"), (0, 0, 10), "{}", alone.client.json(&["explain"]));
    assert_eq!(alone.says("word", "one Some(1) kept"), (10, 0, 0), "{}", alone.client.json(&["explain"]));
}

#[test]
fn a_program_and_a_library_of_one_name_have_sessions_of_their_own() {
    let Some(mut alone) = Alone::new("portable") else { return };
    alone.checkout.env.insert("CARGO_INCREMENTAL".to_owned(), "1".to_owned());
    alone.checkout.edit("app/src/lib.rs", "pub fn nothing() {}\n");
    assert_eq!(alone.build_anew(&["build"]).1, (0, 0, 9));
    assert_eq!(alone.build_anew(&["build"]).1, (9, 0, 0), "{}", alone.client.json(&["explain"]));
}
