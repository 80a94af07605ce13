//! Blobs that a client offers along with an action. The client of these tests has them nowhere else: what is not sent is not to be had.

use std::path::Path;
use std::time::Duration;

use buildbee_p2p::difference::shortened;
use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::node::PeerStream;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::ErrorCode;
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Alike, Supply};

use crate::bed::{Client, Farm, again};
use crate::content::Content;

const SOURCE: &[u8] = b"int offered;\n";

/// A script whose input is offered, and in nobody's store.
fn offering(client: &Client) -> ActionRequest {
    offering_of(client, SOURCE)
}

fn offering_of(client: &Client, source: &[u8]) -> ActionRequest {
    let content = Content::default().file(Path::new("/w/t.c"), Digest::of(source), false);
    let argv = ["/usr/bin/dash", "-c", "read line <t.c && echo \"$line\""];
    let request = client.request_in("/w", &argv, &content, &[]);
    ActionRequest { offered: vec![Digest::of(b""), Digest::of(source)], ..request }
}

/// A source of many lines that don't compress.
fn long(first: &str) -> Vec<u8> {
    let lines = (0..100u8).map(|n| Digest::of(&[n]).to_string());
    std::iter::once(first.to_owned()).chain(lines).flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// `content` by what differs from `base`.
fn differing(base: &[u8], content: &[u8], request: &ActionRequest) -> Alike {
    let frame = shortened(content, &Alike::prefix([base], &request.offered)).unwrap();
    assert!(frame.len() < 200, "{}", frame.len());
    Alike { n_blobs: 1, bases: vec![Digest::of(base)], frame: Bytes(frame) }
}

fn supply(blobs: &[&[u8]]) -> Supply {
    Supply { blobs: blobs.iter().map(|blob| Bytes(blob.to_vec())).collect(), alike: None }
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
async fn begin_when_free(client: &Client, request: &ActionRequest) -> (PeerStream, Option<ActionUpdate>) {
    for _ in 0..250 {
        let mut stream = client.begin(client.agent, &again(request, |_| {})).await;
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
        let (mut stream, first) = begin_when_free(&client, &offering(&client)).await;
        assert_eq!(first, Some(ActionUpdate::Lacks(vec![false, true])));
        write_message(&mut stream, &bad).await.unwrap();
        while let Ok(Some(update)) = read_message(&mut stream).await {
            assert!(!matches!(update, ActionUpdate::Finished { .. }), "{bad:?}");
        }
    }
    // The slot is free again, and the blob can still come.
    let (mut stream, _) = begin_when_free(&client, &offering(&client)).await;
    write_message(&mut stream, &supply(&[SOURCE])).await.unwrap();
    client.answer_after(true, &mut stream).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_from_an_earlier_blob_is_enough() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    client.submit(&client.script("true", &[])).await.unwrap();
    let sources = ["int one;", "int two;", "int three;"].map(long);
    let begin = async |request: &ActionRequest, supply: Supply| {
        let (mut stream, lacks) = begin_when_free(&client, request).await;
        assert_eq!(lacks, Some(ActionUpdate::Lacks(vec![false, true])));
        write_message(&mut stream, &supply).await.unwrap();
        stream
    };
    let request = offering_of(&client, &sources[0]);
    let mut stream = begin(&request, supply(&[&sources[0]])).await;
    client.answer_after(true, &mut stream).await.unwrap();
    let request = offering_of(&client, &sources[1]);
    let good = differing(&sources[0], &sources[1], &request);
    let bad = [
        Alike { n_blobs: 2, ..good.clone() },
        Alike { n_blobs: 0, ..good.clone() },
        // What it never had; itself, for which it would wait for ever.
        Alike { bases: vec![Digest::of(b"unknown")], ..good.clone() },
        Alike { bases: vec![Digest::of(&sources[1])], ..good.clone() },
        Alike { bases: Vec::new(), ..good.clone() },
        Alike { frame: Bytes(b"no frame".to_vec()), ..good.clone() },
        differing(&sources[0], &sources[2], &request),
    ];
    let only = |alike| Supply { blobs: vec![Bytes::default()], alike: Some(alike) };
    for alike in bad {
        let mut stream = begin(&request, only(alike.clone())).await;
        let ended = async {
            while let Ok(Some(update)) = read_message(&mut stream).await {
                assert!(!matches!(update, ActionUpdate::Finished { .. }), "{alike:?}");
            }
        };
        tokio::time::timeout(Duration::from_secs(8), ended).await.unwrap();
    }
    let mut stream = begin(&request, only(good)).await;
    let finished = client.answer_after(true, &mut stream).await.unwrap();
    assert_eq!(finished.blobs[&finished.result().stdout], b"int two;\n");
}
