//! Results as hostile agents make them.

use buildbee_p2p::identity::Identity;
use buildbee_proto::outcome::{OutputFile, Provenance};

use super::*;

fn path(text: &str) -> RelPath {
    text.try_into().unwrap()
}

fn outputs() -> Vec<OutputPlace> {
    let output = |name, always| OutputPlace { place: path(name), always, before: None };
    vec![output("w/x.d", true), output("w/x.dwo", false), output("w/x.o", true)]
}

fn result() -> ActionResult {
    let file = |name: &str, content: &[u8]| OutputFile { path: path(name), digest: Digest::of(content), mode: 0o644 };
    ActionResult {
        action: Digest::of(b"action"),
        exit_code: 0,
        outputs: vec![file("w/x.d", b"x.o: x.c"), file("w/x.o", b"object")],
        stdout: Digest::of(b""),
        stderr: Digest::of(b"warning"),
        observed: None,
        provenance: Provenance {
            peer: Identity::generate().peer(),
            sandboxed: true,
            wall_ms: 1,
            cpu_ms: 1,
            peak_memory_bytes: 1,
        },
    }
}

fn said(change: impl FnOnce(&mut ActionResult)) -> Result<(), &'static str> {
    let mut result = result();
    change(&mut result);
    fits(&result, &Digest::of(b"action"), &outputs())
}

#[test]
fn results_must_be_what_was_asked_for() {
    assert_eq!(said(|_| {}), Ok(()));
    assert_eq!(said(|result| result.action = Digest::of(b"other")), Err("it is another action's"));
    assert_eq!(said(|result| result.provenance.sandboxed = false), Err("it was not made in a sandbox"));
    let foreign = said(|result| result.outputs[1].path = path("home/me/.profile"));
    assert_eq!(foreign, Err("it names a file that was not asked for"));
    assert_eq!(said(|result| drop(result.outputs.pop())), Err("it lacks a file that was asked for"));
    let twice = said(|result| result.outputs[1] = result.outputs[0].clone());
    assert_eq!(twice, Err("it lacks a file that was asked for"));
    let more = |result: &mut ActionResult| {
        result.outputs.insert(1, OutputFile { path: path("w/x.dwo"), digest: Digest::of(b"dwo"), mode: 0o644 });
    };
    assert_eq!(said(more), Ok(()), "a file that may be written");
    let failed = |result: &mut ActionResult| {
        result.exit_code = 1;
        result.outputs.clear();
    };
    assert_eq!(said(failed), Ok(()), "a program that fails leaves what it likes");
    let empty = Digest { size_bytes: 0, ..Digest::of(b"x") };
    assert_eq!(said(|result| result.outputs[1].digest = empty), Err("it names empty content by another name"));
}

#[tokio::test]
async fn content_must_be_announced_once_and_whole() {
    let signed = Identity::generate().sign_result(result());
    let contents: BTreeMap<Digest, &[u8]> =
        [&b"x.o: x.c"[..], b"object", b"warning"].map(|content| (Digest::of(content), content)).into();
    let [first, second, third] = [0, 1, 2].map(|n| *contents.keys().nth(n).unwrap());
    let attempts = [
        (vec![first, second, third], true),
        (vec![third, first, second], true),
        (vec![first, first, second], false),
        (vec![first, second], false),
        (vec![first, second, third, third], false),
        (vec![first, second, Digest::of(b"other")], false),
    ];
    for (announced, good) in attempts {
        let sent: Vec<u8> =
            announced.iter().flat_map(|digest| contents.get(digest).copied().unwrap_or(b"other")).copied().collect();
        let received = receive(&mut sent.as_slice(), &signed, &announced).await;
        assert_eq!(received.is_ok(), good, "{announced:?}");
        if let Ok(received) = received {
            assert!(received.iter().all(|(digest, content)| Digest::of(content) == *digest));
        }
    }
    let mut wrong = contents.values().copied().collect::<Vec<_>>().concat();
    wrong[3] ^= 1;
    let received = receive(&mut wrong.as_slice(), &signed, &[first, second, third]).await;
    assert!(matches!(received, Err(AttemptError::BadResult(_))));
}

#[tokio::test(start_paused = true)]
async fn a_word_is_waited_for_while_bytes_are_taken() {
    let begun = Instant::now();
    let (still, moving) = (move || begun, move || begun + begun.elapsed());
    let word = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    assert!(matches!(while_moving(ACCEPT_DEADLINE, &still, word(3)).await, Err(AttemptError::Silent)));
    assert_eq!(begun.elapsed(), ACCEPT_DEADLINE);
    while_moving(ACCEPT_DEADLINE, &moving, word(15)).await.unwrap();
    let begun = Instant::now();
    assert!(while_moving(ACCEPT_DEADLINE, &moving, word(3600)).await.is_err());
    assert_eq!(begun.elapsed(), WORD_DEADLINE);
}

#[tokio::test]
async fn bytes_of_a_lying_peer_are_never_taken() {
    let good = vec![7; 300 << 10];
    let digest = Digest::of(&good);
    let mut flipped = good.clone();
    flipped[123_456] ^= 1;
    let mut endless = good.clone();
    endless.extend(vec![9; 1 << 20]);
    for (sent, is_good) in [(good.clone(), true), (flipped, false), (good[..1000].to_vec(), false), (endless, true)] {
        let (mut peer, mut ours) = tokio::io::duplex(64 << 10);
        let sending = async move {
            // Nobody reads what follows.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut peer, &sent).await;
        };
        let reading = async {
            let read = read_blob(&mut ours, &digest).await;
            drop(ours);
            read
        };
        let ((), read) = tokio::join!(sending, reading);
        assert_eq!(read.is_ok(), is_good);
        assert!(read.is_err() || read.is_ok_and(|read| read == good), "as long as it should be, and not a byte more");
    }
}
