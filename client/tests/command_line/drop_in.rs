//! Builds that know nothing of buildbee: links, variables, compilers behind scripts and other wrappers, cleared environments.

use std::process::Command;

use crate::home::Home;

/// What `explain` says of the last action.
fn last_reason(home: &Home) -> String {
    let last = home.document(&["explain", "--json", "--last", "1"]);
    last["actions"][0]["reason"].as_str().unwrap_or_default().to_owned()
}

/// Makes another wrapper, and a folder with a link to it that stands in for gcc.
const STAND_IN: &str = r#"
printf '#!/bin/sh\ncase $0 in *gcc) exec /usr/bin/gcc "$@";; *) exec "$@";; esac\n' > ccache
chmod 755 ccache
mkdir others
ln -s ../ccache others/gcc
"#;

/// Runs a script that must succeed, with the variables and in the folder of `home`.
fn shell(home: &Home, script: &str) {
    let wrapper = home.command(&[]);
    let variables = wrapper.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-ec", script]).env_clear().envs(variables).current_dir(home.path(""));
    assert!(shell.status().unwrap().success(), "{script}");
}

#[test]
fn links_stand_in_for_compilers_that_come_later_in_path() {
    let home = Home::new();
    let links = home.path("my links");
    let said = home.says(&["install-links", "my links"]);
    assert!(said.contains(&format!("export PATH='{}':\"$PATH\"", links.display())), "{said}");
    assert!(std::fs::read_link(links.join("gcc")).unwrap().ends_with("buildbee"));
    assert!(!links.join("gcc-ar").exists());
    // The link, then a folder of another wrapper, then the compiler.
    shell(&home, STAND_IN);
    let path = format!("{}:{}:/usr/bin:/bin", links.display(), home.path("others").display());
    for expected in ["local", "cached"] {
        shell(&home, &format!("PATH='{path}' && exec gcc -c x.c"));
        let last = home.document(&["explain", "--json", "--last", "1"])["actions"][0].clone();
        assert_eq!((last["where"].as_str(), last["compiler"].as_str()), (Some(expected), Some("/usr/bin/gcc")));
    }
    assert!(home.says(&["install-links", "--remove", "my links"]).starts_with("removed "));
    assert!(!links.join("gcc").exists());
}

#[test]
fn foreign_files_in_a_folder_of_links_stay() {
    let home = Home::new();
    std::fs::create_dir(home.path("links")).unwrap();
    std::fs::write(home.path("links/gcc"), "mine").unwrap();
    let output = home.run(&["install-links", "links", "--force"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("left alone: ") && said.contains("links/gcc ") && said.contains("hint: "), "{said}");
    assert_eq!(std::fs::read_to_string(home.path("links/gcc")).unwrap(), "mine");
}

#[test]
fn one_evaluated_line_sets_up_a_shell() {
    let home = Home::new();
    let script =
        "eval \"$(buildbee env)\" && $CC -c x.c && $CMAKE_C_COMPILER_LAUNCHER $CC -c x.c -o y.o && cmp x.o y.o";
    shell(&home, script);
    let stats = home.document(&["stats", "--json"]);
    assert_eq!(stats["local"].as_u64(), Some(2), "both words of CC were one compile: {stats:#}");
    home.says(&["install-links", "links"]);
    shell(
        &home,
        "eval \"$(buildbee env --links links)\" && test \"$(command -v gcc)\" = \"$PWD/links/gcc\" && gcc -c x.c",
    );
    let (code, said) = home.complains(&["env", "--links", "nowhere"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("holds no links") && said.contains("hint: `buildbee install-links "), "{said}");
}

#[test]
fn what_stands_before_a_compiler_runs_locally_with_the_reason() {
    let home = Home::new();
    let script = home.path("gcc");
    // Written by another process: see the text file busy race.
    let write = "printf '#!/bin/sh\\nexec /usr/bin/gcc \"$@\"\\n' > gcc && chmod 755 gcc";
    shell(&home, write);
    home.says(&[script.to_str().unwrap(), "-c", "x.c"]);
    assert_eq!(last_reason(&home), "wrapper-script");
    assert!(home.says(&["explain", "--last", "1"]).contains("hint      name the compiler that it runs"));
    shell(&home, STAND_IN);
    let link = home.path("others/gcc");
    for (words, reason) in [
        (["./ccache", "gcc", "-c", "x.c"].as_slice(), "another-wrapper"),
        (&[link.to_str().unwrap(), "-c", "x.c"], "another-wrapper"),
        (&["others/gcc", "-c", "x.c"], "relative-compiler"),
    ] {
        home.says(words);
        assert_eq!(last_reason(&home), reason, "{words:?}");
    }
}

#[test]
fn a_caller_without_an_environment_reaches_a_daemon() {
    let home = Home::new();
    let socket = home.path("buildbee/daemon.sock");
    let output = home
        .command(&["gcc", "-c", "x.c"])
        .env_clear()
        .env("BUILDBEE_SOCKET", &socket)
        .env("BUILDBEE_STATE_DIR", home.path("state"))
        .env("BUILDBEE_CACHE_DIR", home.path("cache"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(home.document(&["stats", "--json"])["local"].as_u64(), Some(1));
}

#[test]
fn another_compiler_proper_behind_the_same_driver_is_a_miss() {
    let home = Home::new();
    // A compiler of our own: the driver finds its parts beside itself.
    let make = "version=$(gcc -dumpversion); target=$(gcc -dumpmachine); parts=lib/gcc/$target/$version; \
                mkdir -p bin $parts && cp \"$(readlink -f /usr/bin/gcc)\" bin/gcc && cp \"$(gcc -print-prog-name=cc1)\" $parts/cc1 && echo $parts/cc1";
    let made = Command::new("sh").args(["-c", make]).current_dir(home.path("")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let proper = String::from_utf8(made.stdout).unwrap();
    let place = || home.document(&["explain", "--json", "--last", "1"])["actions"][0]["where"].clone();
    let gcc = home.path("bin/gcc");
    for expected in ["local", "cached"] {
        home.says(&[gcc.to_str().unwrap(), "-c", "x.c"]);
        assert_eq!(place(), expected);
    }
    let change = format!("cp {0} new && printf x >> new && mv new {0}", proper.trim());
    shell(&home, &change);
    home.says(&[gcc.to_str().unwrap(), "-c", "x.c"]);
    assert_eq!(place(), "local", "another cc1");
}
