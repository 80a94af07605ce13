//! Leases over real connections.

use buildbee_p2p::frames::read_message;
use buildbee_proto::control::{ControlAnswer, ControlCall, ControlReply};
use buildbee_proto::error::ErrorCode;
use buildbee_proto::peer::Role;

use crate::fixture::{Member, WITHIN, anywhere, apply, offer, start, tokens};

#[tokio::test]
async fn agents_offer_and_clients_hold() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let agent = Member::join(folder.path(), &coordinator, Role::Agent, "desk-1").await;
    let client = Member::join(folder.path(), &coordinator, Role::Client, "board").await;
    let (mut to_agent, mut to_client) = (agent.open().await, client.open().await);
    let state = offer(&agent, 4);
    let first = to_agent.agent(&state).await;
    assert!(first.dealt.is_empty() && first.peers.is_some_and(|listing| listing.added.is_empty()));
    let roster = first.roster.expect("newer than none").resolve(None).unwrap();
    assert_eq!(roster.value.members.len(), 2);

    let desired = to_client.client(3, vec![]).await;
    assert_eq!(desired.leases.len(), 3);
    let agents = desired.agents.expect("one").added;
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0].n_slots, 4);
    assert_eq!(agents[0].offer.addresses, ["127.0.0.1:7471"], "where its connection comes from");

    let current =
        to_agent.agent(&buildbee_proto::control::AgentState { roster_version: roster.value.version, ..state }).await;
    assert_eq!(current.dealt.len(), 3);
    assert!(current.dealt.iter().all(|(_, holder)| *holder == client.node.peer()));
    assert_eq!(current.roster, None);

    // An agent's machine builds too.
    let own = to_agent.call(ControlCall::Client(client_state(1))).await;
    assert!(matches!(own, ControlAnswer::Client(desired) if desired.leases.len() == 1));

    // A client that leaves gives everything back at once.
    client.node.shutdown().await;
    let mut n_deals = 4;
    for _ in 0..100 {
        n_deals = coordinator.scheduler().counts().await.unwrap().n_deals;
        if n_deals == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(n_deals, 1);
    coordinator.stop().await;
}

fn client_state(n_wanted: u32) -> buildbee_proto::control::ClientState {
    let class = buildbee_proto::control::Class::Interactive;
    buildbee_proto::control::ClientState {
        n_wanted,
        toolchains: vec![],
        held: vec![],
        roster_version: 0,
        class,
        listing: 0,
    }
}

#[tokio::test]
async fn a_client_is_no_agent() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let client = Member::join(folder.path(), &coordinator, Role::Client, "board").await;
    let mut control = client.open().await;
    match control.call(ControlCall::Agent(offer(&client, 1))).await {
        ControlAnswer::Error(error) => assert_eq!(error.code, ErrorCode::Refused),
        other => panic!("{other:?}"),
    }
    assert_eq!(coordinator.scheduler().counts().await.unwrap().n_slots, 0);
    assert!(control.client(1, vec![]).await.leases.is_empty(), "the stream is still good");
    coordinator.stop().await;
}

#[tokio::test]
async fn the_newest_stream_of_a_peer_counts() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let agent = Member::join(folder.path(), &coordinator, Role::Agent, "desk").await;
    let mut old = agent.open().await;
    old.agent(&offer(&agent, 2)).await;
    let mut new = agent.open().await;
    new.agent(&offer(&agent, 2)).await;
    let end = tokio::time::timeout(WITHIN, read_message::<ControlReply, _>(&mut old.stream)).await.unwrap();
    assert!(!matches!(end, Ok(Some(_))));
    drop(old);
    new.agent(&offer(&agent, 2)).await;
    assert_eq!(coordinator.scheduler().counts().await.unwrap().n_slots, 2, "the old stream's end is not the agent's");
    coordinator.stop().await;
}

#[tokio::test]
async fn an_empty_coordinator_is_whole_after_one_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let listen = coordinator.addresses()[0].parse().unwrap();
    let agents = [
        Member::join(folder.path(), &coordinator, Role::Agent, "a").await,
        Member::join(folder.path(), &coordinator, Role::Agent, "b").await,
    ];
    let clients = [
        Member::join(folder.path(), &coordinator, Role::Client, "x").await,
        Member::join(folder.path(), &coordinator, Role::Client, "y").await,
    ];
    let mut states = [offer(&agents[0], 3), offer(&agents[1], 2)];
    let mut held = [vec![], vec![]];
    for (agent, state) in agents.iter().zip(&states) {
        // The stream is kept until all have called: its end would be the agent's.
        std::mem::forget({
            let mut control = agent.open().await;
            control.agent(state).await;
            control
        });
    }
    for (client, held) in clients.iter().zip(&mut held) {
        let mut control = client.open().await;
        *held = tokens(&control.client(2, vec![]).await);
        assert_eq!(held.len(), 2);
        std::mem::forget(control);
    }
    for (agent, state) in agents.iter().zip(&mut states) {
        let mut control = agent.open().await;
        *state = apply(state, &control.agent(state).await);
        std::mem::forget(control);
    }
    coordinator.stop().await;

    let coordinator = start(folder.path(), listen).await;
    // One that wants everything comes first and finds the others' leases where they were.
    let newcomer = Member::join(folder.path(), &coordinator, Role::Client, "z").await;
    let mut to_newcomer = newcomer.open().await;
    let mut streams = Vec::new();
    for (agent, state) in agents.iter().zip(&states) {
        agent.connect().await;
        let mut control = agent.open().await;
        control.agent(state).await;
        streams.push(control);
    }
    let taken = tokens(&to_newcomer.client(5, vec![]).await);
    assert!(taken.len() <= 1, "{taken:?}");
    for (client, held) in clients.iter().zip(&held) {
        client.connect().await;
        let mut control = client.open().await;
        assert_eq!(&tokens(&control.client(2, held.clone()).await), held);
        streams.push(control);
    }
    coordinator.stop().await;
}
