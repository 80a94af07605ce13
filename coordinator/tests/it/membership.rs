//! Who gets in, and who doesn't.

use std::time::Duration;

use buildbee_coordinator::clock::unix_now;
use buildbee_coordinator::membership::farm::Farm;
use buildbee_p2p::enrolment::{Enrolment, JoinError, join};
use buildbee_p2p::frames::read_message;
use buildbee_p2p::identity::Identity;
use buildbee_proto::control::ControlReply;
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;

use crate::fixture::{Member, WITHIN, anywhere, offer, start, ticket};

#[tokio::test]
async fn a_ticket_lets_one_machine_in() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let ticket = ticket(folder.path(), coordinator.addresses(), Role::Client);
    let first = Identity::generate();
    let enrolment = join(&first, &ticket, "one", WITHIN, unix_now()).await.unwrap();
    assert_eq!(enrolment.membership.value.peer, first.peer());
    let again = join(&first, &ticket, "one", WITHIN, unix_now()).await.unwrap();
    assert_eq!(again.membership.value.peer, first.peer());
    match join(&Identity::generate(), &ticket, "two", WITHIN, unix_now()).await {
        Err(JoinError::Refused(error)) => assert_eq!(error.message, "the ticket was used before"),
        other => panic!("{other:?}"),
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_stranger_gets_nothing() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let coordinator = start(folder.path(), anywhere()).await;
    let own = Farm::open(folder.path(), unix_now()).unwrap();
    let foreign = Farm::open(elsewhere.path(), unix_now()).unwrap();
    let identity = Identity::generate();
    let invitation = foreign.invite(Role::Agent, vec![], unix_now() + 60, [1; 16]);
    let membership = foreign.enrol(&invitation, identity.peer(), "spy", unix_now()).unwrap().membership;
    let enrolment = Enrolment { membership, coordinator: own.identity().peer(), addresses: coordinator.addresses() };
    let spy = Member::enrolled(identity, enrolment.clone()).await;
    let connected = spy.node.connect(enrolment.coordinator, &enrolment.addresses, WITHIN).await;
    assert!(connected.is_err());
    assert!(spy.node.open(enrolment.coordinator, Protocol::Control).await.is_err());
    let counts = coordinator.scheduler().counts().await.unwrap();
    assert_eq!((counts.n_agents, counts.n_clients), (0, 0));
    coordinator.stop().await;
}

#[tokio::test]
async fn who_is_revoked_in_another_process_is_out_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let agent = Member::join(folder.path(), &coordinator, Role::Agent, "desk").await;
    let mut control = agent.open().await;
    control.agent(&offer(&agent, 2)).await;
    Farm::open(folder.path(), unix_now()).unwrap().revoke("desk", unix_now()).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(5), read_message::<ControlReply, _>(&mut control.stream));
    assert!(!matches!(end.await.expect("disconnected"), Ok(Some(_))));
    let Enrolment { coordinator: peer, addresses, .. } = &agent.enrolment;
    assert!(agent.node.connect(*peer, addresses, Duration::from_secs(5)).await.is_err());
    let mut n_agents = 1;
    for _ in 0..100 {
        n_agents = coordinator.scheduler().counts().await.unwrap().n_agents;
        if n_agents == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(n_agents, 0);
    coordinator.stop().await;
}
