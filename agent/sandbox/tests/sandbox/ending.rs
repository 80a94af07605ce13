//! How commands end, by themselves and otherwise.

use std::time::Duration;

use buildbee_sandbox::attempt::{Exit, SandboxError};
use tokio_util::sync::CancellationToken;

use crate::place::{Place, eventually, kill, launcher, marker, run, sleeps};
use crate::programs::toolchain;

#[tokio::test]
async fn statuses_and_signals() {
    let _layer = toolchain();
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 3", Exit::Code(3)),
        ("exit 255", Exit::Code(255)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -SEGV $$", Exit::Signal(11)),
        ("kill -TERM $$", Exit::Signal(15)),
        ("kill -PIPE $$", Exit::Signal(13)),
        ("kill -HUP $$", Exit::Signal(1)),
    ] {
        assert_eq!(Place::new().run(script).await.exit, exit, "{script}");
    }
}

#[tokio::test]
async fn a_program_that_cannot_start_is_no_failure_of_the_program() {
    let _layer = toolchain();
    let launcher = launcher().await;
    for argv in [["/bin/missing"], ["missing"], ["./data"], ["/home"]] {
        let place = Place::new();
        std::fs::write(place.input("data"), "data").unwrap();
        let error = run(&launcher, place.spec(&argv)).await.unwrap_err();
        let SandboxError::Setup { message } = &error else { panic!("{error:?}") };
        assert!(message.starts_with("bwrap: execvp"), "{message}");
    }
}

#[tokio::test]
async fn a_layer_that_does_not_exist() {
    let place = Place::new();
    let mut spec = place.shell("true");
    spec.layers[0] = place.path().join("missing");
    let error = run(&launcher().await, spec).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot prepare the sandbox (Overlay): No such file or directory (os error 2)");
}

#[tokio::test]
async fn background_processes_end_with_the_command() {
    let marker = marker(10);
    let place = Place::new();
    let script =
        format!("setsid sleep {marker} < /dev/null > /dev/null 2>&1 & sleep {marker} > /dev/null 2>&1 & echo done");
    let completed = place.run(&script).await;
    assert_eq!((completed.exit, completed.stdout), (Exit::Code(0), b"done\n".to_vec()));
    assert!(!sleeps(&marker), "a process outlived its command");
}

#[tokio::test]
async fn cancelled_means_gone() {
    let marker = marker(11);
    let place = Place::new();
    let cancel = CancellationToken::new();
    let launcher = launcher().await;
    let script =
        format!("(setsid sleep {marker} > /dev/null 2>&1 &); trap '' TERM INT HUP; sleep {marker}; sleep {marker}");
    let running = tokio::spawn({
        let (spec, cancel) = (place.shell(&script), cancel.clone());
        async move { launcher.run(spec, cancel).await }
    });
    eventually("the command", || sleeps(&marker)).await;
    cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(SandboxError::Cancelled)));
    assert!(!sleeps(&marker), "a process outlived its command");
}

#[tokio::test]
async fn cancelled_at_any_moment() {
    let _layer = toolchain();
    let launcher = launcher().await;
    for step in 0..40 {
        let place = Place::new();
        let marker = marker(1000 + step);
        let cancel = CancellationToken::new();
        let spec = place.shell(&format!("setsid sleep {marker} & sleep {marker}"));
        let canceller = tokio::spawn({
            let cancel = cancel.clone();
            async move {
                tokio::time::sleep(Duration::from_micros(u64::from(step) * 250)).await;
                cancel.cancel();
            }
        });
        let outcome = tokio::time::timeout(Duration::from_secs(10), launcher.run(spec, cancel)).await.unwrap();
        assert!(matches!(outcome, Err(SandboxError::Cancelled)), "{outcome:?}");
        assert!(!sleeps(&marker));
        canceller.await.unwrap();
    }
    let place = Place::new();
    assert_eq!(run(&launcher, place.shell("true")).await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn a_dropped_future_kills() {
    let marker = marker(12);
    let place = Place::new();
    let launcher = launcher().await;
    let running = tokio::spawn({
        let (launcher, spec) = (launcher.clone(), place.shell(&format!("setsid sleep {marker} & sleep {marker}")));
        async move { launcher.run(spec, CancellationToken::new()).await }
    });
    eventually("the command", || sleeps(&marker)).await;
    running.abort();
    eventually("the end of the command", || !sleeps(&marker)).await;
    let next = Place::new();
    assert_eq!(run(&launcher, next.shell("true")).await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn the_end_of_the_agent_ends_everything() {
    let marker = marker(13);
    let place = Place::new();
    let launcher = launcher().await;
    let helper = launcher.helper_id().await.unwrap();
    let running = tokio::spawn({
        let spec = place.shell(&format!("setsid sleep {marker} & sleep {marker}"));
        async move { launcher.run(spec, CancellationToken::new()).await }
    });
    eventually("the command", || sleeps(&marker)).await;
    running.abort();
    eventually("the end of the command", || !sleeps(&marker)).await;
    eventually("the end of the helper", || !std::path::Path::new(&format!("/proc/{helper}")).exists()).await;
}

#[tokio::test]
async fn a_killed_helper_takes_its_commands_along_and_is_replaced() {
    let marker = marker(14);
    let place = Place::new();
    let launcher = launcher().await;
    let helper = launcher.helper_id().await.unwrap();
    let running = tokio::spawn({
        let (launcher, spec) = (launcher.clone(), place.shell(&format!("setsid sleep {marker} & sleep {marker}")));
        async move { launcher.run(spec, CancellationToken::new()).await }
    });
    eventually("the command", || sleeps(&marker)).await;
    kill(helper);
    let outcome = running.await.unwrap();
    assert!(matches!(outcome, Err(SandboxError::HelperGone)), "{outcome:?}");
    eventually("the end of the command", || !sleeps(&marker)).await;
    let next = Place::new();
    assert_eq!(run(&launcher, next.shell("true")).await.unwrap().exit, Exit::Code(0));
    assert_ne!(launcher.helper_id().await.unwrap(), helper);
}

#[tokio::test]
async fn a_helper_killed_while_idle_is_replaced_unnoticed() {
    let _layer = toolchain();
    let launcher = launcher().await;
    for _ in 0..10 {
        kill(launcher.helper_id().await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let place = Place::new();
        assert_eq!(run(&launcher, place.shell("true")).await.unwrap().exit, Exit::Code(0));
    }
}
