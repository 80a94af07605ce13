//! Says directories by what differs from those of a tree that the agent has: two compiles of one project include nearly the same headers,
//! and a header's digest does not compress.
//!
//! Not here: what the agent has (`along`). A wrong guess makes it ask for the directories, no more.

use std::collections::{HashMap, HashSet};

use buildbee_p2p::difference::shortened;
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::execute::Alike;
use buildbee_proto::limits::{MAX_BASES, MAX_BASES_BYTES};
use buildbee_proto::tree::Directory;

use crate::inputs::tree::Tree;

/// A directory below this takes about as many bytes as its name.
const LEAST_BASE_BYTES: u64 = 256;

/// `directories` of `tree`, for an agent that has those of `base` and knows what was `offered`. `None` where that is no shorter.
pub(super) fn alike(
    directories: &[(Digest, &[u8])],
    tree: &Tree,
    base: Option<&Tree>,
    offered: &[Digest],
) -> Option<Alike> {
    let pairs = base.map(|base| pairs(tree, base)).unwrap_or_default();
    let mut room = MAX_BASES_BYTES as u64;
    let mut seen = HashSet::new();
    let mut bases = Vec::new();
    for (digest, _) in directories {
        let Some(other) = pairs.get(digest).filter(|other| other.size_bytes >= LEAST_BASE_BYTES) else { continue };
        if other.size_bytes <= room && bases.len() < MAX_BASES && seen.insert(*other) {
            room -= other.size_bytes;
            bases.push(*other);
        }
    }
    let prefix = Alike::prefix(bases.iter().filter_map(|digest| base?.content(digest)), offered);
    let contents = directories.iter().flat_map(|(_, content)| content.iter().copied()).collect::<Vec<u8>>();
    let frame = Bytes(shortened(&contents, &prefix)?);
    Some(Alike { n_blobs: directories.len().try_into().ok()?, bases, frame })
}

/// The directories of `tree` that are other ones than at the same place of `base`, with those.
fn pairs(tree: &Tree, base: &Tree) -> HashMap<Digest, Digest> {
    let decoded = |tree: &Tree, digest: &Digest| Directory::from_canonical(tree.content(digest)?).ok();
    let mut pairs = HashMap::new();
    let mut left = vec![(tree.root, base.root)];
    while let Some((here, there)) = left.pop() {
        if here == there || pairs.contains_key(&here) {
            continue;
        }
        pairs.insert(here, there);
        let (Some(here), Some(there)) = (decoded(tree, &here), decoded(base, &there)) else { continue };
        let others: HashMap<_, _> = there.directories.iter().map(|node| (&node.name, node.digest)).collect();
        left.extend(here.directories.iter().filter_map(|node| Some((node.digest, *others.get(&node.name)?))));
    }
    pairs
}
