//! What an agent does for a client that behaves.

use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use buildbee_p2p::frames::read_message;
use buildbee_proto::error::{ErrorCode, Retry};
use buildbee_proto::execute::ActionUpdate;
use buildbee_proto::tree::Twin;

use crate::bed::{Farm, again, processes_with, until};
use crate::content::{Content, GCC};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compile_has_the_bytes_of_a_local_one() {
    let farm = Farm::new();
    let agent = farm.agent(2).await;
    let client = farm.client(&agent).await;
    let project = tempfile::tempdir().unwrap();
    let folder = fs::canonicalize(project.path()).unwrap();
    let files = [
        (
            "t.c",
            "#include \"sub/h.h\"\n#include <stddef.h>\nint f(void) { return H + (int)sizeof(size_t); }\n#warning seen\n",
        ),
        ("sub/h.h", "#pragma once\n#define H 42\n"),
    ];
    let mut content = Content::default();
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        content = content.file(&path, client.store.put_file(&path).unwrap(), false);
    }
    let argv = [GCC, "-c", "-O2", "-g", "-MD", "t.c", "-o", "out/t.o"];
    let folder_text = folder.to_str().unwrap();
    let done =
        client.submit(&client.request_in(folder_text, &argv, &content, &["out/t.o", "out/t.d", "none"])).await.unwrap();

    fs::create_dir(folder.join("out")).unwrap();
    let local = Process::new(GCC)
        .args(&argv[1..])
        .current_dir(&folder)
        .env_clear()
        .env("LANG", "C")
        .env("PATH", "/usr/bin")
        .output();
    let local = local.unwrap();
    assert_eq!(done.result().exit_code, 0, "{}", done.stderr());
    assert_eq!(done.stderr().as_bytes(), local.stderr);
    assert!(done.stderr().contains("seen"));
    for output in ["out/t.o", "out/t.d"] {
        let remote = done.output(&format!("{}/{output}", folder_text.trim_start_matches('/'))).unwrap();
        assert!(remote == fs::read(folder.join(output)).unwrap(), "{output} differs");
    }
    assert_eq!(done.result().outputs.len(), 2, "what does not exist is left out");
    assert!(done.result().outputs.iter().all(|file| file.mode == 0o666), "modes are those under umask 0");
    assert!(done.result().provenance.sandboxed);
    assert_eq!(done.result().provenance.peer, agent.get().peer());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_is_a_result_and_is_not_kept() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let request = client.script("date +%N; exit 3", &[]);
    let first = client.submit(&request).await.unwrap();
    assert_eq!(first.result().exit_code, 3);
    let second = client.submit(&again(&request, |_| {})).await.unwrap();
    assert_ne!(first.stdout(), second.stdout(), "it ran again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_result_is_kept_unless_it_must_not() {
    let farm = Farm::new();
    let mut agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let request = client.script("date +%N", &[]);
    let first = client.submit(&request).await.unwrap();
    let second = client.submit(&again(&request, |_| {})).await.unwrap();
    assert_eq!(first.stdout(), second.stdout());
    let uncached = again(&request, |action| action.do_not_cache = true);
    let third = client.submit(&uncached).await.unwrap();
    let fourth = client.submit(&again(&uncached, |_| {})).await.unwrap();
    assert_ne!(third.stdout(), fourth.stdout());

    // And over a restart, without a compiler being run or a toolchain fetched.
    agent.stop().await;
    agent.restart(&farm, 1).await;
    let other = farm.client(&agent).await;
    let fifth = other.submit(&again(&request, |_| {})).await.unwrap();
    assert_eq!(first.stdout(), fifth.stdout());
}

/// A disk turns a bit of a toolchain's header while the agent is down, and nothing but the content shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_rotted_in_a_toolchain_is_not_compiled_with() {
    let farm = Farm::new();
    let mut agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let script = "while read -r line; do echo \"$line\"; done </usr/include/stdc-predef.h";
    let request = again(&client.script(script, &[]), |action| action.do_not_cache = true);
    let first = client.submit(&request).await.unwrap();
    assert!(!first.stdout().is_empty(), "{}", first.stderr());
    agent.stop().await;
    let toolchain = fs::read_dir(agent.dir.path().join("toolchains")).unwrap().next().unwrap().unwrap().path();
    let header = toolchain.join("root/usr/include/stdc-predef.h");
    let before = fs::metadata(&header).unwrap();
    fs::set_permissions(&header, Permissions::from_mode(0o600)).unwrap();
    let file = OpenOptions::new().write(true).open(&header).unwrap();
    file.write_all_at(b"?", 3).unwrap();
    file.set_permissions(before.permissions()).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    drop(file);

    agent.restart(&farm, 1).await;
    let other = farm.client(&agent).await;
    let second = other.submit(&again(&request, |_| {})).await.unwrap();
    assert!(first.stdout() == second.stdout(), "{}", String::from_utf8_lossy(second.stdout()));
}

/// The same of an input that was there already, while the agent runs: it is fetched again within the attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_was_written_to_is_fetched_again() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let large = ["first\n", &"x".repeat(400_000)].concat();
    let argv = ["/usr/bin/dash", "-c", "read -r line <large; echo $line"];
    let request =
        again(&client.request(&argv, &[("large", large.as_bytes())], &[]), |action| action.do_not_cache = true);
    assert_eq!(client.submit(&request).await.unwrap().stdout(), b"first\n");
    let shards = fs::read_dir(agent.dir.path().join("store/blobs")).unwrap().flatten();
    let blobs = shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten());
    let mut blobs = blobs.filter(|blob| blob.metadata().is_ok_and(|found| found.len() == large.len() as u64));
    let blob = blobs.next().expect("it is in the store").path();
    fs::set_permissions(&blob, Permissions::from_mode(0o600)).unwrap();
    OpenOptions::new().write(true).open(&blob).unwrap().write_all_at(b"F", 0).unwrap();
    let done = client.submit(&again(&request, |_| {})).await.unwrap();
    assert_eq!(done.stdout(), b"first\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_action_at_the_same_time_runs_once() {
    let farm = Farm::new();
    let agent = farm.agent(3).await;
    let (one, other) = (farm.client(&agent).await, farm.client(&agent).await);
    // It fails, so that no cache can make the answers equal.
    let script = "sleep 1; date +%N; exit 1";
    let (first, second) = (one.script(script, &[]), other.script(script, &[]));
    let (first, second) = tokio::join!(one.submit(&first), other.submit(&second));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.signed, second.signed);
    assert!(!first.stdout().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_sent_twice_runs_once() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let request = again(&client.script("sleep 1; date +%N; exit 1", &[]), |action| action.do_not_cache = true);
    // One slot: as two attempts, the second would be refused.
    let (first, second) = tokio::join!(client.submit(&request), client.submit(&request));
    assert_eq!(first.unwrap().signed, second.as_ref().unwrap().signed);
    let third = client.submit(&request).await.unwrap();
    assert_eq!(third.signed, second.unwrap().signed, "an attempt that ended is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_a_hard_limit() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let request = client.script("sleep 2.125", &[]);
    let mut stream = client.begin(client.agent, &request).await;
    assert_eq!(read_message(&mut stream).await.unwrap(), Some(ActionUpdate::Accepted));
    let refused = client.submit(&client.script("true", &[])).await.unwrap_err();
    assert_eq!((refused.code, refused.retry), (ErrorCode::Busy, Retry::OtherAgent));
    client.answer_after(true, &mut stream).await.unwrap();
    // The slot is free by the time that the result is here.
    client.submit(&client.script("true", &[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_action_with_it() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let request = client.request(&["/usr/bin/sleep", "3600.0625"], &[("here", b"")], &[]);
    let stream = client.begin(client.agent, &request).await;
    while processes_with("3600.0625") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(stream);
    let left = Instant::now();
    while processes_with("3600.0625") > 0 || agent.get().n_busy() > 0 {
        assert!(left.elapsed() < Duration::from_secs(1), "the sandbox outlives its client");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let work = agent.dir.path().join("work");
    until("nothing is left in the way", Duration::from_secs(5), || fs::read_dir(&work).unwrap().count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_what_runs() {
    let farm = Farm::new();
    let mut agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let request = client.request(&["/usr/bin/sleep", "3600.1875"], &[("here", b"")], &[]);
    let _stream = client.begin(client.agent, &request).await;
    while processes_with("3600.1875") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = Instant::now();
    agent.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert_eq!(processes_with("3600.1875"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_errors_not_results() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let slow = again(&client.script("sleep 30.25", &[]), |action| action.timeout_ms = 500);
    let error = client.submit(&slow).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Limit, Retry::Never), "{error}");
    let killed = client.submit(&client.script("kill -SEGV $$", &[])).await.unwrap_err();
    assert_eq!(killed.code, ErrorCode::Limit, "{killed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toolchain_for_another_machine_is_refused() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let mut client = farm.client(&agent).await;
    client.toolchain.host = "riscv128-linux".to_owned();
    let error = client.submit(&client.script("true", &[])).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Toolchain, Retry::OtherAgent), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_not_there_is_no_compile_error() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let error = client.submit(&client.request(&["/usr/bin/absent"], &[("here", b"")], &[])).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Sandbox, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_behind_links_of_the_project_are_found() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    // The project's folder is a link elsewhere, as in a home folder on another disk.
    let content = Content::default().symlink("/home/me/project", "/data/project").file(
        Path::new("/data/project/in"),
        client.store.put_bytes(b"data").unwrap(),
        false,
    );
    let argv = ["/usr/bin/dash", "-c", "read x < in; echo $x > out/y || exit 1; ln -s y out/z"];
    let request = client.request_in("/home/me/project", &argv, &content, &["out/y", "out/z"]);
    let done = client.submit(&request).await.unwrap();
    assert_eq!(done.output("home/me/project/out/y"), Some(&b"data\n"[..]), "{}", done.stderr());
    assert_eq!(done.output("home/me/project/out/z"), None, "links are not outputs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_files_are_what_the_client_says_they_are() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let put = |bytes: &[u8]| client.store.put_bytes(bytes).unwrap();
    let header = put(b"#pragma once\nX(__LINE__)\n");
    let source = put(b"#define X(n) + n\nint x = 0\n#include \"a.h\"\n#include \"b.h\"\n;\n");
    // gcc takes files for one if content and second of the last change agree.
    for (second, text) in [(0, "intx=0+2;"), (1, "intx=0+2+2;")] {
        let content = Content::default()
            .file(Path::new("/w/a.h"), header, false)
            .twin(Path::new("/w/b.h"), header, false, Twin { inode: 1, second })
            .file(Path::new("/w/t.c"), source, false);
        let done = client.submit(&client.request_in("/w", &[GCC, "-E", "-P", "t.c"], &content, &[])).await.unwrap();
        let found: String = String::from_utf8(done.stdout().to_vec()).unwrap().split_whitespace().collect();
        assert_eq!(found, text, "{}", done.stderr());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_can_be_sent_along() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let mut request = client.compile("int f(void) { return 1; }\n");
    request.inline = vec![buildbee_proto::codec::Bytes(b"int f(void) { return 1; }\n".to_vec())];
    let done = client.submit(&request).await.unwrap();
    assert!(done.output("w/t.o").is_some_and(|object| object.starts_with(b"\x7fELF")), "{}", done.stderr());
}
