//! Who is no member gets nothing, and can't make a member pay for asking.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use buildbee_p2p::frames::{read_message, write_message};
use buildbee_p2p::identity::Identity;
use buildbee_p2p::node::{NodeConfig, Sender, StartError, start};
use buildbee_p2p::testbed::{Farm, Member, farm};
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{Hello, HelloReply};
use buildbee_proto::membership::{Membership, Signed};
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;
use libp2p::identity::Keypair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use support::{Log, SOON, Stranger, peer_of};

/// All but the two that a stranger may open.
const FOR_MEMBERS: [Protocol; 5] =
    [Protocol::Control, Protocol::Action, Protocol::Blob, Protocol::Cache, Protocol::StorePath];

/// Makes something bad of a good membership.
type Forge = Box<dyn Fn(Membership) -> Signed<Membership>>;

async fn coordinator() -> (Farm, Member) {
    let mut farm = farm(1).await.unwrap();
    let member = farm.members.pop().unwrap();
    (farm, member)
}

/// Shows `membership` and returns the answer.
async fn show(stranger: &mut Stranger, to: &Member, membership: Vec<u8>) -> Option<HelloReply> {
    let mut stream = stranger.open(to, Protocol::Hello).await.unwrap();
    write_message(&mut stream, &Hello { membership: Bytes(membership), features: 0 }).await.unwrap();
    tokio::time::timeout(SOON, read_message(&mut stream)).await.unwrap().ok().flatten()
}

fn assert_nothing_arrived(member: &mut Member) {
    let waiting = futures::FutureExt::now_or_never(member.inbound.next());
    assert!(waiting.is_none(), "{waiting:?}");
    assert!(member.node.peers().borrow().0.is_empty());
}

#[tokio::test]
async fn a_stranger_without_membership_gets_nothing_and_one_line() {
    let (log, _guard) = Log::capture();
    let (_farm, mut member) = coordinator().await;
    let key = Keypair::generate_ed25519();
    let mut stranger = Stranger::connect(key.clone(), &member).await;
    for protocol in FOR_MEMBERS.into_iter().cycle().take(40) {
        assert!(stranger.gets_nothing(&member, protocol).await, "{protocol:?}");
    }
    assert_nothing_arrived(&mut member);
    let lines = log.lines_with(&peer_of(&key).short());
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("no membership of this farm"), "{}", lines[0]);
    stranger.until_closed(Duration::from_secs(8)).await;
}

#[tokio::test]
async fn bad_memberships_are_refused_with_the_reason() {
    let (log, _guard) = Log::capture();
    let (farm, mut member) = coordinator().await;
    let other_farm = Identity::generate();
    let colleague = farm.issue(Identity::generate().peer(), Role::Coordinator, "colleague");
    let revoked = Keypair::generate_ed25519();
    assert_eq!(member.node.set_roster(farm.roster(1, vec![peer_of(&revoked)])), Ok(true));

    let good = |key: &Keypair| farm.issue(peer_of(key), Role::Agent, "stranger").value;
    let cases: Vec<(&str, Keypair, Forge)> = vec![
        ("of another farm", Keypair::generate_ed25519(), {
            let other_farm = other_farm.clone();
            Box::new(move |value| other_farm.signed(Membership { farm: other_farm.peer(), ..value }))
        }),
        ("signature does not hold", Keypair::generate_ed25519(), Box::new(move |value| other_farm.signed(value))),
        ("expired", Keypair::generate_ed25519(), {
            let key = farm.key.clone();
            Box::new(move |value| key.signed(Membership { issued_at: 1, expires_at: 2, ..value }))
        }),
        ("revoked", revoked, {
            let key = farm.key.clone();
            Box::new(move |value| key.signed(value))
        }),
        ("of another peer", Keypair::generate_ed25519(), Box::new(move |_| colleague.clone())),
    ];
    for (reason, key, forge) in cases {
        let mut stranger = Stranger::connect(key.clone(), &member).await;
        let membership = forge(good(&key)).to_canonical();
        match show(&mut stranger, &member, membership).await {
            Some(HelloReply::Refused(error)) => assert!(error.message.contains(reason), "{reason}: {error}"),
            other => panic!("{reason}: {other:?}"),
        }
        for protocol in FOR_MEMBERS {
            assert!(stranger.gets_nothing(&member, protocol).await, "{reason}: {protocol:?}");
        }
        let lines = log.lines_with(&peer_of(&key).short());
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains(reason), "{}", lines[0]);
    }
    assert_nothing_arrived(&mut member);
}

#[tokio::test]
async fn a_good_membership_opens_the_door() {
    // The counterpart of the tests above: the same stranger with the right papers.
    let (farm, mut member) = coordinator().await;
    let key = Keypair::generate_ed25519();
    let mut newcomer = Stranger::connect(key.clone(), &member).await;
    let papers = farm.issue(peer_of(&key), Role::Client, "newcomer").to_canonical();
    assert!(matches!(show(&mut newcomer, &member, papers).await, Some(HelloReply::Welcome(_))));
    let mut stream = newcomer.open(&member, Protocol::Control).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    let served = tokio::time::timeout(SOON, member.inbound.next()).await.unwrap().unwrap();
    assert_eq!(served.from.peer(), peer_of(&key));
}

#[tokio::test]
async fn hostile_hellos_are_dropped() {
    let (_farm, mut member) = coordinator().await;
    let garbage: [&[u8]; 4] = [&[0xff; 4], &[0xff; 64], &[0, 0, 0, 0], b"\x04\x00\x00\x00\xff\xff\xff\xff"];
    for bytes in garbage {
        let mut stranger = Stranger::connect(Keypair::generate_ed25519(), &member).await;
        let mut stream = stranger.open(&member, Protocol::Hello).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("no end");
        assert!(read.is_err() || answer.is_empty(), "{bytes:?} was answered");
    }
    assert_nothing_arrived(&mut member);
}

#[tokio::test]
async fn a_hello_that_trickles_is_dropped() {
    let (_farm, mut member) = coordinator().await;
    let mut stranger = Stranger::connect(Keypair::generate_ed25519(), &member).await;
    let mut stream = stranger.open(&member, Protocol::Hello).await.unwrap();
    let start = Instant::now();
    stream.write_all(&10_000_u32.to_le_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    while start.elapsed() < SOON {
        if stream.write_all(&[0]).await.is_err() || stream.flush().await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    stranger.until_closed(SOON).await;
    assert_nothing_arrived(&mut member);
}

#[tokio::test]
async fn a_crowd_of_strangers_does_not_keep_members_out() {
    let (farm, member) = coordinator().await;
    let mut crowd = Vec::new();
    for _ in 0..90 {
        crowd.push(Stranger::connect(Keypair::generate_ed25519(), &member).await);
    }
    let n_closed = || crowd.iter().filter(|stranger| *stranger.closed.borrow()).count();
    let deadline = Instant::now() + Duration::from_secs(3);
    while n_closed() < 90 - 64 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(n_closed() >= 90 - 64, "only {} were closed", n_closed());
    let agent = farm.start(Identity::generate(), Role::Agent, "desk", &[]).await.unwrap();
    agent.node.connect(member.node.peer(), &member.addresses, SOON).await.unwrap();
}

#[tokio::test]
async fn joins_reach_the_coordinator_once_a_connection_and_nobody_else() {
    let (farm, mut member) = coordinator().await;
    let key = Keypair::generate_ed25519();
    let mut stranger = Stranger::connect(key.clone(), &member).await;
    let mut first = stranger.open(&member, Protocol::Join).await.unwrap();
    first.write_all(b"x").await.unwrap();
    first.flush().await.unwrap();
    let served = tokio::time::timeout(SOON, member.inbound.next()).await.unwrap().unwrap();
    assert_eq!(served.from, Sender::Stranger { peer: peer_of(&key) });
    assert!(stranger.gets_nothing(&member, Protocol::Join).await);
    assert_nothing_arrived(&mut member);

    let mut agent = farm.start(Identity::generate(), Role::Agent, "desk", &["memory:0"]).await.unwrap();
    let mut stranger = Stranger::connect(Keypair::generate_ed25519(), &agent).await;
    assert!(stranger.gets_nothing(&agent, Protocol::Join).await);
    assert_nothing_arrived(&mut agent);
}

#[tokio::test]
async fn a_node_does_not_start_with_papers_of_others() {
    let (farm, member) = coordinator().await;
    let config = |identity: Identity, membership| NodeConfig {
        identity,
        membership,
        roster: None,
        listen: vec![],
        mdns: false,
        accept_joins: false,
    };
    let thief = Identity::generate();
    let stolen = start(config(thief.clone(), member.membership.clone())).await.unwrap_err();
    assert!(matches!(stolen, StartError::Membership(_)), "{stolen}");
    let mut altered = farm.issue(thief.peer(), Role::Client, "thief");
    altered.value.role = Role::Coordinator;
    let altered = start(config(thief, altered)).await.unwrap_err();
    assert!(altered.to_string().contains("signature does not hold") && altered.to_string().contains("\nhint: "));
}
