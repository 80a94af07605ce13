//! Blobs that a client offers along with an action. The client of these tests has them nowhere else: what is not sent is not to be had.

use std::path::Path;
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::PeerStream;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::ErrorCode;
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Supply};

use crate::bed::{Client, Farm, again};
use crate::content::Content;

const SOURCE: &[u8] = b"int offered;\n";

/// A script whose input is offered, and in nobody's store.
fn offering(client: &Client) -> ActionRequest {
    let content = Content::default().file(Path::new("/w/t.c"), Digest::of(SOURCE), false);
    let argv = ["/usr/bin/dash", "-c", "read line <t.c && echo \"$line\""];
    let request = client.request_in("/w", &argv, &content, &[]);
    ActionRequest { offered: vec![Digest::of(b""), Digest::of(SOURCE)], ..request }
}

fn supply(blobs: &[&[u8]]) -> Supply {
    Supply { blobs: blobs.iter().map(|blob| Bytes(blob.to_vec())).collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_lacks_is_sent_once() {
    let farm = Farm::new();
    let agent = farm.agent(2).await;
    let client = farm.client(&agent).await;
    client.submit(&client.script("true", &[])).await.unwrap();
    let request = offering(&client);
    let mut first = client.begin(client.agent, &request).await;
    let lacks = read_message(&mut first).await.unwrap();
    assert_eq!(lacks, Some(ActionUpdate::Lacks(vec![false, true])), "the empty blob was there");
    // The same, at the same time, is on its way.
    let mut second = client.begin(client.agent, &again(&request, |action| action.do_not_cache = true)).await;
    assert_eq!(read_message(&mut second).await.unwrap(), Some(ActionUpdate::Accepted));
    write_message(&mut first, &supply(&[SOURCE])).await.unwrap();
    for stream in [&mut first, &mut second] {
        let finished = client.answer_after(true, stream).await.unwrap();
        assert_eq!(finished.blobs[&finished.result().stdout], SOURCE);
    }
    let mut third = client.begin(client.agent, &again(&request, |action| action.timeout_ms += 1)).await;
    assert_eq!(read_message(&mut third).await.unwrap(), Some(ActionUpdate::Accepted));
    client.answer_after(true, &mut third).await.unwrap();
}

/// Begins the action with the offer, and what the agent says first. The slot of an attempt before it is free shortly after its end.
async fn begin_when_free(client: &Client) -> (PeerStream, Option<ActionUpdate>) {
    for _ in 0..250 {
        let mut stream = client.begin(client.agent, &again(&offering(client), |_| {})).await;
        match read_message(&mut stream).await.unwrap() {
            Some(ActionUpdate::Failed(error)) if error.code == ErrorCode::Busy => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            first => return (stream, first),
        }
    }
    panic!("the slot stays taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supply_that_is_not_what_was_offered_ends_the_attempt() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    client.submit(&client.script("true", &[])).await.unwrap();
    for bad in [supply(&[b"int other;\n"]), supply(&[]), supply(&[SOURCE, SOURCE])] {
        let (mut stream, first) = begin_when_free(&client).await;
        assert_eq!(first, Some(ActionUpdate::Lacks(vec![false, true])));
        write_message(&mut stream, &bad).await.unwrap();
        while let Ok(Some(update)) = read_message(&mut stream).await {
            assert!(!matches!(update, ActionUpdate::Finished { .. }), "{bad:?}");
        }
    }
    // The slot is free again, and the blob can still come.
    let (mut stream, _) = begin_when_free(&client).await;
    write_message(&mut stream, &supply(&[SOURCE])).await.unwrap();
    client.answer_after(true, &mut stream).await.unwrap();
}
