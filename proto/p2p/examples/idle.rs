//! What a node costs when nothing happens: a coordinator and two agents in one process.
//!
//! Prints resident memory and processor time of the whole process. `cargo run --release -p buildbee-p2p --features testbed --example idle`

#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::error::Error;
use std::time::Duration;

use buildbee_p2p::identity::Identity;
use buildbee_p2p::testbed::Farm;
use buildbee_proto::peer::Role;

const WATCHED: Duration = Duration::from_secs(30);

fn line_of_status(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
}

/// User and system time in clock ticks.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("before: {}", line_of_status("VmRSS"));
    let farm = Farm { key: Identity::generate(), members: Vec::new() };
    let hive = farm.start(Identity::generate(), Role::Coordinator, "hive", &["127.0.0.1:0"]).await?;
    let mut agents = Vec::new();
    for name in ["one", "two"] {
        let agent = farm.start(Identity::generate(), Role::Agent, name, &["127.0.0.1:0"]).await?;
        agent.node.keep_connected(hive.node.peer(), hive.addresses.clone());
        agents.push(agent);
    }
    let mut peers = hive.node.peers();
    peers.wait_for(|table| table.0.len() == 2).await?;
    println!("connected: {}", line_of_status("VmRSS"));
    let before = ticks();
    tokio::time::sleep(WATCHED).await;
    println!(
        "after {WATCHED:?}: {}, {} ticks of processor time for three nodes",
        line_of_status("VmRSS"),
        ticks() - before
    );
    Ok(())
}
