//! Hundreds of connections from outside: memory stays bounded, and the farm works on.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use buildbee_tests::project::{make, outputs, write_c};
use libp2p::identity::Keypair;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::door::{Door, Stranger};
use crate::strangers::{built, farm};

/// At each of the two doors.
const N_CONNECTIONS: usize = 500;

/// What they may cost at most, in bytes: pending handshakes are the dearest, and those are limited.
const MAX_GROWTH_BYTES: u64 = 32 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_bounded_and_the_farm_works_on() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(8192), most).unwrap();
    let farm = farm(1);
    built(&farm, "before");
    let resident =
        || [farm.coordinator.as_ref().unwrap().resident_bytes(), farm.agents[0].as_ref().unwrap().resident_bytes()];
    let before = resident();
    let doors = [Door::coordinator(&farm), Door::agent(&farm, 0)];
    let (mut sockets, mut strangers) = (Vec::new(), Vec::new());
    for n in 0..N_CONNECTIONS {
        for door in &doors {
            if n % 5 == 0 {
                // Shut out at once is as good as shut out later.
                strangers.extend(Stranger::connect(&Keypair::generate_ed25519(), door).await);
                continue;
            }
            let Ok(mut socket) = TcpStream::connect_timeout(&door.address(), Duration::from_secs(5)) else { continue };
            if n % 2 == 0 {
                let _ = socket.write_all(&[0xa5; 1000]);
            }
            sockets.push(socket);
        }
        if n % 100 == 50 {
            built(&farm, &format!("meanwhile{n}"));
        }
    }
    assert!(sockets.len() > N_CONNECTIONS, "only {} connections were made", sockets.len());
    // A whole build, with all of them still there.
    let folder = farm.path("whole");
    write_c(&folder, 6).unwrap();
    let (_, remote, local) = farm.counts();
    let built_now = make(farm.client("make"), &folder, 2, &["CC=buildbee gcc"]);
    assert!(built_now.status.success(), "{built_now:?}\n{}", farm.logs());
    assert_eq!(outputs(&folder, &[".o"]).len(), 6);
    assert_eq!((farm.counts().1, farm.counts().2), (remote + 6, local), "{}", farm.json(&["explain"]));
    for (before, after) in before.into_iter().zip(resident()) {
        assert!(after < before + MAX_GROWTH_BYTES, "{} KiB became {} KiB", before >> 10, after >> 10);
    }
    // Those that never said who they are have been shown the door.
    for stranger in &mut strangers {
        stranger.until_closed(Duration::from_secs(15)).await;
    }
    assert!(strangers.iter().all(Stranger::is_closed));
    let log = farm.agents[0].as_ref().unwrap().log();
    assert!(log.lines().count() < 500, "the log has {} lines", log.lines().count());
    drop(sockets);
    built(&farm, "after");
}
