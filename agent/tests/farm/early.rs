//! An output that is wanted before the program has ended.

use buildbee_p2p::frames::read_message;
use buildbee_proto::digest::Digest;
use buildbee_proto::execute::{ActionRequest, ActionUpdate};
use tokio::io::AsyncReadExt;

use crate::bed::Farm;

/// Writes `x.rmeta`, says so as rustc does, and goes on for a while. The sandbox has a shell and nothing else.
const SCRIPT: &str = "echo warning >&2; printf metadata >x.rmeta; \
    echo '{\"$message_type\":\"artifact\",\"artifact\":\"/w/x.rmeta\",\"emit\":\"metadata\"}' >&2; \
    i=0; while [ $i -lt 500000 ]; do i=$((i + 1)); done; echo done >&2; printf code >x.rlib";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wanted_early_comes_before_the_end() {
    let farm = Farm::new();
    let agent = farm.agent(2).await;
    let client = farm.client(&agent).await;
    let request = ActionRequest { early: Some(1), ..client.script(SCRIPT, &["x.rlib", "x.rmeta"]) };
    let mut stream = client.begin(client.agent, &request).await;
    let (output, stderr) = loop {
        match read_message::<ActionUpdate, _>(&mut stream).await.unwrap().unwrap() {
            ActionUpdate::Early { output, stderr, mode, observed: None } => {
                assert_eq!(mode & 0o600, 0o600);
                break (output, stderr.0);
            }
            ActionUpdate::Accepted | ActionUpdate::Lacks(_) | ActionUpdate::Running(_) => {}
            update => panic!("{update:?}"),
        }
    };
    assert_eq!(output, Digest::of(b"metadata"));
    let mut content = [0; 8];
    stream.read_exact(&mut content).await.unwrap();
    assert_eq!(&content, b"metadata");
    let finished = client.answer_after(true, &mut stream).await.unwrap();
    assert_eq!(finished.output("w/x.rmeta"), Some(&b"metadata"[..]));
    assert_eq!(finished.output("w/x.rlib"), Some(&b"code"[..]));
    let whole = &finished.blobs[&finished.result().stderr];
    assert!(whole.starts_with(&stderr) && whole.len() > stderr.len());
    assert!(stderr.starts_with(b"warning\n{") && stderr.ends_with(b"}\n"));
    // Who asks again gets it all at once.
    let again = client.submit(&ActionRequest { attempt: [7; 16], ..request }).await.unwrap();
    assert_eq!(again.output("w/x.rmeta"), Some(&b"metadata"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_written_is_not_handed_out() {
    let farm = Farm::new();
    let agent = farm.agent(2).await;
    let client = farm.client(&agent).await;
    let lie = "echo '{\"artifact\":\"/w/x.rmeta\"}' >&2; \
        i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; printf late >x.rmeta";
    for early in [Some(0), Some(9)] {
        let request = ActionRequest { early, ..client.script(lie, &["x.rmeta"]) };
        // Panics at an update that is no part of an ordinary answer.
        let finished = client.submit(&request).await.unwrap();
        assert_eq!(finished.output("w/x.rmeta"), Some(&b"late"[..]));
    }
}
