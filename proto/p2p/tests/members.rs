//! Members find, admit, lose and find each other again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use buildbee_p2p::delegation::Signer;
use buildbee_p2p::identity::Identity;
use buildbee_p2p::node::{ConnectError, NodeConfig, OpenError, RosterError, Sender, start};
use buildbee_p2p::testbed::{Farm, farm};
use buildbee_proto::delegation::{Delegation, Warrant};
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use support::{SOON, connect, echo, open, serve_echo, until_connected};

fn empty_farm() -> Farm {
    Farm { key: Identity::generate(), members: Vec::new() }
}

#[tokio::test]
async fn streams_open_both_ways_over_tcp() {
    let farm = empty_farm();
    let desk = farm.start(Identity::generate(), Role::Agent, "desk", &["127.0.0.1:0", "[::1]:0"]).await.unwrap();
    let board = farm.start(Identity::generate(), Role::Client, "board", &[]).await.unwrap();
    assert!(board.addresses.is_empty());
    assert!(desk.addresses.iter().all(|address| !address.ends_with(":0")), "{:?}", desk.addresses);
    assert_eq!(
        board.node.open(desk.node.peer(), Protocol::Action).await.unwrap_err(),
        OpenError::NotConnected { peer: desk.node.peer() }
    );

    connect(&board, &desk).await;
    // The desk opens on the board's connection the moment that it has admitted it.
    until_connected(&desk.node, board.node.peer(), true, SOON).await;
    let (from_desk, from_board) = (board.inbound, desk.inbound);
    serve_echo(from_desk);
    serve_echo(from_board);
    let large = vec![9; 3 << 20];
    assert_eq!(echo(&desk.node, board.node.peer(), &large).await.unwrap(), large);
    assert_eq!(echo(&board.node, desk.node.peer(), b"to the desk").await.unwrap(), b"to the desk");

    let table = desk.node.peers().borrow().clone();
    let entry = table.get(board.node.peer()).unwrap();
    assert_eq!((entry.role, entry.name.as_str()), (Role::Client, "board"));
    assert!(entry.address.contains(':'), "{}", entry.address);
    // Connected already: at once, and without an address.
    board.node.connect(desk.node.peer(), &[], Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_outruns_the_welcome_is_served() {
    for _ in 0..30 {
        let mut farm = farm(2).await.unwrap();
        let (board, desk) = (farm.members.pop().unwrap(), farm.members.pop().unwrap());
        serve_echo(board.inbound);
        // The desk opens the moment that it has admitted the board, which may not have read so yet.
        let (node, peer) = (desk.node.clone(), board.node.peer());
        let eager = tokio::spawn(async move {
            until_connected(&node, peer, true, SOON).await;
            echo(&node, peer, b"eager").await
        });
        board.node.connect(desk.node.peer(), &desk.addresses, SOON).await.unwrap();
        assert_eq!(eager.await.unwrap().unwrap(), b"eager");
    }
}

#[tokio::test]
async fn the_sender_is_named() {
    let mut farm = farm(2).await.unwrap();
    farm.connect_all().await.unwrap();
    let agent = farm.members.pop().unwrap();
    let mut coordinator = farm.members.pop().unwrap();
    let mut stream = agent.node.open(coordinator.node.peer(), Protocol::Control).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let served = coordinator.inbound.next().await.unwrap();
    assert_eq!(served.protocol, Protocol::Control);
    let name = "member-1".to_owned();
    assert_eq!(served.from, Sender::Member { peer: agent.node.peer(), role: Role::Agent, name });
    // Dropped unserved: reset, not a clean end.
    drop(served);
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(stream.write_all(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    // Ended cleanly: an end for the reader, again and again, even after the other side has gone.
    let mut stream = agent.node.open(coordinator.node.peer(), Protocol::Control).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut served = coordinator.inbound.next().await.unwrap();
    let mut byte = [0];
    served.stream.read_exact(&mut byte).await.unwrap();
    served.stream.write_all(b"answer").await.unwrap();
    served.stream.shutdown().await.unwrap();
    drop(served);
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 6);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stream.read(&mut byte).await.unwrap(), 0);
}

#[tokio::test]
async fn what_a_node_does_not_offer_is_unsupported() {
    let mut farm = farm(2).await.unwrap();
    farm.connect_all().await.unwrap();
    let (coordinator, agent) = (farm.members.remove(0), farm.members.remove(0));
    until_connected(&coordinator.node, agent.node.peer(), true, SOON).await;
    assert_eq!(
        coordinator.node.open(agent.node.peer(), Protocol::Join).await.unwrap_err(),
        OpenError::Unsupported { peer: agent.node.peer(), protocol: Protocol::Join }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_at_once_are_all_served() {
    let mut farm = farm(2).await.unwrap();
    farm.connect_all().await.unwrap();
    let (one, other) = (farm.members.remove(0), farm.members.remove(0));
    let peer = one.node.peer();
    serve_echo(one.inbound);
    let streams = (0..200_u32).map(|number| {
        let node = other.node.clone();
        tokio::spawn(async move {
            let bytes = number.to_le_bytes();
            // What the protocols do: again with a pause, if the stream ends before an answer.
            for _ in 0..5 {
                if echo(&node, peer, &bytes).await.is_ok_and(|back| back == bytes) {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(u64::from(number) % 50 + 10)).await;
            }
            false
        })
    });
    let served = futures::future::join_all(streams).await;
    assert!(served.into_iter().all(Result::unwrap));
}

#[tokio::test]
async fn a_full_queue_resets_and_counts() {
    let mut farm = farm(2).await.unwrap();
    farm.connect_all().await.unwrap();
    let (one, other) = (farm.members.remove(0), farm.members.remove(0));
    // Nobody takes streams from `one`; they are held open here so that the opener is not what ends them.
    let mut kept = Vec::new();
    for _ in 0..300 {
        kept.push(open(&other.node, one.node.peer()).await.unwrap());
    }
    let deadline = Instant::now() + SOON;
    while one.node.n_refused_streams() < 300 - 256 {
        assert!(Instant::now() < deadline, "{} refused", one.node.n_refused_streams());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(one.node.n_refused_streams(), 300 - 256);
}

#[tokio::test]
async fn dials_from_both_sides_meet() {
    for _ in 0..10 {
        let farm = farm(2).await.unwrap();
        let (one, other) = (&farm.members[0], &farm.members[1]);
        let ((), ()) = tokio::join!(connect(one, other), connect(other, one));
        until_connected(&one.node, other.node.peer(), true, SOON).await;
        until_connected(&other.node, one.node.peer(), true, SOON).await;
        assert!(open(&one.node, other.node.peer()).await.is_ok());
        assert!(open(&other.node, one.node.peer()).await.is_ok());
        farm.shutdown().await;
    }
}

#[tokio::test]
async fn a_kept_peer_is_found_again_after_it_restarts() {
    let farm = empty_farm();
    let identity = Identity::generate();
    let peer = identity.peer();
    let first = farm.start(identity.clone(), Role::Coordinator, "hive", &["127.0.0.1:0"]).await.unwrap();
    let address = first.addresses[0].clone();
    let agent = farm.start(Identity::generate(), Role::Agent, "desk", &[]).await.unwrap();
    agent.node.keep_connected(peer, vec![address.clone()]);
    until_connected(&agent.node, peer, true, SOON).await;
    let stay = || agent.node.peers().borrow().get(peer).map(|entry| entry.stay);
    let first_stay = stay().unwrap();

    first.node.shutdown().await;
    until_connected(&agent.node, peer, false, SOON).await;
    let again = farm.start(identity, Role::Coordinator, "hive", &[&address]).await.unwrap();
    until_connected(&agent.node, peer, true, Duration::from_secs(11)).await;
    assert!(stay().unwrap() > first_stay, "whoever looks only now sees that it was away");
    until_connected(&again.node, agent.node.peer(), true, SOON).await;

    agent.node.let_go(peer);
    again.node.shutdown().await;
    until_connected(&agent.node, peer, false, SOON).await;
}

#[tokio::test]
async fn a_peer_that_starts_later_is_found() {
    let farm = empty_farm();
    let identity = Identity::generate();
    let agent = farm.start(Identity::generate(), Role::Agent, "desk", &[]).await.unwrap();
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap().to_string();
    drop(probe);
    agent.node.keep_connected(identity.peer(), vec!["no-such-name.invalid:1".to_owned(), address.clone()]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let hive = farm.start(identity, Role::Coordinator, "hive", &[&address]).await.unwrap();
    until_connected(&agent.node, hive.node.peer(), true, SOON).await;
}

#[tokio::test]
async fn a_revoked_peer_is_disconnected_and_stays_out() {
    let farm = farm(3).await.unwrap();
    farm.connect_all().await.unwrap();
    let [coordinator, bad, good] = &farm.members[..] else { unreachable!() };
    let mut stream = open(&bad.node, coordinator.node.peer()).await.unwrap();
    until_connected(&coordinator.node, bad.node.peer(), true, SOON).await;

    let roster = farm.roster(2, vec![bad.node.peer()]);
    assert_eq!(coordinator.node.set_roster(roster.clone()), Ok(true));
    until_connected(&coordinator.node, bad.node.peer(), false, SOON).await;
    until_connected(&bad.node, coordinator.node.peer(), false, SOON).await;
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).await.is_err());
    assert!(coordinator.node.peers().borrow().contains(good.node.peer()));

    let refused = bad.node.connect(coordinator.node.peer(), &coordinator.addresses, SOON).await.unwrap_err();
    assert!(matches!(&refused, ConnectError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("revoked") && refused.to_string().contains("\nhint: "), "{refused}");
    let not_admitted = coordinator.node.connect(bad.node.peer(), &bad.addresses, SOON).await.unwrap_err();
    assert!(matches!(&not_admitted, ConnectError::NotAdmitted { .. }), "{not_admitted}");

    // Versions only rise, and only the farm signs them.
    assert_eq!(coordinator.node.set_roster(roster.clone()), Ok(false));
    assert_eq!(coordinator.node.set_roster(farm.roster(1, vec![])), Ok(false));
    assert_eq!(coordinator.node.roster().unwrap().value.version, 2);
    let mut forged = farm.roster(3, vec![]);
    forged.signature = roster.signature;
    assert_eq!(coordinator.node.set_roster(forged), Err(RosterError::Forged));
    let other = empty_farm();
    assert!(matches!(coordinator.node.set_roster(other.roster(9, vec![])), Err(RosterError::OtherFarm { .. })));
}

#[tokio::test]
async fn rosters_of_a_signer_count_within_its_time_and_until_it_is_revoked() {
    const DAY: u64 = 24 * 60 * 60;
    let farm = farm(1).await.unwrap();
    let node = &farm.members[0].node;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let signed = |key: &Identity, version, issued_at, expires_at| {
        let delegation = Delegation { farm: farm.key.peer(), signer: key.peer(), issued_at, expires_at };
        let warrant = Warrant { signature: farm.key.sign(&delegation), delegation };
        Signer::warranted(key.clone(), warrant).unwrap().signed(farm.roster(version, vec![]).value)
    };
    let (thief, next) = (Identity::generate(), Identity::generate());
    let over = signed(&thief, 1_000, now - 20 * DAY, now - 2 * DAY);
    assert!(matches!(node.set_roster(over), Err(RosterError::Signer(_))));
    let end = now + 20 * DAY;
    assert_eq!(node.set_roster(signed(&thief, end + 1, now, end)), Err(RosterError::Forged), "no last roster of all");
    assert_eq!(node.set_roster(signed(&thief, end, now, end)), Ok(true));
    assert_eq!(node.hear_roster(signed(&thief, end - 1, now, end)), Ok(false), "an older one");
    assert_eq!(node.set_roster(farm.roster(end + 1, vec![thief.peer()])), Ok(true));
    assert!(matches!(node.set_roster(signed(&thief, end + 2, now, end + 9)), Err(RosterError::Signer(_))));
    assert_eq!(node.set_roster(signed(&next, end + 2, now, end + 9)), Ok(true));
}

#[tokio::test]
async fn failures_to_connect_are_told_apart() {
    let farm = farm(2).await.unwrap();
    let (one, other) = (&farm.members[0], &farm.members[1]);
    let nobody = Identity::generate().peer();
    let wrong = one.node.connect(nobody, &other.addresses, SOON).await.unwrap_err();
    assert!(matches!(wrong, ConnectError::WrongPeer { found, .. } if found == other.node.peer()), "{wrong}");
    let closed = one.node.connect(nobody, &["127.0.0.1:1".to_owned()], SOON).await.unwrap_err();
    assert!(matches!(&closed, ConnectError::Unreachable { reason, .. } if reason.contains("refused")), "{closed}");
    let malformed = one.node.connect(nobody, &["nowhere".to_owned()], SOON).await.unwrap_err();
    assert!(matches!(malformed, ConnectError::Address(_)), "{malformed}");
    let itself = one.node.connect(one.node.peer(), &one.addresses, SOON).await.unwrap_err();
    assert!(matches!(itself, ConnectError::BadPeer { .. }), "{itself}");

    let elsewhere = empty_farm();
    let foreign = elsewhere.start(Identity::generate(), Role::Agent, "foreign", &["memory:0"]).await.unwrap();
    let refused = one.node.connect(foreign.node.peer(), &foreign.addresses, SOON).await.unwrap_err();
    assert!(matches!(&refused, ConnectError::Refused { .. }), "{refused}");
    for error in [wrong, closed, malformed, itself, refused] {
        assert!(error.to_string().contains("\nhint: "), "{error}");
    }
}

#[tokio::test]
async fn a_silent_peer_is_given_up_and_its_streams_fail() {
    let farm = empty_farm();
    let hive = farm.start(Identity::generate(), Role::Coordinator, "hive", &["127.0.0.1:0"]).await.unwrap();
    let agent = farm.start(Identity::generate(), Role::Agent, "desk", &[]).await.unwrap();
    let (cable, cut) = cable(hive.addresses[0].clone()).await;
    agent.node.connect(hive.node.peer(), &[cable], SOON).await.unwrap();
    let mut stream = open(&agent.node, hive.node.peer()).await.unwrap();
    cut.store(true, Ordering::SeqCst);
    let start = Instant::now();
    let mut byte = [0];
    let read = tokio::time::timeout(SOON, stream.read(&mut byte)).await.expect("the stream hangs");
    assert!(read.is_err());
    assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
    until_connected(&agent.node, hive.node.peer(), false, SOON).await;
    until_connected(&hive.node, agent.node.peer(), false, SOON).await;
}

/// A network cable that can be cut: what is sent then goes nowhere, and no end is closed.
async fn cable(to: String) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cut = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cut);
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(to).await.unwrap();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        for (mut from, mut to) in [(near_in, far_out), (far_in, near_out)] {
            let cut = Arc::clone(&flag);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(n) = from.read(&mut buffer).await {
                    if n == 0 && !cut.load(Ordering::SeqCst) {
                        return;
                    }
                    if cut.load(Ordering::SeqCst) {
                        // Never closed.
                        std::future::pending::<()>().await;
                    }
                    if to.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, cut)
}

#[tokio::test]
#[ignore = "needs a network interface with multicast"]
async fn kept_peers_are_found_by_multicast() {
    let farm = empty_farm();
    let mut nodes = Vec::new();
    for name in ["one", "two", "three"] {
        let identity = Identity::generate();
        let membership = farm.issue(identity.peer(), Role::Agent, name);
        let listen = vec!["0.0.0.0:0".to_owned()];
        let config = NodeConfig { identity, membership, roster: None, listen, mdns: true, accept_joins: false };
        nodes.push(start(config).await.unwrap());
    }
    let [one, two, three] = &nodes[..] else { unreachable!() };
    one.0.keep_connected(two.0.peer(), vec![]);
    until_connected(&one.0, two.0.peer(), true, SOON).await;
    // Wanted only after it was discovered.
    one.0.keep_connected(three.0.peer(), vec![]);
    until_connected(&one.0, three.0.peer(), true, SOON).await;
}

#[test]
fn shutdown_leaves_no_task_behind() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let farm = farm(3).await.unwrap();
        farm.connect_all().await.unwrap();
        let node = farm.members[0].node.clone();
        let stream = open(&farm.members[1].node, node.peer()).await.unwrap();
        farm.shutdown().await;
        assert!(matches!(node.open(farm.members[1].node.peer(), Protocol::Blob).await, Err(OpenError::Stopped)));
        let late = node.connect(farm.members[1].node.peer(), &farm.members[1].addresses, SOON).await;
        assert!(matches!(late, Err(ConnectError::Stopped)));
        drop(stream);
        let mut inbound = farm.members.into_iter().next().unwrap().inbound;
        while inbound.next().await.is_some() {}
        let deadline = Instant::now() + SOON;
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > before {
            assert!(Instant::now() < deadline, "tasks are left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[tokio::test]
async fn a_node_without_handles_ends() {
    let mut farm = farm(1).await.unwrap();
    let member = farm.members.pop().unwrap();
    let mut inbound = member.inbound;
    drop(member.node);
    assert!(tokio::time::timeout(SOON, inbound.next()).await.unwrap().is_none());
}
