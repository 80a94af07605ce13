//! The first time that agents need something: it leaves the client about once, goes on whatever becomes of who asked for it, and no attempt
//! fails because it takes long.

use std::path::Path;
use std::time::Duration;

use buildbee_proto::digest::Digest;
use buildbee_proto::execute::ActionRequest;

use crate::bed::{Client, Farm, Manner, RunningAgent, again, until};
use crate::content::Content;
use crate::farm::neighbours;

/// Files of an input folder of these tests, and their bytes.
const N_FILES: usize = 60;
const FILE_BYTES: usize = 150 << 10;

/// A script that counts files, and those files, which nobody else has.
fn counting(client: &Client) -> (ActionRequest, Vec<Digest>) {
    let mut content = Content::default();
    let mut digests = Vec::new();
    for n in 0..N_FILES {
        let mut bytes = vec![0; FILE_BYTES];
        blake3::Hasher::new()
            .update(&client.node.peer().0)
            .update(&[u8::try_from(n).unwrap()])
            .finalize_xof()
            .fill(&mut bytes);
        let digest = client.store.put_bytes(&bytes).unwrap();
        content = content.file(&Path::new("/w").join(format!("f{n}")), digest, false);
        digests.push(digest);
    }
    let argv = ["/usr/bin/dash", "-c", "n=0; for f in f*; do n=$((n + 1)); done; echo $n"];
    (client.request_in("/w", &argv, &content, &[]), digests)
}

fn n_sent(client: &Client, of: &[Digest]) -> usize {
    client.ledger.lock().unwrap().iter().filter(|((blob, _), _)| of.contains(blob)).map(|(_, n)| n).sum()
}

/// A client of both agents, and the toolchain with them.
async fn client_of_both(farm: &Farm, agents: [&RunningAgent; 2], manner: Manner) -> Client {
    let client = farm.client_who(agents[0], manner).await;
    let other = agents[1].get();
    client.node.connect(other.peer(), other.addresses(), Duration::from_secs(10)).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toolchain_for_two_agents_at_once_leaves_the_client_once() {
    let mut farm = Farm::new();
    let (_coordinator, one, other) = neighbours(&mut farm).await;
    let client = client_of_both(&farm, [&one, &other], Manner::Slow).await;
    let request = client.script("true", &[]);
    let second = again(&request, |action| action.timeout_ms += 1);
    let (first, second) =
        tokio::join!(client.submit_to(one.get().peer(), &request), client.submit_to(other.get().peer(), &second));
    first.unwrap();
    second.unwrap();
    let ledger = client.ledger.lock().unwrap();
    let (n_pieces, n_sent) = (ledger.len(), ledger.values().sum::<usize>());
    assert!(n_pieces > 30, "{n_pieces}");
    assert!(n_sent <= n_pieces + n_pieces / 5, "{n_sent} of {n_pieces}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_blobs_for_two_agents_at_once_leave_the_client_once() {
    let mut farm = Farm::new();
    let (_coordinator, one, other) = neighbours(&mut farm).await;
    let client = client_of_both(&farm, [&one, &other], Manner::Slow).await;
    for agent in [&one, &other] {
        client.submit_to(agent.get().peer(), &client.script("true", &[])).await.unwrap();
    }
    let (request, blobs) = counting(&client);
    let second = again(&request, |action| action.timeout_ms += 1);
    let (first, second) =
        tokio::join!(client.submit_to(one.get().peer(), &request), client.submit_to(other.get().peer(), &second));
    let said = format!("{N_FILES}\n").into_bytes();
    assert_eq!((first.unwrap().stdout(), second.unwrap().stdout()), (&said[..], &said[..]));
    let n = n_sent(&client, &blobs);
    assert!(n <= N_FILES + N_FILES / 4, "{n} of {N_FILES}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_cut_again_and_again_cost_no_attempt() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client_who(&agent, Manner::Cuts).await;
    let (request, blobs) = counting(&client);
    assert_eq!(client.submit(&request).await.unwrap().stdout(), format!("{N_FILES}\n").as_bytes());
    let n = n_sent(&client, &blobs);
    assert!(n <= N_FILES + N_FILES / 4, "{n} of {N_FILES}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toolchain_is_made_to_its_end_whoever_waits_for_it() {
    let mut farm = Farm::new();
    let (coordinator, one, _other) = neighbours(&mut farm).await;
    let client = farm.client_who(&one, Manner::Slow).await;
    let stream = client.begin(one.get().peer(), &client.script("true", &[])).await;
    until("some of it", Duration::from_secs(30), || client.ledger.lock().unwrap().len() > 4).await;
    drop(stream);
    one.idle().await;
    coordinator.until(one.get().peer(), "a toolchain", |state| !state.offer.toolchains.is_empty()).await;
    let ledger = client.ledger.lock().unwrap();
    assert!(ledger.values().all(|n| *n == 1), "{ledger:?}");
}
