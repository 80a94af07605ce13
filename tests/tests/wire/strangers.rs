//! One stranger at a time: without papers, with another farm's, and with nothing but bytes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use buildbee_p2p::identity::Identity;
use buildbee_p2p::node::{self, NodeConfig};
use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{Class, ClientState, ControlCall, ControlRequest, JoinRequest};
use buildbee_proto::digest::Digest;
use buildbee_proto::exchange::{BlobRequest, CacheRequest};
use buildbee_proto::membership::Membership;
use buildbee_proto::peer::Role;
use buildbee_proto::version::Protocol;
use buildbee_tests::farm::{Farm, Options};
use libp2p::identity::Keypair;

use crate::door::{Door, SOON, Stranger, peer_of};
use crate::member::{Member, digest_of, now, request};

pub(crate) fn farm(n_agents: usize) -> Farm {
    Farm::up(Options { n_agents, ..Options::default() })
}

/// Compiles `name` on the farm. Its object's digest, and its action's.
pub(crate) fn built(farm: &Farm, name: &str) -> (Digest, Digest) {
    fs::create_dir_all(farm.path("project")).unwrap();
    fs::write(farm.path("project").join(format!("{name}.c")), format!("int {name}(void) {{ return 42; }}\n")).unwrap();
    let (_, remote, _) = farm.counts();
    let mut compile = farm.client("buildbee");
    compile.args(["gcc", "-O1", "-c", &format!("{name}.c")]).current_dir(farm.path("project"));
    farm.must_run(&mut compile);
    assert_eq!(farm.counts().1, remote + 1, "{name}.c was to be compiled by the farm: {}", farm.json(&["explain"]));
    let action = farm.json(&["explain", name])["actions"][0]["action"].as_str().unwrap().parse().unwrap();
    (digest_of(&farm.path("project").join(format!("{name}.o"))), action)
}

/// How many lines a process has written about `peer`.
fn lines(log: &str, peer: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains(peer)).map(str::to_owned).collect()
}

fn logs(farm: &Farm) -> [String; 2] {
    [farm.coordinator.as_ref().unwrap().log(), farm.agents[0].as_ref().unwrap().log()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_nothing_for_well_formed_requests() {
    let farm = farm(1);
    let (object, action) = built(&farm, "secret");
    let member = Member::join(&farm, "colleague", 1).await;
    let agent = Door::agent(&farm, 0);
    // What a member gets.
    assert_eq!(member.blob(&agent, object).await.as_deref().map(Digest::of), Some(object));
    assert_eq!(member.result(&agent, action).await.unwrap().result.action, action);
    let client = ClientState {
        n_wanted: 8,
        toolchains: Vec::new(),
        held: Vec::new(),
        roster_version: 0,
        class: Class::Interactive,
        listing: 0,
    };
    let wish = ControlRequest { id: 1, body: ControlCall::Client(client) };
    for (n, door) in [Door::coordinator(&farm), agent].into_iter().enumerate() {
        let key = Keypair::generate_ed25519();
        let mut stranger = Stranger::connect(&key, &door).await.unwrap();
        for _ in 0..3 {
            assert_eq!(stranger.ask(Protocol::Blob, &BlobRequest::Get(vec![object])).await, b"");
            assert_eq!(stranger.ask(Protocol::Blob, &BlobRequest::Have(vec![object])).await, b"");
            assert_eq!(stranger.ask(Protocol::Cache, &CacheRequest::Find { action }).await, b"");
            assert_eq!(stranger.ask(Protocol::Control, &wish).await, b"");
            assert_eq!(stranger.ask(Protocol::Action, &request(&["who:"])).await, b"");
        }
        if n == 1 {
            let join = JoinRequest { ticket: Bytes(Vec::new()), name: "stranger".to_owned() };
            assert_eq!(stranger.ask(Protocol::Join, &join).await, b"", "an agent enrols nobody");
        }
        stranger.until_closed(Duration::from_secs(10)).await;
        let said = lines(&logs(&farm)[n], &peer_of(&key).short());
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].contains("WARN") && said[0].contains("no membership of this farm"), "{}", said[0]);
    }
    built(&farm, "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_farm_gets_nothing() {
    let farm = farm(1);
    let (object, action) = built(&farm, "secret");
    let (foreign, identity) = (Identity::generate(), Identity::generate());
    let membership = Membership {
        farm: foreign.peer(),
        peer: identity.peer(),
        role: Role::Agent,
        name: "spy".to_owned(),
        issued_at: now() - 10,
        expires_at: now() + 3600,
    };
    let config = NodeConfig {
        membership: foreign.signed(membership),
        identity: identity.clone(),
        roster: None,
        listen: Vec::new(),
        mdns: false,
        accept_joins: false,
    };
    let (node, _inbound) = node::start(config).await.unwrap();
    for (n, door) in [Door::coordinator(&farm), Door::agent(&farm, 0)].into_iter().enumerate() {
        let error = node.connect(door.peer, &door.addresses, SOON).await.unwrap_err().to_string();
        assert!(error.contains("\nhint: "), "{error}");
        for protocol in Protocol::ALL {
            assert!(node.open(door.peer, protocol).await.is_err(), "{protocol:?}");
        }
        let said = lines(&logs(&farm)[n], &identity.peer().short());
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].contains("WARN") && said[0].contains("another farm"), "{}", said[0]);
        // The same key, past our own node's manners.
        let mut bytes = [0; 32];
        bytes[0] = u8::try_from(n).unwrap() + 1;
        let key = Keypair::ed25519_from_bytes(bytes).unwrap();
        let mut stranger = Stranger::connect(&key, &door).await.unwrap();
        assert_eq!(stranger.ask(Protocol::Blob, &BlobRequest::Get(vec![object])).await, b"");
        assert_eq!(stranger.ask(Protocol::Cache, &CacheRequest::Find { action }).await, b"");
    }
    built(&farm, "after");
}

#[test]
fn bytes_that_are_no_protocol_end_the_connection() {
    let farm = farm(1);
    let request = b"GET / HTTP/1.1\r\nHost: desk\r\n\r\n".to_vec();
    let select = b"\x13/multistream/1.0.0\n".to_vec();
    let noise = [&select[..], b"\x07/noise\n", &[0xff; 4096]].concat();
    let tls = [b"\x16\x03\x01\x02\x00".as_slice(), &[0; 512]].concat();
    for door in [Door::coordinator(&farm), Door::agent(&farm, 0)] {
        for bytes in [request.clone(), noise.clone(), tls.clone(), vec![0xff; 1 << 20], Vec::new()] {
            let mut stream = TcpStream::connect(door.address()).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.set_write_timeout(Some(SOON)).unwrap();
            // The other side may have closed before all is written.
            let _ = stream.write_all(&bytes);
            let mut answer = Vec::new();
            let ended = stream.take(1 << 20).read_to_end(&mut answer);
            let timed_out = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!timed_out, "{} bytes keep a connection open", bytes.len());
            assert!(answer.len() < 200, "{} bytes for {}", answer.len(), bytes.len());
        }
    }
    built(&farm, "after");
}
