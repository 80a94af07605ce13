//! Which program is run: compilers by name, by path, behind links; the command line; nothing.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::stage::{Stage, stderr, stdout};

/// `BUILDBEE=off` shows what would be run without any daemon.
fn off(stage: &Stage, program: &Path, path: &str) -> std::process::Command {
    let mut command = stage.started_as(program);
    command.env("BUILDBEE", "off").env("PATH", path);
    command
}

#[test]
fn off_becomes_the_compiler() {
    let stage = Stage::new();
    let output = off(&stage, &stage.path("bin/buildbee"), "/usr/bin:/bin")
        .args(["sh", "-c", "echo $0 $1 $BUILDBEE_WRAPPED; exit 9", "name", "argument"])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(9), "name argument 1\n"));
    assert!(!stage.path("s.starting").exists(), "no daemon is looked for");
}

#[test]
fn links_stand_in_for_the_next_compiler_in_path() {
    let stage = Stage::new();
    std::fs::create_dir(stage.path("links")).unwrap();
    std::fs::create_dir(stage.path("real")).unwrap();
    symlink(stage.path("bin/buildbee"), stage.path("links/kcc")).unwrap();
    stage.script("real/kcc", "echo \"real $0 $*\"");
    let path = format!("{}:{}", stage.path("links").display(), stage.path("real").display());
    let real = stage.path("real/kcc").display().to_string();
    let masquerade = off(&stage, Path::new("kcc"), &path).args(["-c", "status"]).output().unwrap();
    assert_eq!(stdout(&masquerade), format!("real {real} -c status\n"));
    let by_name = off(&stage, &stage.path("bin/buildbee"), &path).args(["kcc", "-c"]).output().unwrap();
    assert_eq!(stdout(&by_name), format!("real {real} -c\n"));
    let only_links = off(&stage, Path::new("kcc"), &stage.path("links").display().to_string()).output().unwrap();
    assert_eq!(only_links.status.code(), Some(127));
    assert!(stderr(&only_links).starts_with("buildbee: kcc: command not found\nhint: "), "{}", stderr(&only_links));
}

#[test]
fn two_copies_do_not_run_each_other_for_ever() {
    let stage = Stage::new();
    for folder in ["one", "two"] {
        std::fs::create_dir(stage.path(folder)).unwrap();
        let copy = stage.path(folder).join("kcc");
        assert!(std::process::Command::new("cp").args([stage.path("bin/buildbee"), copy]).status().unwrap().success());
    }
    let path = format!("{}:{}", stage.path("one").display(), stage.path("two").display());
    let output = off(&stage, Path::new("kcc"), &path).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(stderr(&output).contains("another buildbee"), "{}", stderr(&output));
}

#[test]
fn a_compiler_that_calls_the_wrapper_ends_in_a_plain_run() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(false);
    });
    let script = stage.script("wrapped-cc", "exec bin/buildbee sh -c 'echo inner $BUILDBEE_WRAPPED'");
    let output = stage.wrapper().arg(script).output().unwrap();
    assert_eq!(stdout(&output), "inner 2\n");
    // One conversation only: the daemon accepts no second.
    daemon.join().unwrap();
}

#[test]
fn what_is_not_there_is_said() {
    let stage = Stage::new();
    std::fs::write(stage.path("text"), "no program").unwrap();
    let cases = [
        ("gccc", 127, "gccc: command not found"),
        ("./none", 127, "command not found"),
        ("./text", 126, "not an executable"),
    ];
    for (name, code, text) in cases {
        let output = stage.wrapper().args([name, "-c", "x.c"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}");
        assert!(stderr(&output).contains(text) && stderr(&output).contains("\nhint: "), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn words_go_to_the_command_line_beside_this_executable() {
    let stage = Stage::new();
    stage.script("bin/buildbee-cli", "echo \"cli $*\"; exit 4");
    // Through a link in another folder: what counts is where the executable is.
    symlink(stage.path("bin/buildbee"), stage.path("buildbee")).unwrap();
    let output = stage.started_as(&stage.path("buildbee")).args(["stats", "--json"]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(4), "cli stats --json\n"));
    assert_eq!(stdout(&stage.wrapper().output().unwrap()), "cli help\n");
    assert_eq!(stdout(&stage.wrapper().arg("--version").output().unwrap()), "cli --version\n");
}

#[test]
fn a_missing_command_line_is_said() {
    let stage = Stage::new();
    let output = stage.wrapper().arg("stats").output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(stderr(&output).contains("buildbee-cli") && stderr(&output).contains("hint: "), "{}", stderr(&output));
}

#[test]
fn standard_input_reaches_the_compiler() {
    let stage = Stage::new();
    std::fs::write(stage.path("x.c"), "int main(void) { return 0; }\n").unwrap();
    let output = off(&stage, &stage.path("bin/buildbee"), "/usr/bin:/bin")
        .args(["gcc", "-x", "c", "-E", "-P", "-"])
        .stdin(std::fs::File::open(stage.path("x.c")).unwrap())
        .output()
        .unwrap();
    assert_eq!(stdout(&output).trim(), "int main(void) { return 0; }");
}
