//! The daemon absent, dying at each point, frozen, or talking nonsense: the compiler runs all the same.

use std::os::unix::net::UnixListener;
use std::process::Output;
use std::time::{Duration, Instant};

use buildbee_proto::codec::to_frame;
use buildbee_proto::local::LocalReply;

use crate::stage::{Caller, Stage, done, stderr, stdout};

fn compile(stage: &Stage) -> Output {
    std::fs::write(stage.path("x.c"), "int x;\n").unwrap();
    stage.wrapper().args(["gcc", "-c", "x.c"]).output().unwrap()
}

fn assert_compiled(stage: &Stage, output: &Output) {
    assert_eq!((output.status.code(), stdout(output), stderr(output)), (Some(0), "", ""));
    assert!(stage.path("x.o").exists());
}

#[test]
fn a_daemon_that_dies_at_any_point_is_not_seen() {
    type Play = fn(Caller);
    let plays: [Play; 8] = [
        drop,
        |mut caller| drop(caller.invocation()),
        |mut caller| {
            caller.invocation();
            caller.say(&LocalReply::Working);
        },
        |mut caller| {
            caller.invocation();
            let frame = to_frame(&done(5, "never", "shown")).unwrap();
            caller.say_bytes(&frame[..frame.len() - 1]);
        },
        |mut caller| {
            caller.invocation();
            caller.say_bytes(&[3, 0, 0, 0, 200, 200, 200]);
        },
        |mut caller| {
            caller.invocation();
            caller.say_bytes(&[0xff; 64]);
        },
        |mut caller| {
            caller.invocation();
            caller.say(&LocalReply::WrongVersion { version: 99 });
        },
        |mut caller| {
            caller.invocation();
            caller.say(&LocalReply::Cancel);
        },
    ];
    for play in plays {
        let stage = Stage::new();
        let daemon = stage.daemon(play);
        assert_compiled(&stage, &compile(&stage));
        daemon.join().unwrap();
    }
}

#[test]
fn a_frozen_daemon_is_given_up() {
    let stage = Stage::new();
    // Accepts (the system does) and never reads.
    let _listener = UnixListener::bind(stage.socket()).unwrap();
    let start = Instant::now();
    assert_compiled(&stage, &compile(&stage));
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_daemon_that_freezes_later_is_given_up() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.say(&LocalReply::Working);
        caller.end();
    });
    let start = Instant::now();
    assert_compiled(&stage, &compile(&stage));
    assert!(start.elapsed() < Duration::from_secs(4));
    daemon.join().unwrap();
}

#[test]
fn no_daemon_and_none_to_start() {
    let stage = Stage::new();
    let start = Instant::now();
    assert_compiled(&stage, &compile(&stage));
    assert!(start.elapsed() < Duration::from_millis(900), "nothing to wait for");
    let strict = stage.wrapper().args(["gcc", "-c", "x.c"]).env("BUILDBEE", "strict").output().unwrap();
    assert_eq!(strict.status.code(), Some(1));
    assert!(stderr(&strict).starts_with("buildbee: strict: would run locally: no-daemon\n"), "{}", stderr(&strict));
}

#[test]
fn the_daemon_is_started_once_and_a_failure_remembered() {
    let stage = Stage::new();
    stage.script(
        "bin/buildbee-cli",
        &format!("echo \"$* $BUILDBEE_SOCKET${{MAKEFLAGS-}}\" >> '{}'; exit 1", stage.path("starts").display()),
    );
    for _ in 0..3 {
        std::fs::write(stage.path("x.c"), "int x;\n").unwrap();
        let output = stage.wrapper().args(["gcc", "-c", "x.c"]).env("MAKEFLAGS", "-j").output().unwrap();
        assert_compiled(&stage, &output);
    }
    let starts = std::fs::read_to_string(stage.path("starts")).unwrap();
    assert_eq!(starts, format!("daemon --background {}\n", stage.socket().display()));
}

#[test]
fn a_daemon_that_comes_up_is_used() {
    let stage = Stage::new();
    // The starter ends; somebody listens a moment later.
    stage.script("bin/buildbee-cli", &format!("touch '{}'", stage.path("started").display()));
    let (socket, started) = (stage.socket(), stage.path("started"));
    let daemon = std::thread::spawn(move || {
        crate::stage::wait_until("the daemon is started", || started.exists());
        std::thread::sleep(Duration::from_millis(100));
        let listener = UnixListener::bind(socket).unwrap();
        listener.accept().unwrap();
    });
    assert_compiled(&stage, &compile(&stage));
    daemon.join().unwrap();
    assert!(!stage.path("s.failed").exists());
}

#[test]
fn a_socket_path_that_is_too_long_is_said() {
    let stage = Stage::new();
    std::fs::write(stage.path("x.c"), "int x;\n").unwrap();
    let long = stage.path(&"s".repeat(200));
    let compile = |more: &[(&str, &str)]| {
        let mut wrapper = stage.wrapper();
        wrapper.args(["gcc", "-c", "x.c"]).env("BUILDBEE_SOCKET", &long).envs(more.iter().copied()).output().unwrap()
    };
    // A build script that tries an option takes any word for a refusal.
    assert_compiled(&stage, &compile(&[("CARGO_MANIFEST_DIR", "/p"), ("OUT_DIR", "/o")]));
    std::fs::remove_file(stage.path("x.o")).unwrap();
    let output = compile(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stage.path("x.o").exists());
    assert_eq!(stderr(&output).lines().count(), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("socket path") && stderr(&output).contains("\nhint: "), "{}", stderr(&output));
}

#[test]
fn a_compile_error_stays_one() {
    let stage = Stage::new();
    std::fs::write(stage.path("x.c"), "int x\n").unwrap();
    let output = stage.wrapper().args(["gcc", "-c", "x.c"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("error:"), "{}", stderr(&output));
}
