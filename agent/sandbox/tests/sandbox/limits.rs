//! What a command may use.

use std::time::{Duration, Instant};

use buildbee_sandbox::attempt::Exit;
use buildbee_sandbox::idle_group;
use buildbee_sandbox::launcher::Launcher;
use buildbee_sandbox::spec::{HostParts, Limits, SandboxSpec};

use crate::place::{Place, bwrap, eventually, helper, is_root, launcher, marker, run, sleeps};
use crate::programs::toolchain;

fn place(change: impl FnOnce(&mut Limits)) -> Place {
    let mut place = Place::new();
    change(&mut place.limits);
    place
}

#[tokio::test]
async fn time_by_the_clock() {
    let marker = marker(1);
    let place = place(|limits| limits.wall = Duration::from_millis(300));
    let started = Instant::now();
    let completed = place.run(&format!("echo begun; setsid sleep {marker} & sleep {marker}")).await;
    assert_eq!(completed.exit, Exit::TimedOut);
    assert_eq!(completed.stdout, b"begun\n");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(!sleeps(&marker));
}

#[tokio::test]
async fn a_limit_beyond_the_clock_is_none() {
    let place = place(|limits| (limits.wall, limits.cpu) = (Duration::MAX, Duration::MAX));
    assert_eq!(place.run("true").await.exit, Exit::Code(0));
}

#[tokio::test]
async fn processor_time() {
    let place = place(|limits| limits.cpu = Duration::from_millis(500));
    let completed = place.run("while :; do :; done").await;
    assert!(matches!(completed.exit, Exit::Signal(9 | 24)), "{:?}", completed.exit);
}

#[tokio::test]
async fn output_on_either_stream() {
    let _layer = toolchain();
    for stream in [1, 2] {
        let place = place(|limits| limits.stream_bytes = 100_000);
        let completed = place.run(&format!("while :; do echo 0123456789; done >&{stream}")).await;
        assert_eq!(completed.exit, Exit::OutputTooLarge);
        let captured = if stream == 1 { completed.stdout } else { completed.stderr };
        assert_eq!(captured.len(), 100_000);
    }
    // Just as much as is allowed is no failure, and neither is much on both.
    let place = place(|limits| limits.stream_bytes = 1 << 20);
    let completed = place.run("head -c 1048576 /dev/zero; head -c 1048576 /dev/zero >&2").await;
    assert_eq!((completed.exit, completed.stdout.len(), completed.stderr.len()), (Exit::Code(0), 1 << 20, 1 << 20));
}

#[tokio::test]
async fn too_much_at_the_very_end() {
    let place = place(|limits| limits.stream_bytes = 10);
    assert_eq!(place.run("echo 0123456789").await.exit, Exit::OutputTooLarge);
}

#[tokio::test]
async fn memory() {
    // 256 MiB in one variable.
    let script = "x=0123456789abcdef; for i in {1..24}; do x=$x$x; done; echo ${#x}";
    let large = place(|limits| limits.memory_bytes = 4 << 30);
    assert_eq!(large.text(script).await, "268435456");
    let small = place(|limits| limits.memory_bytes = 256 << 20);
    let completed = small.run(script).await;
    assert_eq!(completed.exit, Exit::Code(2), "{}", String::from_utf8_lossy(&completed.stderr));
    assert!(String::from_utf8_lossy(&completed.stderr).contains("cannot allocate"));
}

#[tokio::test]
async fn size_of_files() {
    let place = place(|limits| limits.file_bytes = 1 << 20);
    let completed = place.run("exec head -c 2000000 /dev/zero > large").await;
    assert_eq!(completed.exit, Exit::Signal(25));
    assert_eq!(std::fs::metadata(place.output("large")).unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn open_files() {
    let place = place(|limits| limits.open_files = 32);
    assert_eq!(place.text("ulimit -n; ulimit -c").await, "32\n0");
}

/// The kernel exempts user 0 of the host from the number of processes: there, everything must still end with the command.
#[tokio::test]
async fn processes() {
    let marker = marker(2);
    let place = place(|limits| limits.processes = 40);
    let script = format!("for i in {{1..100}}; do sleep {marker} & done 2>&1; echo started");
    let completed = place.run(&script).await;
    let text = String::from_utf8(completed.stdout).unwrap();
    if !is_root() {
        assert!(text.contains("Resource temporarily unavailable"), "{text}");
    }
    eventually("the end of all processes", || !sleeps(&marker)).await;
}

/// Each command has its own count: what other commands of the same user run does not matter.
#[tokio::test]
async fn processes_of_other_commands_do_not_count() {
    let launcher = launcher().await;
    let places: Vec<Place> = (0..4).map(|_| place(|limits| limits.processes = 30)).collect();
    let script = "for i in {1..20}; do sleep 1 & done; wait";
    let runs = places.iter().map(|place| {
        let (launcher, spec) = (launcher.clone(), place.shell(script));
        tokio::spawn(async move { run(&launcher, spec).await.unwrap() })
    });
    for run in runs.collect::<Vec<_>>() {
        let completed = run.await.unwrap();
        assert_eq!((completed.exit, completed.stderr), (Exit::Code(0), Vec::new()));
    }
}

#[tokio::test]
async fn niceness() {
    let place = place(|limits| limits.niceness = 19);
    assert_eq!(place.text("read -r -a stat < /proc/self/stat; echo ${stat[18]}").await, "19");
}

#[tokio::test]
async fn threads_that_are_asked_for() {
    let printed = async |job_tokens: Option<u16>, script: &str| {
        let place = Place::new();
        let spec = SandboxSpec { job_tokens, ..place.shell(script) };
        String::from_utf8(run(&launcher().await, spec).await.unwrap().stdout).unwrap()
    };
    let script =
        "echo $CARGO_MAKEFLAGS; head -c 2 /proc/self/fd/100; printf - > /proc/self/fd/101; head -c 1 /proc/self/fd/100";
    assert_eq!(printed(Some(2), script).await, "-j --jobserver-auth=100,101\n++-");
    // Without tokens there is a pipe with nothing in it, and without a jobserver none.
    let script = "test -p /proc/self/fd/100 && echo there; echo ${CARGO_MAKEFLAGS-none}";
    assert_eq!(printed(Some(0), script).await, "there\n-j --jobserver-auth=100,101\n");
    assert_eq!(printed(None, script).await, "none\n");
}

#[tokio::test]
async fn who_gives_way_is_behind_everybody() {
    let place = place(|limits| limits.gives_way = true);
    let script =
        "read -r -a stat < /proc/self/stat; read -r oom < /proc/self/oom_score_adj; echo ${stat[18]} ${stat[40]} $oom";
    // SCHED_IDLE is 5.
    assert_eq!(place.text(script).await, "19 5 1000");
}

#[tokio::test]
async fn who_gives_way_is_in_an_idle_group_where_one_can_be_made() {
    let Some(found) = idle_group::place() else { return };
    let group = found.with_file_name(format!("buildbee-test-{}", std::process::id()));
    let host = HostParts { group: Some(group.clone()), folders: Vec::new() };
    let launcher = Launcher::with(&helper(), &bwrap(), host).await.unwrap();
    let place = place(|limits| limits.gives_way = true);
    let idle = std::fs::read_to_string(group.join("cpu.idle"));
    // Only root may make one, mostly.
    if is_root() || idle.is_ok() {
        assert_eq!(idle.unwrap().trim(), "1");
        // Those that wait for commands are in it, and so are the commands that they become.
        eventually("a member", || !std::fs::read_to_string(group.join("cgroup.procs")).unwrap().is_empty()).await;
        assert_eq!(run(&launcher, place.shell("true")).await.unwrap().exit, Exit::Code(0));
    }
    drop((launcher, place));
    eventually("the end of the group", || !group.exists()).await;
}
