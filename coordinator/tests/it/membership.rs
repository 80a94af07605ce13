//! Who gets in, and who doesn't.

use std::path::Path;
use std::time::Duration;

use buildbee_coordinator::clock::unix_now;
use buildbee_coordinator::membership::farm::Farm;
use buildbee_coordinator::membership::register::MEMBERSHIP_SECONDS;
use buildbee_p2p::enrolment::{Enrolment, JoinError, join};
use buildbee_p2p::frames::read_message;
use buildbee_p2p::identity::Identity;
use buildbee_p2p::papers::{Files, Papers};
use buildbee_proto::control::ControlReply;
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Member, WITHIN, anywhere, offer, start, ticket, ticket_from};

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
    let invitation = ticket_from(&foreign, vec![], Role::Agent, unix_now());
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

fn files(folder: &Path) -> Files {
    let file = |name| folder.join(name);
    Files { enrolment: file("enrolment"), roster: file("roster"), neighbours: file("neighbours") }
}

#[tokio::test]
async fn a_membership_is_renewed_in_the_background_and_shown_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let farm = Farm::open(folder.path(), unix_now()).unwrap();
    let identity = Identity::generate();
    let long_ago = unix_now() - MEMBERSHIP_SECONDS + 100;
    let ticket = ticket_from(&farm, vec![], Role::Client, long_ago);
    let membership = farm.enrol(&ticket, identity.peer(), "board", long_ago).unwrap().membership;
    let old = Enrolment { membership, coordinator: farm.identity().peer(), addresses: coordinator.addresses() };
    let member = Member::enrolled(identity.clone(), old.clone()).await;
    let files = files(folder.path());
    let file = files.enrolment.clone();
    let papers = Papers::new(member.node.clone(), old.clone(), files);
    let stop = CancellationToken::new();
    tokio::spawn(papers.upkeep_task(stop.clone()));
    let renewed = async {
        loop {
            if let Ok(Some(kept)) = Enrolment::load(&file)
                && kept.membership.value.issued_at > old.membership.value.issued_at
            {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let kept = tokio::time::timeout(WITHIN, renewed).await.unwrap();
    assert!(kept.membership.value.expires_at > old.membership.value.expires_at + MEMBERSHIP_SECONDS / 2);
    assert_eq!(kept.membership.value.peer, identity.peer());
    // It is good for a start of its own.
    stop.cancel();
    member.node.shutdown().await;
    Member::enrolled(identity, kept).await.connect().await;
    coordinator.stop().await;
}

#[tokio::test]
async fn a_coordinator_whose_folder_came_from_a_backup_learns_what_it_forgot() {
    let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let coordinator = start(folder.path(), anywhere()).await;
    for file in ["farm.key", "node.key", "members.json", "roster.bin"] {
        std::fs::copy(folder.path().join(file), backup.path().join(file)).unwrap();
    }
    let agent = Member::join(folder.path(), &coordinator, Role::Agent, "desk").await;
    Member::join(folder.path(), &coordinator, Role::Client, "spy").await;
    let farm = Farm::open(folder.path(), unix_now()).unwrap();
    farm.revoke("spy", unix_now()).unwrap();
    let newest = farm.read_roster().unwrap().unwrap();
    agent.node.set_roster(newest.clone()).unwrap();
    coordinator.stop().await;

    let coordinator = start(backup.path(), anywhere()).await;
    let papers = Papers::new(
        agent.node.clone(),
        Enrolment { addresses: coordinator.addresses(), ..agent.enrolment.clone() },
        files(backup.path()),
    );
    agent.answer(papers);
    let restored = Farm::open(backup.path(), unix_now()).unwrap();
    let whole = async {
        loop {
            let roster = restored.read_roster().unwrap().unwrap().value;
            if roster.members == newest.value.members && roster.revoked == newest.value.revoked {
                return roster;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let roster = tokio::time::timeout(WITHIN, whole).await.unwrap();
    assert!(roster.version > newest.value.version);
    coordinator.stop().await;
}

#[tokio::test]
async fn members_from_before_and_after_a_delegation_follow_a_coordinator_without_the_farms_key() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), anywhere()).await;
    let agent = Member::join(folder.path(), &coordinator, Role::Agent, "desk").await;
    let keys = Farm::open(folder.path(), unix_now()).unwrap().keys().unwrap();
    coordinator.stop().await;
    let end = unix_now() + 1_000_000;
    Farm::delegate(folder.path(), &keys, "box", unix_now(), end).unwrap();

    let coordinator = start(folder.path(), anywhere()).await;
    let peer = agent.enrolment.coordinator;
    agent.node.connect(peer, &coordinator.addresses(), WITHIN).await.unwrap();
    let client = Member::join(folder.path(), &coordinator, Role::Client, "laptop").await;
    assert!(client.enrolment.membership.warrant.is_some());
    let farm = Farm::open(folder.path(), unix_now()).unwrap();
    let roster = farm.read_roster().unwrap().unwrap();
    assert!(agent.node.set_roster(roster.clone()).unwrap());
    assert!(!agent.node.set_roster(roster.clone()).unwrap(), "no news twice");
    farm.revoke("laptop", unix_now()).unwrap();
    let newest = farm.read_roster().unwrap().unwrap();
    assert!(agent.node.hear_roster(newest).unwrap());
    assert!(!agent.node.hear_roster(roster).unwrap(), "an older one");
    coordinator.stop().await;
}
