//! Large blobs: in chunks, from several, gone on with after a cut, and never wrong.

use std::path::Path;
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::error::ErrorCode;
use buildbee_proto::execute::ActionRequest;

use crate::bed::{Client, Farm, Manner, again, until};
use crate::content::Content;
use crate::farm::neighbours;

/// Chunks of the blob of these tests.
const N_CHUNKS: usize = 24;

/// A script that says how many bytes there are in a large input, and that input.
fn request(client: &Client) -> (ActionRequest, Digest) {
    let mut content = vec![0; (N_CHUNKS << 20) - 4321];
    blake3::Hasher::new().update(client.node.peer().0.as_slice()).finalize_xof().fill(&mut content);
    let blob = client.store.put_bytes(&content).unwrap();
    let inputs = Content::default().file(Path::new("/w/large"), blob, false);
    let argv = ["/usr/bin/dash", "-c", "test -s large && echo there"];
    (client.request_in("/w", &argv, &inputs, &[]), blob)
}

fn n_sent(client: &Client, blob: Digest) -> usize {
    client.ledger.lock().unwrap().iter().filter(|((of, _), _)| *of == blob).map(|(_, n)| n).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_is_cut_again_and_again_goes_on() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client_who(&agent, Manner::Cuts).await;
    let (request, blob) = request(&client);
    let done = client.submit(&request).await.unwrap();
    assert_eq!(done.stdout(), b"there\n");
    // Nothing came twice, but for what was asked of two streams at once.
    let n = n_sent(&client, blob);
    assert!((N_CHUNKS..N_CHUNKS + 4).contains(&n), "{n} chunks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_goes_on_where_the_one_before_was_given_up() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client_who(&agent, Manner::Slow).await;
    client.submit(&client.script("true", &[])).await.unwrap();
    let (request, blob) = request(&client);
    let stream = client.begin(client.agent, &request).await;
    until("half of it", Duration::from_secs(30), || n_sent(&client, blob) >= N_CHUNKS / 2).await;
    drop(stream);
    agent.idle().await;
    client.submit(&again(&request, |_| {})).await.unwrap();
    // What was under way when it was given up came twice.
    let n = n_sent(&client, blob);
    assert!((N_CHUNKS..N_CHUNKS + 9).contains(&n), "{n} chunks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_still_receives_hands_on_what_came() {
    let mut farm = Farm::new();
    let (_coordinator, one, other) = neighbours(&mut farm).await;
    let client = farm.client_who(&one, Manner::Slow).await;
    client.node.connect(other.get().peer(), other.get().addresses(), Duration::from_secs(10)).await.unwrap();
    for agent in [&one, &other] {
        client.submit_to(agent.get().peer(), &client.script("true", &[])).await.unwrap();
    }
    let (request, blob) = request(&client);
    let mut first = client.begin(one.get().peer(), &request).await;
    until("some of it", Duration::from_secs(30), || n_sent(&client, blob) >= 4).await;
    let second = again(&request, |action| action.timeout_ms += 1);
    let (one_done, other_done) = tokio::join!(client.answer(&mut first), client.submit_to(other.get().peer(), &second));
    assert_eq!((one_done.unwrap().stdout(), other_done.unwrap().stdout()), (&b"there\n"[..], &b"there\n"[..]));
    let n = n_sent(&client, blob);
    assert!(n < N_CHUNKS + 6, "{n} chunks left the client for two agents");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_short_chunks_are_refused() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    for (manner, complaint) in [
        (Manner::LiesOnce, "bytes that are not"),
        (Manner::Boasts, "bytes that are not"),
        (Manner::Short, "ended the stream early"),
    ] {
        let client = farm.client_who(&agent, manner).await;
        let error = client.submit(&request(&client).0).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::MissingBlob, "{manner:?}: {error}");
        assert!(error.message.contains(complaint), "{manner:?}: {error}");
        agent.idle().await;
    }
    let honest = farm.client(&agent).await;
    assert_eq!(honest.submit(&request(&honest).0).await.unwrap().stdout(), b"there\n");
}

/// Each stream brings one good chunk; what follows it is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_nobody_asked_for_are_not_taken() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client_who(&agent, Manner::Endless).await;
    assert_eq!(client.submit(&request(&client).0).await.unwrap().stdout(), b"there\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_nothing_more_is_given_up() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client_who(&agent, Manner::Dawdles).await;
    // It says that it works, once, and the agent waits for more: until the client goes away.
    let stream = client.begin(client.agent, &request(&client).0).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(stream);
    agent.idle().await;
}
