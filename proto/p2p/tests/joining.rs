//! Joining a farm over TCP, with a coordinator of a few lines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use buildbee_p2p::enrolment::{Enrolment, JoinError, join};
use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::{Identity, verify_signed};
use buildbee_p2p::node::{NodeConfig, Sender, start};
use buildbee_p2p::testbed::{Farm, Member};
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{JoinReply, JoinRequest};
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::membership::{Signed, Ticket};
use buildbee_proto::peer::{PeerId, Role};
use buildbee_proto::version::Protocol;

use support::SOON;

const EXPIRES_AT: u64 = u64::MAX;

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

async fn hive() -> (Farm, Member) {
    let farm = Farm { key: Identity::generate(), members: Vec::new() };
    let hive = farm.start(Identity::generate(), Role::Coordinator, "hive", &["127.0.0.1:0"]).await.unwrap();
    (farm, hive)
}

fn ticket(farm: &Farm, coordinator: PeerId, addresses: &[String]) -> Signed<Ticket> {
    farm.key.signed(Ticket {
        farm: farm.key.peer(),
        coordinator,
        addresses: addresses.to_vec(),
        role: Role::Agent,
        issued_at: 0,
        expires_at: EXPIRES_AT,
        uses: 1,
        nonce: [7; 16],
    })
}

/// Admits everybody whose ticket the farm signed and whose name is not "rival". A newcomer called "rogue" gets another's membership.
fn serve_joins(farm: Farm, mut hive: Member) {
    tokio::spawn(async move {
        // The node ends with its last handle.
        let _node = hive.node;
        while let Some(mut served) = hive.inbound.next().await {
            assert_eq!(served.protocol, Protocol::Join);
            let Sender::Stranger { peer } = served.from else { panic!("{:?}", served.from) };
            let Ok(Some(request)) = read_message::<JoinRequest, _>(&mut served.stream).await else { continue };
            let ticket = Signed::<Ticket>::from_canonical(&request.ticket.0).unwrap();
            assert!(verify_signed(farm.key.peer(), &ticket));
            let named = if request.name == "rogue" { Identity::generate().peer() } else { peer };
            let reply = if request.name == "rival" {
                JoinReply::Refused(WireError::new(ErrorCode::Refused, Retry::Never, "the ticket was used before"))
            } else {
                let membership = farm.issue(named, ticket.value.role, &request.name).to_canonical();
                JoinReply::Welcome { membership: Bytes(membership), role: ticket.value.role }
            };
            write_message(&mut served.stream, &reply).await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_joined_machine_is_admitted() {
    let (farm, hive) = hive().await;
    let (peer, addresses) = (hive.node.peer(), hive.addresses.clone());
    let ticket = ticket(&farm, peer, &addresses);
    serve_joins(farm, hive);
    let identity = Identity::generate();
    let enrolment = join(&identity, &ticket, "desk-7", SOON, now()).await.unwrap();
    assert_eq!((enrolment.coordinator, &enrolment.addresses), (peer, &addresses));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enrolment");
    enrolment.save(&file).unwrap();
    let kept = Enrolment::load(&file).unwrap().unwrap();
    assert_eq!(kept, enrolment);
    let config = NodeConfig {
        identity,
        membership: kept.membership,
        roster: None,
        listen: vec![],
        mdns: false,
        accept_joins: false,
    };
    let (node, _inbound) = start(config).await.unwrap();
    assert_eq!(node.membership().name, "desk-7");
    node.connect(kept.coordinator, &kept.addresses, SOON).await.unwrap();
}

#[tokio::test]
async fn refusals_and_rogue_answers_are_told() {
    let (farm, hive) = hive().await;
    let ticket = ticket(&farm, hive.node.peer(), &hive.addresses);
    serve_joins(farm, hive);
    let identity = Identity::generate();
    let refused = join(&identity, &ticket, "rival", SOON, now()).await.unwrap_err();
    assert!(matches!(&refused, JoinError::Refused(error) if error.message.contains("used before")), "{refused}");
    let rogue = join(&identity, &ticket, "rogue", SOON, now()).await.unwrap_err();
    assert!(matches!(&rogue, JoinError::BadAnswer { reason } if reason.contains("another peer")), "{rogue}");
    for error in [refused, rogue] {
        assert!(error.to_string().contains("\nhint: "), "{error}");
    }
}

#[tokio::test]
async fn a_ticket_is_checked_before_anybody_is_asked() {
    let (farm, hive) = hive().await;
    let identity = Identity::generate();
    let good = ticket(&farm, hive.node.peer(), &hive.addresses);
    let mut altered = good.clone();
    altered.value.role = Role::Coordinator;
    assert!(matches!(join(&identity, &altered, "x", SOON, now()).await, Err(JoinError::BadSignature)));
    let old = farm.key.signed(Ticket { expires_at: 5, ..good.value.clone() });
    assert!(matches!(join(&identity, &old, "x", SOON, now()).await, Err(JoinError::Expired)));
    for name in ["", "a\nb", &"x".repeat(200)] {
        assert!(matches!(join(&identity, &good, name, SOON, now()).await, Err(JoinError::BadName { .. })), "{name}");
    }
}

#[tokio::test]
async fn an_absent_or_mistaken_coordinator_is_told() {
    let (farm, hive) = hive().await;
    let identity = Identity::generate();
    let absent = ticket(&farm, hive.node.peer(), &["127.0.0.1:1".to_owned()]);
    let error = join(&identity, &absent, "x", SOON, now()).await.unwrap_err();
    assert!(matches!(&error, JoinError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");

    let mistaken = ticket(&farm, Identity::generate().peer(), &hive.addresses);
    let error = join(&identity, &mistaken, "x", SOON, now()).await.unwrap_err();
    assert!(matches!(&error, JoinError::WrongPeer { found, .. } if *found == hive.node.peer()), "{error}");

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let error = join(&identity, &ticket(&farm, hive.node.peer(), &[address]), "x", Duration::from_millis(300), now())
        .await
        .unwrap_err();
    assert!(matches!(&error, JoinError::Unreachable { .. }), "{error}");

    // Takes connections, serves nothing: the join stream is never answered.
    let deaf = ticket(&farm, hive.node.peer(), &hive.addresses);
    let error = join(&identity, &deaf, "x", Duration::from_millis(500), now()).await.unwrap_err();
    assert!(matches!(&error, JoinError::Unreachable { .. }), "{error}");
}
