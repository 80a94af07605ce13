//! The program itself: what it tells its starter, how it ends, what it leaves when it is killed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use buildbee_proto::peer::PeerId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{Farm, processes_with, sandbox_program, until};

struct Program {
    child: Child,
    peer: PeerId,
    addresses: Vec<String>,
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(dir: &Path) -> Process {
    let copied = sandbox_program().with_file_name("buildbee-agent");
    let program = if copied.exists() { copied } else { env!("CARGO_BIN_EXE_buildbee-agent").into() };
    let mut command = Process::new(program);
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--no-mdns",
        "--slots",
        "2",
        "--config",
        "/dev/null",
        "--sandbox",
    ]);
    command.arg(sandbox_program()).arg("--state-dir").arg(dir).arg("--ready-file").arg(dir.join("ready.json"));
    command.current_dir("/").stdin(Stdio::null());
    command
}

async fn start(farm: &Farm, dir: &Path) -> Program {
    farm.enrol(dir);
    let ready = dir.join("ready.json");
    drop(fs::remove_file(&ready));
    let child = command(dir).stderr(Stdio::null()).spawn().unwrap();
    let mut program = Program { child, peer: PeerId([0; 32]), addresses: Vec::new() };
    let started = Instant::now();
    while !ready.exists() {
        assert!(started.elapsed() < Duration::from_secs(20) && program.child.try_wait().unwrap().is_none());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said: serde_json::Value = serde_json::from_str(&fs::read_to_string(&ready).unwrap()).unwrap();
    program.peer = said["peer"].as_str().unwrap().parse().unwrap();
    program.addresses =
        said["addresses"].as_array().unwrap().iter().map(|each| each.as_str().unwrap().to_owned()).collect();
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_it_ends_what_runs_and_says_goodbye() {
    let (farm, dir) = (Farm::new(), tempfile::tempdir().unwrap());
    let mut program = start(&farm, dir.path()).await;
    let client = farm.client_of(program.peer, &program.addresses).await;
    let request = client.request(&["/usr/bin/sleep", "3600.3125"], &[("here", b"")], &[]);
    let _stream = client.begin(client.agent, &request).await;
    until("the action runs", Duration::from_secs(20), || processes_with("3600.3125") > 0).await;
    kill(Pid::from_raw(i32::try_from(program.child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let mut status = None;
    until("the end", Duration::from_secs(3), || {
        status = program.child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
    assert_eq!(processes_with("3600.3125"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_it_takes_its_actions_along_and_starts_again() {
    let (farm, dir) = (Farm::new(), tempfile::tempdir().unwrap());
    let mut program = start(&farm, dir.path()).await;
    let client = farm.client_of(program.peer, &program.addresses).await;
    let kept = client.submit(&client.script("date +%N", &[])).await.unwrap();
    let request = client.request(&["/usr/bin/sleep", "3600.4375"], &[("here", b"")], &[]);
    let stream = client.begin(client.agent, &request).await;
    until("the action runs", Duration::from_secs(20), || processes_with("3600.4375") > 0).await;
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    until("the action is gone", Duration::from_secs(2), || processes_with("3600.4375") == 0).await;
    drop(stream);

    let again = start(&farm, dir.path()).await;
    assert_eq!(again.peer, client.agent);
    assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 0, "leftovers are removed");
    let client = farm.client_of(again.peer, &again.addresses).await;
    let same = client.submit(&client.script("date +%N", &[])).await.unwrap();
    assert_eq!(same.signed, kept.signed);
}

#[test]
fn what_it_can_not_do_it_says_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("has not joined") && text.contains("hint:"), "{text}");

    Farm::new().enrol(dir.path());
    let output = command(dir.path()).args(["--sandbox", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "an option given twice");
}
