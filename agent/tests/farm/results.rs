//! Copies of results: made at once, made again when one is lost, and nothing made twice at the same time.

use std::fs;
use std::time::Duration;

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{CacheReply, CacheRequest};
use buildbee_proto::filter::{Filter, of_result};
use buildbee_proto::peer::PeerId;
use buildbee_proto::responsible::keepers;
use buildbee_proto::version::Protocol;

use crate::bed::{Client, Farm, RunningAgent};
use crate::farm::{found, found_soon, neighbourhood};

/// Longer than a repair takes, on a busy machine too: who is late once is passed over for half a minute.
const REPAIR: Duration = Duration::from_secs(120);

async fn ask(client: &Client, agent: PeerId, request: CacheRequest) -> CacheReply {
    let mut stream = client.node.open(agent, Protocol::Cache).await.unwrap();
    write_message(&mut stream, &request).await.unwrap();
    read_message(&mut stream).await.unwrap().expect("an answer")
}

async fn client_of_all(farm: &Farm, agents: &[RunningAgent]) -> Client {
    let client = farm.client(&agents[0]).await;
    for agent in &agents[1..] {
        client.node.connect(agent.get().peer(), agent.get().addresses(), Duration::from_secs(10)).await.unwrap();
    }
    client
}

/// Waits until at least `n` of `agents` have the result of `action`.
async fn copies(client: &Client, agents: &[RunningAgent], action: Digest, n: usize) {
    let enough = async {
        loop {
            let mut n_found = 0;
            for agent in agents {
                n_found += usize::from(found(client, agent.get().peer(), action).await.is_some());
            }
            if n_found >= n {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(REPAIR, enough).await.unwrap_or_else(|_| panic!("no {n} copies of {action}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_copies_are_made_again_and_what_is_owed_outlives_a_restart() {
    let mut farm = Farm::new();
    let (_coordinator, mut agents) = neighbourhood(&mut farm, 3).await;
    let client = client_of_all(&farm, &agents).await;
    let mut actions = Vec::new();
    for n in 0..6 {
        let done = client.submit(&client.script(&format!("echo {n} > made"), &["made"])).await.unwrap();
        actions.push(done.result().action);
    }
    for action in &actions {
        copies(&client, &agents, *action, 2).await;
    }
    // The one who made all of it, and its store, are gone for good; who comes has another key.
    let mut gone = agents.remove(0);
    gone.stop().await;
    for action in &actions {
        copies(&client, &agents, *action, 2).await;
    }
    // Another store is lost: what was in it comes back from the last.
    agents[0].stop().await;
    fs::remove_dir_all(agents[0].dir.path().join("store")).unwrap();
    // Others look around twice a second here; who is away for less is not missed by them (`Schedule::observe`).
    tokio::time::sleep(Duration::from_secs(2)).await;
    agents[0].restart(&farm, 2).await;
    client.node.connect(agents[0].get().peer(), agents[0].get().addresses(), Duration::from_secs(10)).await.unwrap();
    for action in &actions {
        copies(&client, &agents, *action, 2).await;
    }
    // Made while nobody else is there, and handed on after a restart.
    agents[0].stop().await;
    let alone = farm.client(&agents[1]).await;
    let action = alone.submit(&alone.script("echo alone", &[])).await.unwrap().result().action;
    agents[1].stop().await;
    for agent in &mut agents {
        agent.restart(&farm, 2).await;
    }
    let client = client_of_all(&farm, &agents).await;
    copies(&client, &agents, action, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_else_has_is_handed_on_at_the_end() {
    let mut farm = Farm::new();
    let (_coordinator, mut agents) = neighbourhood(&mut farm, 2).await;
    let client = client_of_all(&farm, &agents).await;
    let action = client.submit(&client.script("echo last", &[])).await.unwrap().result().action;
    // At once: nothing has been announced yet.
    agents.remove(0).stop().await;
    assert!(found(&client, agents[0].get().peer(), action).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_second_is_told_that_it_is_coming_and_what_came() {
    let mut farm = Farm::new();
    let (_coordinator, agents) = neighbourhood(&mut farm, 2).await;
    let (first, second) = (client_of_all(&farm, &agents).await, client_of_all(&farm, &agents).await);
    let request = first.script("sleep 0.5; echo made", &[]);
    let action = Digest::of(&request.action.0);
    let members = agents.iter().map(|agent| (agent.get().peer(), buildbee_proto::peer::Role::Agent)).collect();
    let arbiter = keepers(&action, &farm.roster(3, members).value)[0];
    let claim = CacheRequest::Claim { action, nonce: 1 };
    assert_eq!(ask(&first, arbiter, claim.clone()).await, CacheReply::Claimed);
    assert_eq!(ask(&first, arbiter, claim.clone()).await, CacheReply::Claimed, "the same run asks again");
    assert_eq!(ask(&second, arbiter, claim.clone()).await, CacheReply::Coming);
    // It is run where the claim is not, so that the result has a way to go.
    let elsewhere = agents.iter().map(|agent| agent.get().peer()).find(|peer| *peer != arbiter).unwrap();
    let (done, came) =
        tokio::join!(first.submit_to(elsewhere, &request), ask(&second, arbiter, CacheRequest::Await { action }));
    let done = done.unwrap();
    let CacheReply::Found(Some(came)) = came else { panic!("{came:?}") };
    assert_eq!(came.0, buildbee_proto::canonical::Canonical::to_canonical(&done.signed));
    assert!(matches!(ask(&second, arbiter, claim).await, CacheReply::Found(Some(_))));
    // Who gives up lets the next one begin.
    let other = Digest::of(b"another action");
    let claim = CacheRequest::Claim { action: other, nonce: 1 };
    assert_eq!(ask(&first, arbiter, claim.clone()).await, CacheReply::Claimed);
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ask(&first, arbiter, CacheRequest::Release { claims: vec![(other, 1)] }).await
    };
    let (waited, released) = tokio::join!(ask(&second, arbiter, CacheRequest::Await { action: other }), release);
    assert_eq!((waited, released), (CacheReply::Found(None), CacheReply::Noted));
    assert_eq!(ask(&second, arbiter, claim).await, CacheReply::Claimed);
    let CacheReply::Filter(update) = ask(&second, elsewhere, CacheRequest::Filter { known: None }).await else {
        panic!()
    };
    let filter = Filter::from_bytes(update.whole.unwrap().0).unwrap();
    assert!(filter.may_have(of_result(&action)) && !filter.may_have(of_result(&other)));
    assert!(found_soon(&second, elsewhere, action).await.is_some());
}
