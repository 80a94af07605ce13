//! What an agent does for a client that lies, forgets or breaks the rules.

use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::Identity;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::entry::{Entry, EntryName};
use buildbee_proto::error::{ErrorCode, Retry};
use buildbee_proto::exchange::{BlobHave, BlobRequest, CacheReply, CacheRequest};
use buildbee_proto::limits::MAX_ANNOUNCED_BYTES;
use buildbee_proto::outcome::{ActionResult, Provenance};
use buildbee_proto::peer::Role;
use buildbee_proto::tree::{Directory, DirectoryNode};
use buildbee_proto::version::Protocol;
use tokio::io::AsyncReadExt;

use crate::bed::{Farm, Manner, again};
use crate::farm::found;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_nobody_has_is_named() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let root = Digest::of(b"never stored");
    let request = again(&client.script("true", &[]), |action| action.input_root = root);
    let error = client.submit(&request).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::MissingBlob, Retry::Never));
    assert!(error.message.contains(&root.hex()), "{error}");
    agent.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_not_what_they_should_be_are_refused() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let liar = farm.client_who(&agent, Manner::Lies).await;
    let request = liar.compile("int x;\n");
    let error = liar.submit(&request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MissingBlob);
    assert!(error.message.contains("bytes that are not"), "{error}");
    agent.idle().await;
    // Nothing of it sticks: the same request by an honest client is served.
    let honest = farm.client(&agent).await;
    let done = honest.submit(&honest.compile("int x;\n")).await.unwrap();
    assert_eq!(done.result().exit_code, 0, "{}", done.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_do_not_belong_together_are_refused() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let good = client.script("true", &[]);
    let other = client.script("false", &[]);
    let toolchain = buildbee_proto::toolchain::Toolchain { label: "other".to_owned(), ..client.toolchain.clone() };
    let cases = [
        ("command", again(&good, |action| action.command = Digest::of(b"other"))),
        (
            "toolchain",
            buildbee_proto::execute::ActionRequest { toolchain: Bytes(toolchain.to_canonical()), ..good.clone() },
        ),
        ("command", buildbee_proto::execute::ActionRequest { command: other.command, ..good.clone() }),
        ("action", buildbee_proto::execute::ActionRequest { action: Bytes(b"junk".to_vec()), ..good.clone() }),
        ("along", buildbee_proto::execute::ActionRequest { inline: vec![Bytes(vec![0; 9 << 20])], ..good.clone() }),
    ];
    for (what, request) in cases {
        let error = client.submit(&request).await.unwrap_err();
        assert_eq!((error.code, error.retry), (ErrorCode::Invalid, Retry::Never), "{what}: {error}");
        assert!(error.message.contains(what), "{error}");
    }
    client.submit(&good).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_without_end_are_refused() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let mut below = client.store.put_bytes(&Directory::default().to_canonical()).unwrap();
    for _ in 0..60 {
        let directories =
            ["a", "b", "c"].map(|name| DirectoryNode { name: name.try_into().unwrap(), digest: below }).to_vec();
        let directory = Directory { directories, ..Directory::default() };
        below = client.store.put_bytes(&directory.to_canonical()).unwrap();
    }
    let request = again(&client.script("true", &[]), |action| action.input_root = below);
    let error = client.submit(&request).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Invalid, Retry::Never), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_reads_nothing_and_runs_nothing() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    client.submit(&client.script("echo secret", &[])).await.unwrap();
    let request = BlobRequest::Have(vec![Digest::of(b"secret\n")]);
    let mut stream = client.node.open(agent.get().peer(), Protocol::Blob).await.unwrap();
    write_message(&mut stream, &request).await.unwrap();
    assert_eq!(read_message::<BlobHave, _>(&mut stream).await.unwrap().unwrap().present, [true], "a member may");

    let (node, _inbound) = farm.node(Identity::generate(), Role::Coordinator, &[]).await;
    node.connect(agent.get().peer(), agent.get().addresses(), Duration::from_secs(10)).await.unwrap();
    for protocol in [Protocol::Blob, Protocol::Cache, Protocol::Action] {
        let Ok(mut stream) = node.open(agent.get().peer(), protocol).await else { continue };
        let sent = match protocol {
            Protocol::Blob => write_message(&mut stream, &request).await,
            Protocol::Cache => write_message(&mut stream, &CacheRequest::Find { action: Digest::of(b"any") }).await,
            _ => write_message(&mut stream, &client.script("true", &[])).await,
        };
        let answered = match sent {
            Ok(()) => matches!(stream.read(&mut [0]).await, Ok(1..)),
            Err(_) => false,
        };
        assert!(!answered, "{protocol:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_sees_nothing_of_the_agent() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let state = agent.dir.path().to_str().unwrap();
    let script =
        format!("for x in {state} /etc/passwd /home /root; do test -e $x && echo $x; done; echo > {state}-x; true");
    let done = client.submit(&client.script(&script, &[])).await.unwrap();
    assert_eq!(String::from_utf8_lossy(done.stdout()), "");
    assert!(!std::path::Path::new(&format!("{state}-x")).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_blobs_that_the_result_does_not_name_are_not_taken_in() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let liar = Identity::generate();
    let (node, _inbound) = farm.node(liar.clone(), Role::Agent, &[]).await;
    node.connect(agent.get().peer(), agent.get().addresses(), Duration::from_secs(10)).await.unwrap();
    let mut stream = node.open(agent.get().peer(), Protocol::Cache).await.unwrap();
    let provenance = Provenance { peer: liar.peer(), sandboxed: true, wall_ms: 1, cpu_ms: 1, peak_memory_bytes: 1 };
    let (text, empty) = (Digest::of(b"text"), Digest::of(b""));
    let result = |action: &[u8]| ActionResult {
        action: Digest::of(action),
        exit_code: 0,
        outputs: Vec::new(),
        stdout: text,
        stderr: empty,
        observed: None,
        provenance: provenance.clone(),
    };
    let known = |action: &'static [u8]| found(&client, agent.get().peer(), Digest::of(action));
    for (action, blob, is_good) in [
        (&b"lie"[..], &b"lies"[..], false),
        (b"short", b"tex", false),
        (b"long", b"texts", false),
        (b"truth", b"text", true),
    ] {
        let result = Bytes(liar.sign_result(result(action)).to_canonical());
        let blobs = vec![Bytes(blob.to_vec())];
        write_message(&mut stream, &CacheRequest::Announce { result, blobs }).await.unwrap();
        let answer = read_message(&mut stream).await.unwrap();
        assert_eq!(matches!(answer, Some(CacheReply::Kept)), is_good, "{answer:?}");
        assert_eq!(known(action).await.is_some(), is_good);
    }
    let mut forged = liar.sign_result(result(b"forged"));
    forged.result.exit_code = 0;
    forged.result.stdout = empty;
    let result_of_nobody = Bytes(forged.to_canonical());
    write_message(&mut stream, &CacheRequest::Announce { result: result_of_nobody, blobs: Vec::new() }).await.unwrap();
    assert!(matches!(read_message(&mut stream).await.unwrap(), Some(CacheReply::Refused(_))));
    let large = Bytes(vec![0; MAX_ANNOUNCED_BYTES + 1]);
    let result = Bytes(liar.sign_result(result(b"large")).to_canonical());
    write_message(&mut stream, &CacheRequest::Announce { result, blobs: vec![large] }).await.unwrap();
    assert!(matches!(read_message(&mut stream).await.unwrap(), Some(CacheReply::Refused(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_keep_entries_of_their_own_and_nothing_else() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let reader = farm.client(&agent).await;
    let own = Identity::generate();
    let (node, _inbound) = farm.node(own.clone(), Role::Client, &[]).await;
    node.connect(agent.get().peer(), agent.get().addresses(), Duration::from_secs(10)).await.unwrap();
    let mut stream = node.open(agent.get().peer(), Protocol::Cache).await.unwrap();
    let name = EntryName::new("project/ab/cdef").unwrap();
    let now = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let entry = |value: &[u8], put_at_ms| Entry {
        name: name.clone(),
        value: Some(Digest::of(value)),
        put_at_ms,
        by: own.peer(),
    };
    let mut announce = async |result: ActionResult, by: &Identity, value: &[u8]| {
        let (result, blobs) = (Bytes(by.sign_result(result).to_canonical()), vec![Bytes(value.to_vec())]);
        write_message(&mut stream, &CacheRequest::Announce { result, blobs }).await.unwrap();
        matches!(read_message(&mut stream).await.unwrap(), Some(CacheReply::Kept))
    };
    let kept = async || {
        let found = found(&reader, agent.get().peer(), name.key()).await?;
        Entry::of(&found.result).unwrap().value
    };
    let mut of_an_action = entry(b"lie", now).result();
    of_an_action.action = Digest::of(b"an action");
    assert!(!announce(of_an_action.clone(), &own, b"lie").await, "in an action's place");
    of_an_action.provenance.sandboxed = true;
    assert!(!announce(of_an_action, &own, b"lie").await, "as if an agent had made it");
    let other = Identity::generate();
    let foreign = Entry { by: other.peer(), ..entry(b"lie", now) };
    assert!(!announce(foreign.result(), &other, b"lie").await, "for somebody else");
    assert!(!announce(entry(b"lie", now).result(), &other, b"lie").await, "signed by another");
    assert!(!announce(entry(b"lie", now + 40 * 24 * 3_600_000).result(), &own, b"lie").await, "from the future");
    assert_eq!(kept().await, None);
    assert!(announce(entry(b"first", now).result(), &own, b"first").await);
    assert!(announce(entry(b"newer", now + 2).result(), &own, b"newer").await);
    assert_eq!(kept().await, Some(Digest::of(b"newer")), "the newest counts");
    assert!(announce(entry(b"late", now + 1).result(), &own, b"late").await);
    assert_eq!(kept().await, Some(Digest::of(b"newer")), "whenever it comes");
    let removed = Entry { value: None, ..entry(b"", now + 3) };
    let nothing = Bytes(own.sign_result(removed.result()).to_canonical());
    write_message(&mut stream, &CacheRequest::Announce { result: nothing, blobs: Vec::new() }).await.unwrap();
    assert!(matches!(read_message(&mut stream).await.unwrap(), Some(CacheReply::Kept)));
    assert_eq!(kept().await, None);
}
