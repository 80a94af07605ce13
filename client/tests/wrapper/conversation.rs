//! What the wrapper asks and what it makes of each answer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use buildbee_proto::codec::Bytes;
use buildbee_proto::local::LocalReply;

use crate::stage::{Stage, done, run_locally, stderr, stdout};

#[test]
fn the_question_holds_what_the_system_handed_over() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        let invocation = caller.invocation();
        caller.say(&done(0, "", ""));
        caller.end();
        invocation
    });
    let odd = OsStr::from_bytes(b"odd\xff\xfe");
    let output = stage.wrapper().args(["gcc", "-c"]).arg(odd).env("ODD", odd).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let invocation = daemon.join().unwrap();
    assert_eq!(invocation.program.0, b"/usr/bin/gcc");
    let argv: Vec<&[u8]> = invocation.argv.iter().map(|argument| argument.0.as_slice()).collect();
    assert_eq!(argv, [b"gcc", b"-c".as_slice(), b"odd\xff\xfe"]);
    assert!(invocation.env.contains(&Bytes(b"ODD=odd\xff\xfe".to_vec())));
    assert!(invocation.env.contains(&Bytes(b"PATH=/usr/bin:/bin".to_vec())));
    let folder = stage.path("").canonicalize().unwrap();
    assert_eq!(OsStr::from_bytes(&invocation.cwd.0), folder.as_os_str());
    assert!(!invocation.stdout_is_terminal && !invocation.stderr_is_terminal);
    assert_eq!(invocation.columns, None);
}

#[test]
fn the_umask_is_the_callers_and_stays() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        let invocation = caller.invocation();
        caller.run_locally(false);
        invocation.umask
    });
    let script = stage.script("cc", "umask");
    let output =
        stage.started_as("/bin/sh".as_ref()).args(["-c", "umask 027; exec bin/buildbee \"$0\""]).arg(script).output();
    assert_eq!(stdout(&output.unwrap()).trim_start_matches('0').trim(), "27");
    assert_eq!(daemon.join().unwrap(), 0o027);
}

#[test]
fn results_are_printed_whole() {
    let stage = Stage::new();
    let long = "x".repeat(3_000_000);
    let sent = long.clone();
    let daemon = stage.daemon(move |mut caller| {
        caller.invocation();
        caller.say(&LocalReply::Working);
        caller.say(&done(7, &sent, "warning\n"));
        caller.end();
    });
    let output = stage.wrapper().args(["gcc", "-c", "x.c"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(stdout(&output) == long);
    assert_eq!(stderr(&output), "warning\n");
    daemon.join().unwrap();
}

#[test]
fn a_failure_never_becomes_a_success() {
    for (code, seen) in [(256, 1), (-1, 255), (255, 255), (139, 139)] {
        let stage = Stage::new();
        let daemon = stage.daemon(move |mut caller| {
            caller.invocation();
            caller.say(&done(code, "", ""));
        });
        assert_eq!(stage.wrapper().arg("gcc").status().unwrap().code(), Some(seen), "{code}");
        daemon.join().unwrap();
    }
}

#[test]
fn a_working_daemon_is_waited_for() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(500));
            caller.say(&LocalReply::Working);
        }
        caller.say(&done(0, "late", ""));
        caller.end();
    });
    let output = stage.wrapper().args(["sh", "-c", "echo local"]).output().unwrap();
    assert_eq!(stdout(&output), "late");
    daemon.join().unwrap();
}

#[test]
fn strict_shows_the_reason() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        let invocation = caller.invocation();
        let LocalReply::RunLocally { report, extra_arguments, .. } = run_locally(true) else { unreachable!() };
        caller.say(&LocalReply::RunLocally {
            reason: "farm-busy".into(),
            report,
            extra_arguments,
            extra_env: vec![],
            recorder: None,
            strict_failure: true,
            own_temporary_dir: false,
        });
        invocation
    });
    let output = stage.wrapper().args(["sh", "-c", "echo ran"]).env("BUILDBEE", "strict").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).starts_with("buildbee: strict: would run locally: farm-busy\nhint: "),
        "{}",
        stderr(&output)
    );
    assert!(daemon.join().unwrap().env.contains(&Bytes(b"BUILDBEE=strict".to_vec())));
}

#[test]
fn strict_allows_what_the_daemon_allows() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(false);
    });
    let output = stage.wrapper().args(["sh", "-c", "echo ran"]).env("BUILDBEE", "strict").output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "ran\n"));
    daemon.join().unwrap();
}
