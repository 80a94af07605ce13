//! The daemon's door: whoever speaks slowly, in pieces, or nonsense is in nobody's way.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use buildbee_proto::codec::{Bytes, FRAME_HEADER_BYTES, from_body, to_frame};
use buildbee_proto::local::{Invocation, LocalCall, LocalReply, LocalRequest};
use buildbee_proto::version::LOCAL_VERSION;

use crate::home::Home;

fn connect(home: &Home) -> UnixStream {
    let stream = UnixStream::connect(home.path("buildbee/daemon.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn compile(home: &Home, output: &str) -> Vec<u8> {
    let bytes = |text: &str| Bytes(text.as_bytes().to_vec());
    let folder = home.path("").canonicalize().unwrap();
    let invocation = Invocation {
        program: bytes("/usr/bin/gcc"),
        argv: ["gcc", "-c", "x.c", "-o", output].map(bytes).to_vec(),
        env: vec![bytes("PATH=/usr/bin:/bin")],
        cwd: Bytes(folder.as_os_str().as_bytes().to_vec()),
        umask: 0o022,
        stdout_is_terminal: false,
        stderr_is_terminal: false,
        columns: None,
    };
    to_frame(&LocalRequest { version: LOCAL_VERSION, call: LocalCall::Compile(invocation) }).unwrap()
}

/// The answer, after any signs of life.
fn answer(stream: &mut UnixStream) -> LocalReply {
    loop {
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_le_bytes(header) as usize];
        stream.read_exact(&mut body).unwrap();
        match from_body(&body).unwrap() {
            LocalReply::Working => {}
            reply => return reply,
        }
    }
}

/// Fills the cache as the wrapper of this environment would, and leaves no object.
fn known(home: &Home, output: &str) {
    let stale = || std::fs::remove_file(home.path(output)).unwrap();
    for _ in 0..2 {
        let mut wrapper = home.command(&["/usr/bin/gcc", "-c", "x.c", "-o", output]);
        assert!(wrapper.env("PATH", "/usr/bin:/bin").status().unwrap().success());
        stale();
    }
}

fn is_object(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|content| content.starts_with(b"\x7fELF"))
}

#[test]
fn whoever_says_nothing_keeps_nobody_waiting() {
    let home = Home::new();
    home.daemon_pid();
    let silent: Vec<_> = (0..40).map(|_| connect(&home)).collect();
    assert!(home.run(&["gcc", "-c", "x.c"]).status.success());
    assert_eq!(home.document(&["stats", "--json"])["local"], 1, "the daemon was asked");
    drop(silent);
}

#[test]
fn a_request_in_pieces_is_answered_like_a_whole_one() {
    let home = Home::new();
    home.daemon_pid();
    known(&home, "a.o");
    let request = compile(&home, "a.o");
    for cuts in [vec![], vec![2], vec![FRAME_HEADER_BYTES], vec![1, 40, request.len() - 1]] {
        let mut stream = connect(&home);
        let mut sent = 0;
        for cut in cuts.iter().chain([&request.len()]) {
            stream.write_all(&request[sent..*cut]).unwrap();
            sent = *cut;
            std::thread::sleep(Duration::from_millis(50));
        }
        let done = LocalReply::Done { exit_code: 0, stdout: Bytes::default(), stderr: Bytes::default() };
        assert_eq!(answer(&mut stream), done, "cut at {cuts:?}");
        assert!(is_object(&home.path("a.o")), "cut at {cuts:?}");
        std::fs::remove_file(home.path("a.o")).unwrap();
    }
}

#[test]
fn a_miss_is_run_by_who_asked() {
    let home = Home::new();
    home.daemon_pid();
    let mut stream = connect(&home);
    stream.write_all(&compile(&home, "b.o")).unwrap();
    let reply = answer(&mut stream);
    assert!(matches!(&reply, LocalReply::RunLocally { strict_failure: false, .. }), "{reply:?}");
    assert!(!home.path("b.o").exists());
}

#[test]
fn nonsense_ends_the_conversation_and_nothing_else() {
    let home = Home::new();
    let pid = home.daemon_pid();
    let other_version =
        LocalRequest { version: LOCAL_VERSION + 1, call: LocalCall::Admin(buildbee_proto::local::AdminCall::Ping) };
    let mut newer = connect(&home);
    newer.write_all(&to_frame(&other_version).unwrap()).unwrap();
    assert_eq!(answer(&mut newer), LocalReply::WrongVersion { version: LOCAL_VERSION });
    for nonsense in [&[0xff; 100][..], &[1, 0, 0, 0, 99], &[3, 0, 0, 0, 1, 0, 0]] {
        let mut stream = connect(&home);
        stream.write_all(nonsense).unwrap();
        let mut said = Vec::new();
        // Closed with something unread, a socket may also be reset.
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty(), "{nonsense:?}: {said:?}");
    }
    assert_eq!(home.daemon_pid(), pid);
}
