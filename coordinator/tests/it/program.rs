//! The program itself: commands, exit codes, what is printed where, signals.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use buildbee_coordinator::clock::unix_now;
use buildbee_p2p::enrolment::join;
use buildbee_p2p::identity::Identity;
use buildbee_proto::membership::{Signed, Ticket};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fixture::WITHIN;

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buildbee-coordinator"));
    command.env_clear().env("HOME", folder).env("BUILDBEE_COORDINATOR_STATE_DIR", folder.join("state"));
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A running `serve`, killed when dropped.
struct Serving {
    child: Child,
    ready: serde_json::Value,
}

impl Serving {
    fn start(folder: &Path) -> Self {
        let ready_file = folder.join("ready.json");
        fs::write(&ready_file, "left by an earlier run").unwrap();
        let child = program(folder)
            .args(["serve", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--no-mdns", "--ready-file"])
            .arg(&ready_file)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut serving = Self { child, ready: serde_json::Value::Null };
        let since = Instant::now();
        while since.elapsed() < WITHIN {
            assert!(serving.child.try_wait().unwrap().is_none(), "it ended");
            let found = fs::read(&ready_file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let Some(ready) = found {
                serving.ready = ready;
                return serving;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it never listened");
    }

    /// Ends it with `signal`. How long it took, its exit code and what it logged.
    fn stop(mut self, signal: Signal) -> (Duration, Option<i32>, String) {
        let since = Instant::now();
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        let status = self.child.wait().unwrap();
        let took = since.elapsed();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (took, status.code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let serving = Serving::start(folder.path());
        let ready = serving.ready.clone();
        let address = ready["addresses"][0].as_str().unwrap().to_owned();
        assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");
        let (took, code, log) = serving.stop(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        let (peer, farm) = (ready["peer"].as_str().unwrap(), ready["farm"].as_str().unwrap());
        let line = format!("listening on {address} as {peer} of farm {farm}");
        assert_eq!(log.matches(&line).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_ticket_from_the_command_line_lets_a_machine_in_and_revoke_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path());
    let address = serving.ready["addresses"][0].as_str().unwrap();
    let invited = run(folder.path(), &["invite", "--role", "agent", "--expires", "5min"]);
    assert!(invited.status.success());
    assert!(text(&invited.stderr).contains("buildbee-agent join TICKET"), "{}", text(&invited.stderr));
    assert!(!text(&invited.stderr).contains("a new farm"), "it is the one that serves");
    let ticket = Signed::<Ticket>::from_text(text(&invited.stdout)).unwrap();
    assert_eq!(ticket.value.addresses, [address], "where it really listens");
    let identity = Identity::generate();
    join(&identity, &ticket, "desk-7", WITHIN, unix_now()).await.unwrap();

    let listed = run(folder.path(), &["members", "--json"]);
    let members: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((members[0]["name"].as_str(), members[0]["role"].as_str()), (Some("desk-7"), Some("agent")));
    assert!(run(folder.path(), &["revoke", "desk-7"]).status.success());
    assert!(text(&run(folder.path(), &["members"]).stdout).contains("revoked"));
    assert!(join(&identity, &ticket, "desk-7", WITHIN, unix_now()).await.is_err());
}

#[test]
fn mistakes_are_told_with_a_hint_and_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bad.toml");
    fs::write(&config, "mdns = true\nport = 7\n").unwrap();
    let config = config.to_str().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["serve", "--config", config, "--check-config"], 2, "bad.toml:2: unknown field `port`"),
        (&["serve", "--config", "/nonexistent.toml", "--check-config"], 2, "/nonexistent.toml"),
        (&["revoke", "nobody"], 2, "no member \"nobody\""),
        (&["invite", "--address", "nowhere"], 2, "\"nowhere\" is no address"),
        (&["invite", "--state-dir", file, "--address", "a:1"], 1, "state folder"),
        (&["serve", "--ready-file", "/nonexistent/ready"], 1, "ready file"),
        (&["serve", "--listen", "192.0.2.1:7470", "--no-mdns"], 1, "192.0.2.1:7470"),
    ];
    for (arguments, code, expected) in cases {
        let output = run(folder.path(), arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains("error: ") && error.contains(expected) && error.contains("\nhint: "), "{error}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(run(folder.path(), &["dance"]).status.code(), Some(2));
    assert!(run(folder.path(), &["serve", "--check-config"]).status.success());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), &["invite", "--address", "a:1"]).status.success());
    let key = folder.path().join("state/farm.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let output = run(folder.path(), &["invite", "--address", "a:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("hint: chmod 600"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_farms_key_can_be_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("safe.key");
    let key = key.to_str().unwrap();
    assert!(run(folder.path(), &["key", "export", key]).status.success());
    let serving = Serving::start(folder.path());
    let output = run(folder.path(), &["key", "delegate", key]);
    assert_eq!(output.status.code(), Some(1), "it runs");
    assert!(text(&output.stderr).contains("hint: stop that one"), "{}", text(&output.stderr));
    let farm = serving.ready["farm"].clone();
    serving.stop(Signal::SIGTERM);
    let output = run(folder.path(), &["key", "delegate", key, "--for", "30d"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!folder.path().join("state/farm.key").exists());
    let output = run(folder.path(), &["key", "export", "-"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty() && text(&output.stderr).contains("\nhint: "), "{}", text(&output.stderr));

    let serving = Serving::start(folder.path());
    assert_eq!(serving.ready["farm"], farm);
    let invited = run(folder.path(), &["invite", "--role", "agent"]);
    let ticket = Signed::<Ticket>::from_text(text(&invited.stdout)).unwrap();
    let enrolment = join(&Identity::generate(), &ticket, "desk-7", WITHIN, unix_now()).await.unwrap();
    assert_eq!(enrolment.membership.value.farm.to_string(), farm.as_str().unwrap());
    assert!(enrolment.membership.warrant.is_some());
    serving.stop(Signal::SIGTERM);
}
