//! From inside the sandbox of a real agent: what an action sees, and what it can't reach.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use buildbee_tests::farm::Farm;
use tokio::sync::oneshot;

use crate::door::Door;
use crate::member::{Member, WORK};
use crate::strangers::{built, farm};

/// Answers by question.
fn answers(text: &str) -> BTreeMap<String, String> {
    let split = |line: &str| {
        let (question, answer) = line.split_once('=').unwrap();
        (question.to_owned(), answer.trim().to_owned())
    };
    text.lines().map(split).collect()
}

struct Inside {
    farm: Farm,
    member: Member,
    agent: Door,
}

impl Inside {
    async fn new() -> Self {
        let farm = farm(1);
        let member = Member::join(&farm, "colleague", 1).await;
        let agent = Door::agent(&farm, 0);
        Self { farm, member, agent }
    }

    async fn ask(&self, questions: &[String]) -> BTreeMap<String, String> {
        let words: Vec<&str> = questions.iter().map(String::as_str).collect();
        let found = answers(&self.member.probe(&self.agent, &words).await);
        assert_eq!(found.len(), questions.len(), "{found:?}");
        found
    }

    async fn one(&self, question: &str) -> String {
        self.ask(&[question.to_owned()]).await.into_values().next().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_sees_what_it_declared_and_nothing_of_the_machine() {
    let inside = Inside::new().await;
    // Something to find: a store with blobs in it, and a file of the user's that anybody may read.
    built(&inside.farm, "other");
    let public = tempfile::Builder::new().prefix("bbpublic").tempdir_in("/tmp").unwrap();
    fs::write(public.path().join("letter"), "dear colleague\n").unwrap();
    assert_eq!(inside.one("read:declared").await, "what was declared;");
    assert_eq!(inside.one("list:.").await, "declared");
    assert_eq!(
        inside.one("env:").await.split_whitespace().filter(|entry| !entry.starts_with("PWD=")).collect::<Vec<_>>(),
        ["DECLARED=yes"]
    );
    let root = inside.one("list:/").await;
    for name in root.split_whitespace() {
        assert!(["dev", "proc", "tmp", "probe", "w"].contains(&name), "{root}");
    }
    assert_eq!(inside.one("list:/tmp").await, "");

    let state = inside.farm.path("desk0");
    let home = std::env::home_dir().unwrap_or_else(|| "/root".into());
    let mut paths: Vec<PathBuf> =
        ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/var", "/sys", "/run", "/home", "/usr/bin/env"]
            .into_iter()
            .map(PathBuf::from)
            .collect();
    paths.extend([home.join(".profile"), home.join(".bashrc"), home, public.path().join("letter")]);
    paths.extend(
        ["", "identity.key", "enrolment", "store", "store/format", "toolchains", "work"].map(|name| state.join(name)),
    );
    paths.push(inside.farm.path("project/other.c"));
    // Ways around: over the root of other processes, and over descriptors that somebody forgot.
    for process in ["1", "2", "self"] {
        for below in ["etc/passwd", "root", state.to_str().unwrap().trim_start_matches('/')] {
            paths.push(Path::new("/proc").join(process).join("root").join(below));
        }
        paths.extend((0..16).map(|fd| PathBuf::from(format!("/proc/{process}/fd/{fd}/identity.key"))));
        paths.extend((0..16).map(|fd| PathBuf::from(format!("/proc/{process}/fd/{fd}/../../etc/passwd"))));
    }
    let questions: Vec<_> =
        paths.iter().flat_map(|path| ["read", "list"].map(|verb| format!("{verb}:{}", path.display()))).collect();
    for (question, answer) in inside.ask(&questions).await {
        assert!(["ENOENT", "ENOTDIR", "EACCES", "EPERM"].contains(&answer.as_str()), "{question}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_action_writes_stays_inside_and_goes_with_it() {
    let inside = Inside::new().await;
    let state = inside.farm.path("desk0");
    let outside = tempfile::Builder::new().prefix("bbpublic").tempdir_in("/tmp").unwrap();
    fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let key = fs::read(state.join("identity.key")).unwrap();
    let targets = [
        outside.path().join("x"),
        state.join("identity.key"),
        state.join("store/blobs/x"),
        PathBuf::from("/tmp/bb-probe-was-here"),
        PathBuf::from("/etc/bb-probe-was-here"),
        PathBuf::from(format!("{WORK}/bb-probe-was-here")),
        PathBuf::from("/probe/bin/probe"),
        PathBuf::from("declared"),
    ];
    let questions: Vec<_> = targets.iter().map(|path| format!("write:{}", path.display())).collect();
    let found = inside.ask(&questions).await;
    assert_eq!(found["write:/tmp/bb-probe-was-here"], "ok", "its own /tmp is there to be used");
    // What it may overwrite after a chmod is a copy of its own: the files themselves are the store's.
    for (question, answer) in inside.ask(&["force:declared", "force:/probe/bin/probe"].map(str::to_owned)).await {
        assert!(["ok", "EACCES", "EPERM", "EROFS", "ETXTBSY"].contains(&answer.as_str()), "{question}: {answer}");
    }
    for path in &targets[..6] {
        assert!(path == &targets[1] || !path.exists(), "{} is on the machine", path.display());
    }
    assert_eq!(fs::read(state.join("identity.key")).unwrap(), key);
    // The next action finds its inputs as they were, and an empty /tmp.
    assert_eq!(inside.one("read:declared").await, "what was declared;");
    assert_eq!(inside.one("list:.").await, "declared");
    assert_eq!(inside.one("list:/tmp").await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_has_no_network() {
    let inside = Inside::new().await;
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let any = TcpListener::bind("0.0.0.0:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = format!("buildbee-test-{}", std::process::id());
    let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let socket = inside.farm.path("listening");
    let visible = UnixListener::bind(&socket).unwrap();
    for listener in [&tcp, &any] {
        listener.set_nonblocking(true).unwrap();
    }
    for listener in [&hidden, &visible] {
        listener.set_nonblocking(true).unwrap();
    }
    udp.set_nonblocking(true).unwrap();
    let questions = [
        format!("tcp:{}", tcp.local_addr().unwrap()),
        format!("tcp:127.0.0.1:{}", any.local_addr().unwrap().port()),
        format!("tcp:{}", inside.agent.address()),
        format!("tcp:{}", Door::coordinator(&inside.farm).address()),
        "tcp:192.0.2.1:80".to_owned(),
        format!("udp:{}", udp.local_addr().unwrap()),
        "udp:192.0.2.1:53".to_owned(),
        format!("unix:@{name}"),
        format!("unix:{}", socket.display()),
        "read:/proc/net/dev".to_owned(),
        "read:/proc/net/route".to_owned(),
    ];
    let found = inside.ask(&questions).await;
    for (question, answer) in &found {
        match question.split_once(':').unwrap() {
            // Its own loopback takes datagrams that nobody reads.
            ("udp", about) if about.starts_with("127.") => {}
            ("read", "/proc/net/dev") => assert!(!answer.contains("eth") && answer.contains("lo:"), "{answer}"),
            ("read", _) => assert!(answer.split(';').count() <= 2, "there is a route: {answer}"),
            _ => assert_ne!(answer, "ok", "{question}"),
        }
    }
    let nobody = |result: std::io::Result<()>| result.unwrap_err().kind() == std::io::ErrorKind::WouldBlock;
    assert!(nobody(tcp.accept().map(drop)) && nobody(any.accept().map(drop)));
    assert!(nobody(hidden.accept().map(drop)) && nobody(visible.accept().map(drop)));
    assert!(nobody(udp.recv(&mut [0; 64]).map(drop)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_has_no_power() {
    let inside = Inside::new().await;
    let questions = ["status:CapEff", "status:CapPrm", "status:CapBnd", "status:NoNewPrivs", "status:Seccomp:", "who:"];
    let found = inside.ask(&questions.map(str::to_owned)).await;
    let none = "0000000000000000;";
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(found[&format!("status:{set}")], format!("{set}: {none}"));
    }
    assert_eq!(found["status:NoNewPrivs"], "NoNewPrivs: 1;");
    assert_eq!(found["status:Seccomp:"], "Seccomp: 2;");
    assert!(!found["who:"].split(' ').any(|id| id == "0"), "{found:?}");
    let forbidden = [
        "mount:/tmp",
        "unshare:",
        "setns:/proc/1/ns/net",
        "bpf:",
        "keyctl:",
        "device:/tmp/disk",
        "ptrace:1",
        "write:/proc/sys/kernel/core_pattern",
    ];
    for (question, answer) in inside.ask(&forbidden.map(str::to_owned)).await {
        assert_ne!(answer, "ok", "{question}");
        assert!(!answer.is_empty(), "{question}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_do_not_see_each_other() {
    let inside = Inside::new().await;
    let (tell, started) = oneshot::channel();
    let mark = format!("write:/tmp/first-{}", std::process::id());
    let words = [mark.as_str(), "write:private", "sleep:4", "list:/tmp", "list:."];
    let first = inside.member.probe_when(&inside.agent, &words, Some(tell));
    let second = async {
        started.await.unwrap();
        // The first one as the machine sees it.
        let mut process = None;
        for _ in 0..100 {
            process = with_argument(&mark);
            if process.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let process = process.expect("the first action runs");
        let folders = action_folders(&inside.farm.path("desk0/work"));
        assert!(!folders.is_empty(), "the first action has no folder");
        let mut questions =
            vec![format!("kill:{process}"), format!("ptrace:{process}"), format!("read:/proc/{process}/cmdline")];
        questions.extend(folders.iter().map(|folder| format!("list:{}", folder.display())));
        questions.extend(["list:/tmp", "list:.", "list:/proc"].map(str::to_owned));
        let found = inside.ask(&questions).await;
        assert_eq!((found["list:/tmp"].as_str(), found["list:."].as_str()), ("", "declared"));
        let numbers = found["list:/proc"].split(' ').filter(|name| name.parse::<u32>().is_ok()).count();
        assert!(numbers <= 3, "{}", found["list:/proc"]);
        for (question, answer) in
            found.iter().filter(|(question, _)| !["list:/tmp", "list:.", "list:/proc"].contains(&question.as_str()))
        {
            assert!(["ENOENT", "ESRCH", "EPERM", "EACCES"].contains(&answer.as_str()), "{question}: {answer}");
        }
        assert!(with_argument(&mark).is_some(), "the first action was to run all the while");
    };
    let (first, ()) = tokio::join!(first, second);
    let first = answers(&first);
    assert_eq!(first["list:/tmp"], mark.trim_start_matches("write:/tmp/"));
    assert_eq!(first["list:."], "declared private");
}

/// The folders of actions on this machine, and what they are in: an agent has them in memory where it can, else in its `work` folder. Of
/// those in memory, the private ones of other users can't be listed.
fn action_folders(work: &Path) -> Vec<PathBuf> {
    let names = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let in_memory = names(Path::new("/dev/shm"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("buildbee-agent-")));
    let places: Vec<PathBuf> = in_memory.chain([work.to_owned()]).collect();
    let inner: Vec<PathBuf> = places.iter().flat_map(|place| names(place).collect::<Vec<_>>()).collect();
    if inner.is_empty() { inner } else { inner.into_iter().chain(places).collect() }
}

/// The innermost process of this machine that was started with `word`.
fn with_argument(word: &str) -> Option<u32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |number: &u32| {
        let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        line.starts_with(b"/probe/bin/probe")
            && line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    numbers.filter(has).max()
}
