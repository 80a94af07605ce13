//! Large, many and hostile.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use buildbee_sandbox::attempt::{Exit, SandboxError};
use buildbee_sandbox::cleanup::remove_scratch;
use buildbee_sandbox::launcher::{Launcher, StartError};
use buildbee_sandbox::probe::{ProbeFailure, probe};
use buildbee_sandbox::spec::HostParts;

use crate::place::{Place, bwrap, helper, is_root, launcher, run};
use crate::programs::{link, toolchain};

#[tokio::test]
async fn a_long_argument_and_many() {
    let place = Place::new();
    let long = "x".repeat(100_000);
    let many: Vec<String> = (0..5000).map(|n| format!("argument number {n}")).collect();
    let mut spec = place.spec(&["/bin/bash", "-c", "echo ${#1} ${#V} $#", "bash", &long]);
    spec.argv.extend(many);
    spec.env.push(("V".into(), long));
    let completed = run(&launcher().await, spec).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout), "100000 100000 5001\n");
    let mut spec = Place::new().shell("true");
    spec.argv.push("x".repeat(200_000));
    assert!(run(&launcher().await, spec).await.is_err());
}

#[tokio::test]
async fn many_variables() {
    let place = Place::new();
    let mut spec = place.spec(&["/bin/env"]);
    spec.env = (0..2048).map(|n| (format!("VARIABLE_{n}"), "value".to_owned())).collect();
    let completed = run(&launcher().await, spec).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).lines().count(), 2049);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once() {
    let launcher = launcher().await;
    let runs: Vec<_> = (0..50)
        .map(|n| {
            let launcher = launcher.clone();
            tokio::spawn(async move {
                let place = Place::new();
                fs::write(place.input("in"), format!("input {n}")).unwrap();
                let completed =
                    run(&launcher, place.shell(&format!("cat in | cat > out; echo {n}; exit {n}"))).await.unwrap();
                assert_eq!(completed.exit, Exit::Code(n));
                assert_eq!(completed.stdout, format!("{n}\n").into_bytes());
                assert_eq!(fs::read_to_string(place.output("out")).unwrap(), format!("input {n}"));
            })
        })
        .collect();
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn a_scratch_folder_goes_whatever_is_in_it() {
    let place = Place::new();
    let outside = place.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "").unwrap();
    let script = format!(
        "mkdir -p a/b/c && touch a/b/c/f && chmod 000 a/b/c a/b a && ln -s '{}' link && mkdir deep && cd deep && \
         for i in {{1..300}}; do mkdir 0123456789abcdef && cd 0123456789abcdef; done",
        outside.display()
    );
    place.text(&script).await;
    remove_scratch(&place.path().join("scratch")).unwrap();
    assert!(!place.path().join("scratch").exists());
    assert!(outside.join("file").exists());
}

#[tokio::test]
async fn inputs_where_the_sandbox_mounts_are_refused() {
    let _layer = toolchain();
    let launcher = launcher().await;
    for name in ["proc", "dev", "sys"] {
        let place = Place::new();
        link("/etc", &place.path().join("input").join(name));
        let error = run(&launcher, place.shell("true")).await.unwrap_err();
        assert!(matches!(error, SandboxError::Directories(_)), "{error:?}");
    }
    let place = Place::new();
    let mut spec = place.shell("true");
    spec.working_directory = "proc/self".try_into().unwrap();
    assert!(matches!(run(&launcher, spec).await.unwrap_err(), SandboxError::Plan(_)));
}

#[tokio::test]
async fn missing_programs_of_our_own() {
    let missing = Path::new("/nonexistent/bwrap");
    assert!(matches!(Launcher::start(&helper(), missing).await, Err(StartError::NoBubblewrap { .. })));
    assert!(matches!(Launcher::start(missing, &bwrap()).await, Err(StartError::Spawn { .. })));
    assert!(matches!(Launcher::start(Path::new("/bin/true"), &bwrap()).await, Err(StartError::Silent { .. })));
    let place = Place::new();
    let failure = probe(&helper(), missing, place.path()).await.unwrap_err();
    assert!(failure.to_string().ends_with("hint: install the package `bubblewrap`"), "{failure}");
}

#[tokio::test]
async fn folders_that_the_helper_was_not_given_are_not_there() {
    let (place, other) = (Place::new(), Place::new());
    let host = HostParts { group: None, folders: vec![other.path().to_owned()] };
    let narrow = Launcher::with(&helper(), &bwrap(), host).await.unwrap();
    let error = run(&narrow, place.shell("true")).await.unwrap_err();
    assert!(error.to_string().contains("Overlay"), "{error}");
    // The same where it has all.
    let (whole, place) = (Launcher::start(&helper(), &bwrap()).await.unwrap(), Place::new());
    assert_eq!(run(&whole, place.shell("true")).await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn a_bubblewrap_that_is_none_is_a_failed_set_up() {
    let place = Place::new();
    let launcher = Launcher::start(&helper(), Path::new("/bin/false")).await.unwrap();
    let error = run(&launcher, place.shell("true")).await.unwrap_err();
    assert!(matches!(error, SandboxError::Setup { .. }), "{error:?}");
}

#[tokio::test]
async fn the_probe_runs_and_leaves_nothing() {
    let place = Place::new();
    let capabilities = probe(&helper(), &bwrap(), place.path()).await.unwrap();
    assert_eq!(capabilities.process_limit, !is_root());
    let left = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left.len(), 2, "{left:?}");
    let missing = place.path().join("missing/deeper");
    assert!(matches!(probe(&helper(), &bwrap(), &missing).await, Err(ProbeFailure::Folder { .. }) | Ok(_)));
}

#[test]
fn the_helper_by_hand_says_who_starts_it() {
    let output = Command::new(helper()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint:"));
    let output = Command::new(helper()).arg("/usr/bin/bwrap").stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
}

/// A measurement, not a judgement: prints what one launch costs.
#[tokio::test]
#[ignore = "prints a measurement"]
async fn cost_of_a_launch() {
    let _layer = toolchain();
    let launcher = launcher().await;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let place = Place::new();
        let spec = place.spec(&["/bin/true"]);
        let started = Instant::now();
        let completed = run(&launcher, spec).await.unwrap();
        wall.push(started.elapsed());
        cpu.push(completed.usage.cpu);
    }
    wall.sort();
    cpu.sort();
    println!("one launch, least / median / 90 %: wall {:?} / {:?} / {:?}", wall[0], wall[150], wall[270]);
    println!("one launch, least / median / 90 %: cpu {:?} / {:?} / {:?}", cpu[0], cpu[150], cpu[270]);
}
