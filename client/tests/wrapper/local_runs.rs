//! Compilers that the wrapper runs beside the farm: reported, cancelled, interrupted.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use buildbee_proto::codec::Bytes;
use buildbee_proto::local::LocalReply;
use buildbee_proto::record::{Kind, log_of};

use crate::stage::{Stage, done, runs, stderr, stdout, wait_until};

#[test]
fn the_daemon_hears_how_it_ended() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.say(&LocalReply::RunLocally {
            reason: "race".into(),
            report: true,
            extra_arguments: vec!["-c".into(), "echo out $0 $1; echo err $TMPDIR >&2; exit 6".into()],
            extra_env: vec![],
            recorder: None,
            strict_failure: false,
            own_temporary_dir: true,
        });
        let outcome = caller.local_done();
        caller.say(&LocalReply::Working);
        caller.say(&done(0, "ignored", "ignored"));
        caller.end();
        outcome
    });
    let output = stage.wrapper().args(["sh", "one", "two"]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(6), "out one two\n"));
    let outcome = daemon.join().unwrap();
    assert_eq!(outcome.exit_code, Some(6));
    assert_eq!(outcome.stdout, Bytes(b"out one two\n".to_vec()));
    assert_eq!(outcome.stderr.0, output.stderr);
    assert!(outcome.complete);
    assert!(stderr(&output).contains("/tmp/buildbee-"), "a folder of its own: {}", stderr(&output));
    stage.assert_tidy();
}

#[test]
fn a_run_that_nobody_kills_has_its_temporary_files_where_they_always_are() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.say(&LocalReply::RunLocally {
            reason: "no-farm".into(),
            report: true,
            extra_arguments: vec!["-c".into(), "echo $TMPDIR".into()],
            extra_env: vec![],
            recorder: None,
            strict_failure: false,
            own_temporary_dir: false,
        });
        caller.local_done();
        caller.say(&done(0, "", ""));
        caller.end();
    });
    let output = stage.wrapper().args(["sh"]).output().unwrap();
    daemon.join().unwrap();
    assert_eq!(stdout(&output).trim_end(), stage.path("tmp").to_str().unwrap());
    stage.assert_tidy();
}

#[test]
fn a_compiler_killed_by_a_signal_kills_the_wrapper_so() {
    for report in [true, false] {
        let stage = Stage::new();
        let daemon = stage.daemon(move |mut caller| {
            caller.invocation();
            caller.run_locally(report);
            if report {
                assert_eq!(caller.local_done().exit_code, Some(128 + 11));
                caller.say(&done(0, "", ""));
            }
        });
        let output = stage.wrapper().args(["sh", "-c", "kill -SEGV $$"]).output().unwrap();
        assert_eq!(output.status.signal(), Some(11));
        daemon.join().unwrap();
        stage.assert_tidy();
    }
}

/// Prints a line, leaves a temporary file and starts a grandchild that would go on; writes the numbers of both to `pids`.
const ENDLESS: &str = "echo begun; touch \"$TMPDIR/leftover\"; sleep 600 & echo $$ $! > pids; wait";

fn pids(stage: &Stage) -> Vec<String> {
    let mut found = Vec::new();
    wait_until("the compiler runs", || {
        let text = std::fs::read_to_string(stage.path("pids")).unwrap_or_default();
        found = text.split_whitespace().map(str::to_owned).collect();
        text.ends_with('\n')
    });
    found
}

#[test]
fn a_lost_race_leaves_no_process_and_no_file() {
    let stage = Stage::new();
    let file = stage.path("pids");
    let daemon = stage.daemon(move |mut caller| {
        caller.invocation();
        caller.run_locally(true);
        wait_until("the compiler runs", || std::fs::read_to_string(&file).unwrap_or_default().ends_with('\n'));
        caller.say(&LocalReply::Working);
        caller.say(&LocalReply::Cancel);
        let outcome = caller.local_done();
        let pids = std::fs::read_to_string(&file).unwrap();
        let alive: Vec<String> = pids.split_whitespace().filter(|pid| runs(pid)).map(str::to_owned).collect();
        caller.say(&done(0, "begun\nand done\n", "late warning\n"));
        caller.end();
        (outcome, alive)
    });
    let start = Instant::now();
    let output = stage.wrapper().args(["sh", "-c", ENDLESS]).output().unwrap();
    let (outcome, alive) = daemon.join().unwrap();
    assert_eq!(outcome.exit_code, None);
    assert_eq!(alive, Vec::<String>::new(), "gone before the daemon may place outputs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "begun\nand done\n", "what was printed is not printed again");
    assert_eq!(stderr(&output), "late warning\n");
    assert!(start.elapsed() < Duration::from_secs(5));
    stage.assert_tidy();
}

#[test]
fn what_a_loser_says_of_its_end_is_not_passed_on() {
    let stage = Stage::new();
    let file = stage.path("ready");
    let daemon = stage.daemon(move |mut caller| {
        caller.invocation();
        caller.run_locally(true);
        wait_until("the compiler runs", || file.exists());
        caller.say(&LocalReply::Cancel);
        caller.local_done();
        caller.say(&done(0, "", "warning\n"));
    });
    let script = "trap 'echo killed >&2; exit 1' TERM; touch ready; while :; do sleep 0.05; done";
    let output = stage.wrapper().args(["sh", "-c", script]).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), "warning\n"));
    daemon.join().unwrap();
}

#[test]
fn stubborn_compilers_are_killed() {
    let stage = Stage::new();
    let file = stage.path("pids");
    let daemon = stage.daemon(move |mut caller| {
        caller.invocation();
        caller.run_locally(true);
        wait_until("the compiler runs", || std::fs::read_to_string(&file).unwrap_or_default().ends_with('\n'));
        caller.say(&LocalReply::Cancel);
        caller.local_done();
        caller.say(&done(3, "", ""));
    });
    let script =
        "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 600 & wait\" & echo $$ $! > pids; while :; do sleep 1; done";
    let status = stage.wrapper().args(["sh", "-c", script]).status().unwrap();
    assert_eq!(status.code(), Some(3));
    assert!(pids(&stage).iter().all(|pid| !runs(pid)));
    daemon.join().unwrap();
}

#[test]
fn a_cancel_that_comes_too_late_gives_way_to_the_daemons_verdict() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(true);
        assert_eq!(caller.local_done().exit_code, Some(1));
        caller.say(&LocalReply::Cancel);
        caller.say(&done(0, "same\nmore\n", ""));
        caller.end();
    });
    let output = stage.wrapper().args(["sh", "-c", "echo same; exit 1"]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "same\nmore\n"));
    daemon.join().unwrap();
}

#[test]
fn a_running_compiler_outlives_the_daemon() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(true);
    });
    let script = "sleep 0.5; echo here; exit 5";
    let output = stage.wrapper().args(["sh", "-c", script]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(5), "here\n"));
    daemon.join().unwrap();
    stage.assert_tidy();
}

#[test]
fn a_daemon_that_dies_after_the_run_changes_nothing() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(true);
        caller.local_done();
    });
    let output = stage.wrapper().args(["sh", "-c", "echo once; exit 5"]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(5), "once\n"));
    daemon.join().unwrap();
}

#[test]
fn a_daemon_that_dies_after_cancelling_means_another_run() {
    let stage = Stage::new();
    let file = stage.path("ran");
    let daemon = stage.daemon(move |mut caller| {
        caller.invocation();
        caller.run_locally(true);
        wait_until("the compiler runs", || file.exists());
        caller.say(&LocalReply::Cancel);
        assert_eq!(caller.local_done().exit_code, None);
    });
    let script = "echo out; echo one >&2; [ -e ran ] && echo again && echo two >&2 && exit 2; touch ran; sleep 600";
    let output = stage.wrapper().args(["sh", "-c", script]).output().unwrap();
    // What the first run said is not said again.
    assert_eq!((output.status.code(), stdout(&output), stderr(&output)), (Some(2), "out\nagain\n", "one\ntwo\n"));
    daemon.join().unwrap();
    stage.assert_tidy();
}

/// The rest of what others have begun with, whoever says it in the end.
#[test]
fn a_run_that_is_cancelled_while_it_repeats_what_was_said_changes_nothing() {
    for dies in [true, false] {
        let stage = Stage::new();
        let file = stage.path("ran");
        std::fs::write(stage.path("x.rmeta"), "metadata").unwrap();
        let metadata = Bytes(stage.path("x.rmeta").as_os_str().as_bytes().to_vec());
        let daemon = stage.daemon(move |mut caller| {
            caller.invocation();
            caller.say(&LocalReply::Print { stderr: Bytes(b"one\ntwo\n".to_vec()), metadata, extra_arguments: vec![] });
            caller.run_locally(true);
            wait_until("the compiler runs", || file.exists());
            caller.say(&LocalReply::Cancel);
            caller.local_done();
            if !dies {
                caller.say(&done(0, "", "one\ntwo\nthree\n"));
                caller.end();
            }
        });
        let script = "echo one >&2; [ -e ran ] && { echo two >&2; echo three >&2; exit 0; }; touch ran; sleep 600";
        let output = stage.wrapper().args(["sh", "-c", script]).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), "one\ntwo\nthree\n"), "dies: {dies}");
        daemon.join().unwrap();
        stage.assert_tidy();
    }
}

#[test]
fn an_interrupted_wrapper_leaves_nothing() {
    for signal in ["TERM", "INT", "HUP"] {
        let stage = Stage::new();
        let daemon = stage.daemon(|mut caller| {
            caller.invocation();
            caller.run_locally(true);
            caller.end();
        });
        let script = format!("exec sh -c '{}'", ENDLESS.replace("wait", "exec sleep 601"));
        let mut wrapper = stage.wrapper().args(["sh", "-c", &script]).stdout(Stdio::null()).spawn().unwrap();
        let pids = pids(&stage);
        assert!(Command::new("kill").args(["-s", signal, &wrapper.id().to_string()]).status().unwrap().success());
        let status = wrapper.wait().unwrap();
        let number = Command::new("kill").args(["-l", signal]).output().unwrap();
        assert_eq!(status.signal(), Some(stdout(&number).trim().parse().unwrap()));
        assert!(!runs(&pids[0]), "the compiler ended before the wrapper");
        stage.assert_tidy();
        daemon.join().unwrap();
        // The sleeping grandchild is not the compiler's to end; the test's.
        let _ = Command::new("kill").arg(&pids[1]).status();
    }
}

/// Makes a folder, notes that as the recorder would, and goes on; another's is beside it.
const NOTING: &str = "mkdir rmetaAAAAAA rmetaBBBBBB; cat log >\"$BUILDBEE_RECORD\"; touch noted; exec sleep 600";

fn watched() -> LocalReply {
    LocalReply::RunLocally {
        reason: "race".into(),
        report: true,
        extra_arguments: vec![],
        extra_env: vec![],
        // The loader says that it is not there, and goes on.
        recorder: Some("/no/recorder.so".into()),
        strict_failure: false,
        own_temporary_dir: true,
    }
}

#[test]
fn what_a_compiler_has_noted_as_its_own_goes_with_it() {
    for interrupts in [false, true] {
        let stage = Stage::new();
        let made = stage.path("rmetaAAAAAA");
        std::fs::write(stage.path("log"), log_of(&[(Kind::Made, made.as_os_str().as_bytes())])).unwrap();
        let noted = stage.path("noted");
        let daemon = stage.daemon(move |mut caller| {
            caller.invocation();
            caller.say(&watched());
            if interrupts {
                return caller.end();
            }
            wait_until("the compiler has noted it", || noted.exists());
            caller.say(&LocalReply::Cancel);
            assert_eq!(caller.local_done().exit_code, None);
            assert!(!made.exists(), "gone before the daemon may place outputs");
            caller.say(&done(0, "", ""));
            caller.end();
        });
        let mut wrapper = stage.wrapper().args(["sh", "-c", NOTING]).stderr(Stdio::null()).spawn().unwrap();
        if interrupts {
            wait_until("the compiler has noted it", || stage.path("noted").exists());
            assert!(Command::new("kill").args(["-s", "INT", &wrapper.id().to_string()]).status().unwrap().success());
        }
        assert_eq!(wrapper.wait().unwrap().success(), !interrupts);
        assert!(!stage.path("rmetaAAAAAA").exists() && stage.path("rmetaBBBBBB").exists());
        daemon.join().unwrap();
        stage.assert_tidy();
    }
}

#[test]
fn something_left_running_does_not_hold_the_build() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(true);
        caller.local_done();
        caller.say(&done(0, "", ""));
    });
    let start = Instant::now();
    let script = "echo early; sleep 5 & echo $! > pid";
    let mut wrapper = stage.wrapper();
    let status = wrapper.args(["sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    assert!(start.elapsed() < Duration::from_secs(4));
    daemon.join().unwrap();
    let _ = Command::new("kill").arg(std::fs::read_to_string(stage.path("pid")).unwrap().trim()).status();
}

#[test]
fn much_output_is_passed_on_whole() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(true);
        let outcome = caller.local_done();
        caller.say(&done(0, "", ""));
        outcome
    });
    let output = stage.wrapper().args(["sh", "-c", "head -c 40000000 /dev/zero"]).output().unwrap();
    assert_eq!(output.stdout.len(), 40_000_000);
    let outcome = daemon.join().unwrap();
    assert!(!outcome.complete);
    assert!(outcome.stdout.0.len() < 40_000_000);
}

#[test]
fn compilers_can_be_interrupted() {
    let stage = Stage::new();
    let daemon = stage.daemon(|mut caller| {
        caller.invocation();
        caller.run_locally(true);
        caller.local_done();
        caller.say(&done(0, "", ""));
    });
    let output = stage.wrapper().args(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]).output().unwrap();
    // The two real-time signals that the C library keeps for itself (32 and 33) do not count.
    let standard: Vec<u64> = stdout(&output)
        .lines()
        .map(|line| u64::from_str_radix(line.split_whitespace().next_back().unwrap(), 16).unwrap() & 0x7fff_ffff)
        .collect();
    assert_eq!(standard, [0, 0], "blocked and ignored: {}", stdout(&output));
    daemon.join().unwrap();
}

#[test]
fn a_compiler_gets_makes_jobserver() {
    for report in [true, false] {
        let stage = Stage::new();
        let daemon = stage.daemon(move |mut caller| {
            caller.invocation();
            caller.run_locally(report);
            if report {
                assert_eq!(caller.local_done().exit_code, Some(0));
                caller.say(&done(0, "", ""));
            }
        });
        // gcc -flto=jobserver runs make; one that can't reach the jobserver says so.
        std::fs::write(stage.path("inner.mk"), "all: a b\na b:\n\t@echo $@\n").unwrap();
        std::fs::write(stage.path("outer.mk"), "all:\n\t+@bin/buildbee make --no-print-directory -f inner.mk\n")
            .unwrap();
        let wrapper = stage.wrapper();
        let variables = wrapper.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let output = Command::new("make")
            .args(["-j2", "-f", "outer.mk"])
            .env_clear()
            .envs(variables)
            .current_dir(stage.path(""))
            .output()
            .unwrap();
        assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
        assert_eq!(stdout(&output).split_whitespace().count(), 2);
        daemon.join().unwrap();
    }
}
