//! What peers are told of each other, within what one frame can hold.
//!
//! Pure. Agents that matter most to the reader come first and whole; when the frame's share is used up the rest is left out.

use buildbee_proto::control::{AgentInfo, Offer};
use buildbee_proto::limits::MAX_CONTROL_FRAME;

/// Share of a control frame for agents. The rest is for leases (`MAX_LEASES_PER_CLIENT`) and a roster of `MAX_MEMBERS`.
pub const MAX_LISTING_BYTES: usize = MAX_CONTROL_FRAME / 2;

/// Upper bound of one toolchain id on the wire: function, hash, size with their length prefixes.
const TOOLCHAIN_BYTES: usize = 48;
/// Upper bound of everything in an [`AgentInfo`] that has a fixed size, and of the lengths of what has not.
const FIXED_BYTES: usize = 128;

/// An upper bound of `info`'s size on the wire.
fn size_bytes(info: &AgentInfo) -> usize {
    let Offer { name, host, toolchains, addresses, .. } = &info.offer;
    let texts: usize = addresses.iter().map(|address| address.len() + 9).sum();
    FIXED_BYTES + name.len() + host.len() + texts + toolchains.len() * TOOLCHAIN_BYTES
}

/// As many of `agents`, in their order, as fit.
pub fn bounded(agents: impl Iterator<Item = AgentInfo>) -> Vec<AgentInfo> {
    let mut n_left = MAX_LISTING_BYTES;
    let mut listed = Vec::new();
    for info in agents {
        match n_left.checked_sub(size_bytes(&info)) {
            Some(n) => n_left = n,
            None => break,
        }
        listed.push(info);
    }
    listed
}

#[cfg(test)]
mod tests {
    use buildbee_proto::codec::{FRAME_HEADER_BYTES, to_frame};
    use buildbee_proto::control::{AgentDesired, ControlAnswer, ControlReply};
    use buildbee_proto::digest::Digest;
    use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_NAME_BYTES, MAX_TOOLCHAINS_PER_AGENT};
    use buildbee_proto::peer::PeerId;
    use buildbee_proto::toolchain::ToolchainId;

    use super::*;

    #[test]
    fn the_largest_offers_stay_within_their_share() {
        let mut toolchain = Digest::of(b"x");
        toolchain.size_bytes = u64::MAX;
        let offer = Offer {
            name: "n".repeat(MAX_NAME_BYTES),
            host: "h".repeat(MAX_NAME_BYTES),
            n_cores: u32::MAX,
            memory_bytes: u64::MAX,
            memory_free_bytes: u64::MAX,
            load_percent: u32::MAX,
            toolchains: vec![ToolchainId(toolchain); MAX_TOOLCHAINS_PER_AGENT],
            addresses: vec!["a".repeat(260); MAX_ADDRESSES_PER_PEER],
        };
        let info = AgentInfo { peer: PeerId([255; 32]), offer, n_slots: u32::MAX };
        let peers = bounded(std::iter::repeat_n(info, 1_000));
        assert!(peers.len() > 10, "{}", peers.len());
        let desired = AgentDesired { dealt: vec![], deal_for_ms: 0, peers, roster: None, next_call_ms: 0 };
        let frame = to_frame(&ControlReply { id: 0, body: ControlAnswer::Agent(desired) }).unwrap();
        assert!(frame.len() - FRAME_HEADER_BYTES - 64 <= MAX_LISTING_BYTES, "{}", frame.len());
    }
}
