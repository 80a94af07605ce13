//! What `explain` says of compiles that were just made.

use serde_json::Value;

use crate::home::Home;

/// The newest action about `file`.
fn explained(home: &Home, file: &str) -> Value {
    home.document(&["explain", file, "--json"])["actions"][0].clone()
}

fn differences(action: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = action["miss"]["differences"].as_array().unwrap();
    list.iter().map(|found| (text(&found["kind"]), text(&found["name"]) + &text(&found["now"]))).collect()
}

#[test]
fn a_miss_names_what_differs_from_the_nearest_compile_before() {
    let home = Home::new();
    std::fs::write(home.path("a.h"), "int a;\n").unwrap();
    std::fs::write(home.path("y.c"), "#include \"a.h\"\n").unwrap();
    home.says(&["gcc", "-c", "y.c"]);
    let first = explained(&home, "y.c");
    assert_eq!((first["where"].as_str(), first["miss"]["because"].as_str()), (Some("local"), Some("first-time")));
    assert!(first["inputs"]["files"].as_u64() >= Some(2), "{first:#}");
    for stage in ["toolchain", "inputs", "run"] {
        assert!(first["stages_ms"][stage].as_f64().is_some_and(|time| time > 0.0), "{stage}: {first:#}");
    }
    home.says(&["gcc", "-c", "y.c"]);
    let hit = explained(&home, "y.o");
    assert_eq!((hit["where"].as_str(), &hit["miss"], &hit["inputs"]), (Some("cached"), &Value::Null, &Value::Null));
    home.says(&["gcc", "-O2", "-c", "y.c"]);
    let option = explained(&home, "y.c");
    assert_eq!(option["miss"]["because"], "command-changed");
    assert_eq!(differences(&option), [("argument".into(), "-O2".into())]);
    std::fs::write(home.path("a.h"), "int other;\n").unwrap();
    home.says(&["gcc", "-O2", "-c", "y.c"]);
    let header = explained(&home, "y.c");
    assert_eq!(header["miss"]["because"], "inputs-changed");
    assert_eq!(differences(&header)[0].0, "input");
    assert!(differences(&header)[0].1.contains("/a.h"), "{header:#}");
    let output = home.command(&["gcc", "-c", "y.c"]).env("SOURCE_DATE_EPOCH", "1").output().unwrap();
    assert!(output.status.success());
    assert!(home.says(&["explain", "y.c"]).contains("variable SOURCE_DATE_EPOCH: 1 (was not set)"));
}

#[test]
fn a_file_is_meant_by_any_of_its_names() {
    let home = Home::new();
    std::fs::create_dir(home.path("build")).unwrap();
    std::fs::create_dir(home.path("other")).unwrap();
    std::os::unix::fs::symlink(home.path(""), home.path("link")).unwrap();
    let compiled =
        home.command(&["gcc", "-c", "../x.c", "-o", "x.o"]).current_dir(home.path("build")).output().unwrap();
    assert!(compiled.status.success());
    let names = ["x.c", "build/x.o", "./build/../x.c", "link/x.c", "../x"];
    for name in names {
        assert!(home.says(&["explain", name]).starts_with("../x.c: local"), "{name}");
    }
    let from = |folder: &str, name: &str| {
        let said = home.command(&["explain", name]).current_dir(home.path(folder)).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    assert!(from("build", "x.o").starts_with("../x.c: "));
    assert!(from("other", "no.c").starts_with("no such action"));
    assert!(home.says(&["explain", "--last"]).contains("folder    "));
    home.says(&["gcc", "--version"]);
    assert_eq!(home.document(&["explain", "--json", "--last", "2"])["actions"].as_array().map(Vec::len), Some(2));
    assert!(home.says(&["explain", "--last"]).contains("hint      nothing: such commands always run here"));
}

#[test]
fn without_a_daemon_there_is_nothing_to_tell() {
    let home = Home::new();
    for arguments in [["explain", "--last"].as_slice(), &["explain", "x.c"], &["explain", "--json"]] {
        let (code, said) = home.complains(arguments);
        assert_eq!(code, Some(1));
        assert!(said.starts_with("error: no daemon is running\nhint: compile something first"), "{said}");
    }
    assert!(!home.path("buildbee/daemon.sock").exists(), "none is started for a question about the past");
}
