//! Commands that are stopped where they are, and go on or are killed.

use std::fs;
use std::time::Duration;

use buildbee_sandbox::attempt::{Exit, SandboxError};
use tokio_util::sync::CancellationToken;

use crate::place::{Place, eventually, launcher, marker, sleeps};
use crate::programs::toolchain;

/// For how long nothing may move.
const A_WHILE: Duration = Duration::from_millis(250);

/// One that counts in the command's own group, one that has left it, one whose parent is gone, and one that wakes the others whenever it runs.
const COUNTERS: &str = "count() { while :; do echo >> $1; done; }
    (count orphan &)
    setsid bash -c 'while :; do echo >> apart; done' &
    (while :; do kill -CONT -1; done) 2>/dev/null &
    count own";

fn counted(place: &Place) -> Vec<u64> {
    ["orphan", "apart", "own"].map(|name| fs::metadata(place.output(name)).map_or(0, |file| file.len())).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_does_nothing_and_goes_on_afterwards() {
    let place = Place::new();
    let (launcher, cancel) = (launcher().await, CancellationToken::new());
    let running = tokio::spawn({
        let (launcher, spec, cancel) = (launcher.clone(), place.shell(COUNTERS), cancel.clone());
        async move { launcher.run(spec, cancel).await }
    });
    eventually("counting", || counted(&place).iter().all(|n| *n > 0)).await;
    for _ in 0..2 {
        launcher.hold(true).await;
        tokio::time::sleep(A_WHILE).await;
        let held = counted(&place);
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(counted(&place), held, "something runs");
        launcher.hold(false).await;
        eventually("going on", || counted(&place).iter().zip(&held).all(|(now, then)| now > then)).await;
    }
    launcher.hold(true).await;
    tokio::time::sleep(A_WHILE).await;
    cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(SandboxError::Cancelled)));
}

#[tokio::test]
async fn a_command_that_comes_while_others_are_held_waits_too() {
    let _layer = toolchain();
    let (launcher, marker) = (launcher().await, marker(31));
    launcher.hold(true).await;
    let place = Place::new();
    let running = tokio::spawn({
        let (launcher, spec) = (launcher.clone(), place.shell(&format!("echo started > file; sleep {marker}")));
        async move { launcher.run(spec, CancellationToken::new()).await }
    });
    tokio::time::sleep(A_WHILE).await;
    assert!(!sleeps(&marker), "it ran");
    launcher.hold(false).await;
    eventually("the command", || sleeps(&marker)).await;
    running.abort();
    eventually("the end of all processes", || !sleeps(&marker)).await;
}

#[tokio::test]
async fn exit_and_output_are_the_same_after_a_halt() {
    let place = Place::new();
    let launcher = launcher().await;
    let script = "for i in {1..20000}; do echo $i; done; exit 7";
    let running = tokio::spawn({
        let (launcher, spec) = (launcher.clone(), place.shell(script));
        async move { launcher.run(spec, CancellationToken::new()).await }
    });
    for held in [true, false].into_iter().cycle().take(20) {
        launcher.hold(held).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let completed = running.await.unwrap().unwrap();
    let stdout = String::from_utf8(completed.stdout).unwrap();
    assert!(completed.exit == Exit::Code(7) && stdout.lines().eq((1..=20_000).map(|n| n.to_string())), "{stdout}");
}
