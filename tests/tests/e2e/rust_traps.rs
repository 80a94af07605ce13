//! What other caches have served wrongly: inputs that neither the command nor the dependency file names. Every build here is from clean,
//! where only the cache decides; what it serves must be made of what is there now, and what is there again must be a hit.

use std::fs;

use buildbee_tests::cargo::Checkout;

use crate::rust_builds::{Alone, with_paths};

/// `change` with each of these values: the application says so under `key`, and the second time everything is from the cache.
fn follows(paths: &str, key: &str, values: &[(&str, &str)], mut change: impl FnMut(&mut Checkout, &str)) {
    let Some(mut alone) = Alone::new(paths) else { return };
    alone.build_anew(&["build"]);
    for round in 0..2 {
        for (value, said) in values {
            change(&mut alone.checkout, value);
            let (cached, remote, local) = alone.says(key, said);
            assert!(
                round == 0 || (remote, local) == (0, 0),
                "{value}: {cached} cached: {}",
                alone.client.json(&["explain"])
            );
        }
    }
}

#[test]
fn a_macro_that_reads_the_environment() {
    let values = [("", "nothing"), ("one", "one"), ("two", "two")];
    follows("portable", "variable", &values, |checkout, value| {
        checkout.env.remove("MACRO_SEES");
        if !value.is_empty() {
            checkout.env.insert("MACRO_SEES".to_owned(), value.to_owned());
        }
    });
}

#[test]
fn a_macro_that_lists_a_folder() {
    let values =
        [("one", "a.txt=one"), ("two", "a.txt=two"), ("three", "a.txt=two,b.txt=three"), ("gone", "b.txt=three")];
    follows("portable", "pages", &values, |checkout, value| {
        let page = |name: &str| checkout.folder.join("app/pages").join(name);
        match value {
            "one" => {
                let _ = fs::remove_file(page("b.txt"));
                checkout.edit("app/pages/a.txt", "one\n");
            }
            "two" => checkout.edit("app/pages/a.txt", "two\n"),
            "three" => checkout.edit("app/pages/b.txt", "three\n"),
            _ => fs::remove_file(page("a.txt")).unwrap(),
        }
    });
}

/// The wrapper's own folders for temporary files are called so, and what is in them says nothing.
#[test]
fn a_checkout_that_is_called_like_a_scratch_folder() {
    let Some(mut alone) = Alone::new("portable") else { return };
    alone.checkout = with_paths(Checkout::write(alone.path("buildbee-work"), alone.path("home")), "portable");
    let temporary = alone.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    alone.checkout.env.insert("TMPDIR".to_owned(), temporary);
    for said in ["one", "two", "one"] {
        alone.checkout.edit("app/pages/a.txt", &format!("{said}\n"));
        alone.says("pages", &format!("a.txt={said}"));
    }
    assert_eq!(alone.build_anew(&["build"]).1, (8, 0, 0));
}

#[test]
fn a_static_library_made_anew_in_place() {
    follows("portable", "numbers", &[("1", "(1, 1)"), ("2", "(1, 2)")], |checkout, value| {
        checkout.edit("before/before.c", &format!("int before(void) {{ return {value}; }}\n"));
        checkout.make_library("before");
    });
}

#[test]
fn a_build_script_that_reads_the_git_head() {
    follows("portable", "head", &[("one", "one"), ("two", "two")], |checkout, value| checkout.edit(".git/HEAD", value));
}

#[test]
fn a_file_that_appears_beside_a_module() {
    // `part.rs` becomes `part/mod.rs`, and comes back.
    follows("portable", "word", &[("one", "one kept"), ("two", "two kept")], |checkout, value| {
        let (file, folder) = (checkout.folder.join("leaf/src/part.rs"), checkout.folder.join("leaf/src/part"));
        let _ = fs::remove_dir_all(&folder);
        let _ = fs::remove_file(&file);
        let name = if value == "one" { "leaf/src/part.rs" } else { "leaf/src/part/mod.rs" };
        checkout.edit(name, &format!("pub const WORD: &str = \"{value}\";\n"));
    });
}

#[test]
fn a_patched_crate_in_the_cargo_home() {
    follows("portable", "word", &[("kept", "one kept"), ("patched", "one patched")], |checkout, value| {
        let text = format!("pub fn word() -> &'static str {{ \"{value}\" }}\n");
        fs::write(checkout.home.join("kept/kept-1.0.0/src/lib.rs"), text).unwrap();
    });
}

#[test]
fn content_that_changes_behind_the_same_size_and_time() {
    follows("portable", "note", &[("one", "one"), ("two", "two"), ("six", "six")], |checkout, value| {
        checkout.edit("app/note.txt", value);
        let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
        let file = fs::File::options().write(true).open(checkout.folder.join("app/note.txt")).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(then)).unwrap();
    });
}

/// A crate that names its own folder: each checkout's program names its own, whoever built first.
#[test]
fn a_program_names_its_own_checkout() {
    for paths in ["portable", "exact"] {
        let Some(alone) = Alone::new(paths) else { return };
        let second = with_paths(Checkout::write(alone.path("elsewhere/work"), alone.path("home")), paths);
        for checkout in [&alone.checkout, &second] {
            let text = "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\nfn main() {\n    println!(\"config={CONFIG} {MADE_BY}\");\n    \
                        println!(\"folder={}\", env!(\"CARGO_MANIFEST_DIR\"));\n    println!(\"out={}\", env!(\"OUT_DIR\"));\n    \
                        println!(\"here={}\", middle::here());\n    println!(\"length={}\", env!(\"CARGO_MANIFEST_DIR\").len());\n}\n";
            checkout.edit("app/src/main.rs", text);
        }
        for checkout in [&alone.checkout, &second, &alone.checkout, &second] {
            checkout.clean();
            checkout.build(Some(&alone.client), &["build"]);
            let (says, app) = (checkout.says(), checkout.folder.join("app").display().to_string());
            assert_eq!(says["folder"], app, "{paths}");
            assert_eq!(says["length"], app.len().to_string(), "{paths}");
            let out = checkout.folder.join("target/debug/build").display().to_string();
            assert!(says["out"].starts_with(&out), "{paths}: {says:?}");
        }
    }
}

/// Sources of the macro crate whose `variable!` is `body`, an expression of type `String`.
pub(crate) fn macros(body: &str) -> String {
    format!(
        "extern crate proc_macro;\nuse proc_macro::TokenStream;\n\
         fn value() -> String {{ {body} }}\n\
         #[proc_macro] pub fn variable(_: TokenStream) -> TokenStream {{ format!(\"{{:?}}\", value()).parse().unwrap() }}\n\
         #[proc_macro] pub fn pages(_: TokenStream) -> TokenStream {{ \"\\\"none\\\"\".parse().unwrap() }}\n"
    )
}

#[test]
fn a_macro_that_starts_a_program() {
    let text = macros(
        "let said = std::process::Command::new(\"sh\").args([\"-c\", \"cat app/said.txt; ls app/pages\"]).output().unwrap();\n    \
         String::from_utf8(said.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(\" \")",
    );
    let Some(alone) = Alone::new("portable") else { return };
    alone.checkout.edit("macros/src/lib.rs", &text);
    // Whether such a crate is kept at all is another matter.
    for (value, said) in [("one", "one a.txt"), ("two", "two a.txt"), ("more", "two a.txt b.txt"), ("one", "one a.txt")]
    {
        let _ = fs::remove_file(alone.checkout.folder.join("app/pages/b.txt"));
        match value {
            "more" => alone.checkout.edit("app/pages/b.txt", ""),
            value => alone.checkout.edit("app/said.txt", &format!("{value}\n")),
        }
        alone.says("variable", said);
    }
}

#[test]
fn a_macro_that_asks_whether_a_file_is_there() {
    let text = macros(
        "let folder = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();\n    \
         format!(\"{}\", std::path::Path::new(&folder).join(\"../outside.txt\").exists())",
    );
    follows("portable", "variable", &[("absent", "false"), ("present", "true")], |checkout, value| {
        checkout.edit("macros/src/lib.rs", &text);
        let _ = fs::remove_file(checkout.folder.join("outside.txt"));
        if value == "present" {
            checkout.edit("outside.txt", "");
        }
    });
}

#[test]
fn a_second_file_for_a_module_is_an_error() {
    let Some(alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    alone.checkout.edit("leaf/src/part/mod.rs", "pub const WORD: &str = \"two\";\n");
    alone.checkout.clean();
    let failed = alone.checkout.try_build(Some(&alone.client), &["build"]);
    assert!(!failed.output.status.success(), "which file is the module's is ambiguous");
    assert!(failed.messages.iter().any(|message| message.contains("E0761")), "{:?}", failed.messages);
    fs::remove_dir_all(alone.checkout.folder.join("leaf/src/part")).unwrap();
    assert_eq!(alone.says("word", "one kept"), (8, 0, 0));
}

#[test]
fn a_library_that_appears_earlier_on_the_search_path() {
    follows("portable", "numbers", &[("", "(1, 1)"), ("7", "(1, 7)")], |checkout, value| {
        // As in `RUSTFLAGS`, where a path can't have a space in it.
        let flags = format!("-L\x1fnative={}", checkout.folder.join("early").display());
        checkout.env.insert("CARGO_ENCODED_RUSTFLAGS".to_owned(), flags);
        let _ = fs::remove_dir_all(checkout.folder.join("early"));
        fs::create_dir(checkout.folder.join("early")).unwrap();
        if !value.is_empty() {
            checkout.edit("early/before.c", &format!("int before(void) {{ return {value}; }}\n"));
            let line = "gcc -O1 -c before.c -o before.o && ar crD libbefore.a before.o";
            let mut made = buildbee_tests::client::plain("sh");
            made.args(["-c", line]).current_dir(checkout.folder.join("early"));
            assert!(made.status().unwrap().success());
        }
    });
}

/// What a program says of a shared library that it was linked with is in the library alone.
#[test]
fn a_shared_library_made_anew_in_place() {
    let Some(mut alone) = Alone::new("portable") else { return };
    let flags = format!("-L\x1fnative={}\x1f-lprobe", alone.path("shared").display());
    alone.checkout.env.insert("CARGO_ENCODED_RUSTFLAGS".to_owned(), flags);
    // Build scripts get the flags, too, and need nothing of the library.
    let main = "extern \"C\" { fn probe() -> i32; }\nfn main() { println!(\"probe={}\", unsafe { probe() }); }\n";
    alone.checkout.edit("app/src/main.rs", main);
    alone.checkout.edit("shared.c", "int probe(void) { return 1; }\n");
    fs::create_dir(alone.path("shared")).unwrap();
    for (n, name) in ["libprobe.so", "libprobe.so.5", "libprobe.so", "libprobe.so.5"].into_iter().enumerate() {
        let mut made = buildbee_tests::client::plain("gcc");
        made.args(["-shared", "-fPIC", "shared.c", &format!("-Wl,-soname,{name}"), "-o"])
            .arg(alone.path("shared/libprobe.so"));
        assert!(made.current_dir(&alone.checkout.folder).status().unwrap().success());
        let _ = fs::remove_file(alone.path("shared/libprobe.so.5"));
        fs::copy(alone.path("shared/libprobe.so"), alone.path("shared/libprobe.so.5")).unwrap();
        let (_, (_, _, local)) = alone.build_anew(&["build"]);
        assert_eq!(local == 0, n > 1, "{name}: {}", alone.client.json(&["explain"]));
        let app = fs::read(alone.checkout.folder.join("target/debug/app")).unwrap();
        let has = app.windows(13).any(|bytes| bytes == b"libprobe.so.5");
        assert_eq!(has, name.ends_with('5'), "the program of another library was served");
    }
}

#[test]
fn another_linker_earlier_on_the_path() {
    let Some(mut alone) = Alone::new("portable") else { return };
    alone.build_anew(&["build"]);
    let app = alone.checkout.folder.join("target/debug/app");
    let before = fs::read(&app).unwrap();
    let script = "#!/bin/sh\nexec /usr/bin/gcc \"$@\" -Wl,--build-id=0x62756c6b\n";
    alone.checkout.edit("bin/cc", script);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(alone.checkout.folder.join("bin/cc"), mode).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the linker goes before what is there")]
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{path}", alone.checkout.folder.join("bin").display(), alone.client.programs.display());
    alone.checkout.env.insert("PATH".to_owned(), path);
    alone.build_anew(&["build"]);
    let marked = fs::read(&app).unwrap();
    assert!(marked.windows(4).any(|bytes| bytes == b"bulk"), "another linker's program was served");
    alone.checkout.env.remove("PATH");
    alone.build_anew(&["build"]);
    assert!(fs::read(&app).unwrap() == before, "the other linker's program was served");
}

#[test]
fn a_variable_that_the_compiler_itself_reads() {
    let Some(mut alone) = Alone::new("portable") else { return };
    alone.checkout.edit(
        "leaf/src/lib.rs",
        "#![feature(never_type)]\nmod part;\npub fn word() -> String { part::WORD.to_owned() }\n",
    );
    alone.checkout.env.insert("RUSTC_BOOTSTRAP".to_owned(), "1".to_owned());
    assert_eq!(alone.says("word", "one kept").1, 0);
    assert_eq!(alone.says("word", "one kept"), (8, 0, 0), "{}", alone.client.json(&["explain"]));
    alone.checkout.env.remove("RUSTC_BOOTSTRAP");
    alone.checkout.clean();
    let plain = alone.checkout.try_build(None, &["build"]);
    alone.checkout.clean();
    let built = alone.checkout.try_build(Some(&alone.client), &["build"]);
    // A nightly compiler accepts it, a released one does not.
    assert_eq!(plain.output.status.success(), built.output.status.success());
}

#[test]
fn a_version_in_the_manifest() {
    let values = [("0.1.0", "0.1.0"), ("0.2.0", "0.2.0")];
    follows("portable", "version", &values, |checkout, value| {
        let folder = &checkout.folder;
        let manifest = fs::read_to_string(folder.join("app/Cargo.toml")).unwrap();
        let old = if value == "0.1.0" { "version = \"0.2.0\"" } else { "version = \"0.1.0\"" };
        checkout.edit("app/Cargo.toml", &manifest.replacen(old, &format!("version = \"{value}\""), 1));
        checkout.edit("app/src/main.rs", "fn main() { println!(\"version={}\", env!(\"CARGO_PKG_VERSION\")); }\n");
    });
}

/// A file that changes after it was read and before the compile ends: what comes out is not kept for the new content.
#[test]
fn a_source_that_changes_while_it_is_compiled() {
    let Some(alone) = Alone::new("portable") else { return };
    let text = macros(
        "std::fs::write(\"reached\", \"\").unwrap();\n    \
         for _ in 0..600 {\n        if std::path::Path::new(\"go\").exists() { break }\n        \
         std::thread::sleep(std::time::Duration::from_millis(50));\n    }\n    \"waited\".to_owned()",
    );
    alone.checkout.edit("macros/src/lib.rs", &text);
    let main = "fn main() {\n    println!(\"note={}\", include_str!(\"../note.txt\").trim());\n    println!(\"word={}\", macros::variable!());\n}\n";
    alone.checkout.edit("app/src/main.rs", main);
    let folder = &alone.checkout.folder;
    let mut cargo = alone.checkout.cargo(Some(&alone.client), &["build", "--quiet"]).spawn().unwrap();
    while !folder.join("reached").exists() {
        assert!(cargo.try_wait().unwrap().is_none(), "the macro was not reached");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    alone.checkout.edit("app/note.txt", "two");
    fs::write(folder.join("go"), "").unwrap();
    assert!(cargo.wait().unwrap().success());
    alone.says("note", "two");
    alone.checkout.edit("app/note.txt", "one");
    alone.says("note", "one");
}

/// A macro that spells the name of the folder in a way that no search for it finds.
#[test]
fn a_macro_that_hides_its_folder() {
    let Some(alone) = Alone::new("portable") else { return };
    let second = with_paths(Checkout::write(alone.path("elsewhere/work"), alone.path("home")), "portable");
    let macros = "extern crate proc_macro;\nuse proc_macro::TokenStream;\n\
                  #[proc_macro] pub fn variable(_: TokenStream) -> TokenStream {\n    \
                  format!(\"{:?}\", std::env::var(\"CARGO_MANIFEST_DIR\").unwrap().chars().rev().collect::<String>()).parse().unwrap()\n}\n\
                  #[proc_macro] pub fn pages(_: TokenStream) -> TokenStream { \"\\\"none\\\"\".parse().unwrap() }\n";
    for checkout in [&alone.checkout, &second] {
        checkout.edit("macros/src/lib.rs", macros);
    }
    for checkout in [&alone.checkout, &second, &alone.checkout, &second] {
        checkout.clean();
        checkout.build(Some(&alone.client), &["build"]);
        let reversed: String = format!("{}/app", checkout.folder.display()).chars().rev().collect();
        assert_eq!(checkout.says()["variable"], reversed);
    }
}

/// Nobody knows what the network will answer the next time.
#[test]
fn a_macro_that_asks_the_network() {
    let Some(alone) = Alone::new("portable") else { return };
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = macros(&format!(
        "use std::io::Read;\n    let mut said = String::new();\n    \
         std::net::TcpStream::connect(\"{}\").unwrap().read_to_string(&mut said).unwrap();\n    said",
        server.local_addr().unwrap()
    ));
    alone.checkout.edit("macros/src/lib.rs", &text);
    let serving = std::thread::spawn(move || {
        for answer in ["one", "two", "two"] {
            let (mut stream, _) = server.accept().unwrap();
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        }
    });
    for answer in ["one", "two", "two"] {
        alone.says("variable", answer);
        let reasons = alone.client.json(&["stats"])["reasons"].to_string();
        assert!(reasons.contains("network"), "{reasons}");
    }
    serving.join().unwrap();
}

/// A macro that leaves something behind: that is no output, so the compile is not replayed without it.
#[test]
fn a_macro_that_writes_a_file() {
    let Some(alone) = Alone::new("portable") else { return };
    let macros = "extern crate proc_macro;\nuse proc_macro::TokenStream;\n\
                  #[proc_macro] pub fn variable(_: TokenStream) -> TokenStream {\n    \
                  let path = std::path::Path::new(&std::env::var(\"CARGO_MANIFEST_DIR\").unwrap()).with_file_name(\"left.txt\");\n    \
                  std::fs::write(path, \"left\").unwrap();\n    \"\\\"written\\\"\".parse().unwrap()\n}\n\
                  #[proc_macro] pub fn pages(_: TokenStream) -> TokenStream { \"\\\"none\\\"\".parse().unwrap() }\n";
    alone.checkout.edit("macros/src/lib.rs", macros);
    for _ in 0..2 {
        let _ = fs::remove_file(alone.checkout.folder.join("left.txt"));
        alone.says("variable", "written");
        assert_eq!(fs::read_to_string(alone.checkout.folder.join("left.txt")).unwrap(), "left");
    }
}
