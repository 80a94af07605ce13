//! A folder with a copy of the wrapper, a place for the socket, and the daemon's end of conversations.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use buildbee_proto::codec::{Bytes, FRAME_HEADER_BYTES, body_length, from_body, to_frame};
use buildbee_proto::local::{Invocation, LocalCall, LocalOutcome, LocalReply, LocalRequest};
use buildbee_proto::version::LOCAL_VERSION;

/// Everything a test of the wrapper needs. Gone with it.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A copy, so that only what a test puts beside it is found beside it. Linked where possible: a copy that is still open for
        // writing while another thread forks can't be executed.
        let program = Path::new(env!("CARGO_BIN_EXE_buildbee"));
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        let copy = folder.path().join("bin/buildbee");
        if std::fs::hard_link(program, &copy).is_err() {
            let copied = Command::new("cp").args([program, &copy]).status().unwrap();
            assert!(copied.success());
        }
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("s")
    }

    /// A script, written by another process so that no descriptor of it can leak into one that this process starts meanwhile.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut writer = Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new("cat > \"$0\" && chmod 755 \"$0\""), path.as_os_str()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        path
    }

    /// The wrapper, to be given arguments.
    pub(crate) fn wrapper(&self) -> Command {
        self.started_as(&self.path("bin/buildbee"))
    }

    /// The wrapper under another name.
    pub(crate) fn started_as(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("BUILDBEE_SOCKET", self.socket())
            .env("TMPDIR", self.path("tmp"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Listens and plays the daemon's side of one conversation.
    pub(crate) fn daemon<T: Send + 'static>(&self, play: impl FnOnce(Caller) -> T + Send + 'static) -> JoinHandle<T> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            play(Caller { stream })
        })
    }

    /// Nothing of a run is left in the folder for temporary files.
    pub(crate) fn assert_tidy(&self) {
        assert_eq!(std::fs::read_dir(self.path("tmp")).unwrap().count(), 0);
    }
}

/// The wrapper as the daemon sees it.
pub(crate) struct Caller {
    stream: UnixStream,
}

impl Caller {
    /// Any call.
    pub(crate) fn call(&mut self) -> LocalCall {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.stream.read_exact(&mut header).unwrap();
        let mut body = vec![0; body_length::<LocalRequest>(header).unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        let request: LocalRequest = from_body(&body).unwrap();
        assert_eq!(request.version, LOCAL_VERSION);
        request.call
    }

    pub(crate) fn invocation(&mut self) -> Invocation {
        match self.call() {
            LocalCall::Compile(invocation) => invocation,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn local_done(&mut self) -> LocalOutcome {
        match self.call() {
            LocalCall::LocalDone(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn say(&mut self, reply: &LocalReply) {
        self.stream.write_all(&to_frame(reply).unwrap()).unwrap();
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn run_locally(&mut self, report: bool) {
        self.say(&run_locally(report));
    }

    /// Waits until the wrapper hangs up.
    pub(crate) fn end(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "the wrapper had more to say");
    }
}

pub(crate) fn run_locally(report: bool) -> LocalReply {
    LocalReply::RunLocally {
        reason: "test".into(),
        report,
        extra_arguments: vec![],
        extra_env: vec![],
        recorder: None,
        strict_failure: false,
        own_temporary_dir: true,
    }
}

pub(crate) fn done(exit_code: i32, stdout: &str, stderr: &str) -> LocalReply {
    LocalReply::Done { exit_code, stdout: Bytes(stdout.into()), stderr: Bytes(stderr.into()) }
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Waits for something that another process does.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process with this number runs (a zombie does not).
pub(crate) fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])))
}
