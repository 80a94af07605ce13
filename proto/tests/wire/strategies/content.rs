//! Arbitrary content.

use std::collections::{BTreeMap, BTreeSet};

use buildbee_proto::action::{Action, Command};
use buildbee_proto::delegation::{Delegation, MAX_DELEGATION_SECONDS, Warrant};
use buildbee_proto::digest::{Digest, DigestFunction};
use buildbee_proto::double::Double;
use buildbee_proto::hint::{Hint, Hints};
use buildbee_proto::limits::{MAX_ADDRESSES_PER_PEER, MAX_HINT_ROOTS, MAX_HINTS, MAX_TICKET_USES};
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::membership::{Membership, Roster, Signed, Ticket};
use buildbee_proto::observed::Observed;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance, ReadSet, SignedResult};
use buildbee_proto::path::{PathComponent, RelPath};
use buildbee_proto::peer::{PeerId, Role, Signature};
use buildbee_proto::toolchain::{Toolchain, ToolchainId};
use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, SymlinkNode, Twin};
use proptest::array::{uniform16, uniform32};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

/// Lists of content are at most this long here.
const ITEMS: usize = 6;

/// Text of any characters but NUL.
fn plain() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

pub(crate) fn component() -> impl Strategy<Value = PathComponent> {
    "[^/\0]{1,12}".prop_filter_map("a dot name", |name| PathComponent::try_from(name).ok())
}

pub(crate) fn path() -> impl Strategy<Value = RelPath> {
    vec(component(), 0..4)
        .prop_map(|names| names.iter().fold(RelPath::root(), |path, name| path.join(name).expect("short and shallow")))
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    let function = prop_oneof![Just(DigestFunction::Blake3), Just(DigestFunction::Sha256)];
    (function, uniform32(any::<u8>()), any::<u64>()).prop_map(|(function, hash, size_bytes)| Digest {
        function,
        hash,
        size_bytes,
    })
}

pub(crate) fn peer() -> impl Strategy<Value = PeerId> {
    uniform32(any::<u8>()).prop_map(PeerId)
}

fn signature() -> impl Strategy<Value = Signature> {
    (uniform32(any::<u8>()), uniform32(any::<u8>())).prop_map(|(left, right)| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&left);
        bytes[32..].copy_from_slice(&right);
        Signature(bytes)
    })
}

pub(crate) fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Coordinator), Just(Role::Agent), Just(Role::Client)]
}

#[derive(Clone, Debug)]
enum Node {
    File(Digest, bool, Twin),
    Directory(Digest),
    Symlink(String),
}

fn twin() -> impl Strategy<Value = Twin> {
    (0..3_u32, 0..3_u32).prop_map(|(inode, second)| Twin { inode, second })
}

pub(crate) fn directory() -> impl Strategy<Value = Directory> {
    let node = prop_oneof![
        (digest(), any::<bool>(), twin()).prop_map(|(digest, executable, twin)| Node::File(digest, executable, twin)),
        digest().prop_map(Node::Directory),
        "[^\0]{1,20}".prop_map(Node::Symlink),
    ];
    btree_map(component(), node, 0..3 * ITEMS).prop_map(|nodes| {
        let mut directory = Directory::default();
        for (name, node) in nodes {
            match node {
                Node::File(digest, executable, twin) => {
                    directory.files.push(FileNode { name, digest, executable, twin });
                }
                Node::Directory(digest) => directory.directories.push(DirectoryNode { name, digest }),
                Node::Symlink(target) => directory.symlinks.push(SymlinkNode { name, target }),
            }
        }
        directory
    })
}

pub(crate) fn toolchain() -> impl Strategy<Value = Toolchain> {
    (digest(), ".{0,20}", ".{0,20}").prop_map(|(root, host, label)| Toolchain { root, host, label })
}

pub(crate) fn double() -> impl Strategy<Value = Double> {
    let text = || "[a-z0-9./+-]{0,12}";
    let texts = (text(), text(), text(), text(), text(), text());
    (toolchain(), texts, vec(text(), 0..ITEMS)).prop_map(|(toolchain, texts, libraries)| {
        let (program, search, family, driver, version, target) = texts;
        Double { toolchain, program: format!("/{program}"), search, family, driver, version, target, libraries }
    })
}

fn paths() -> impl Strategy<Value = Vec<RelPath>> {
    btree_set(path(), 0..ITEMS).prop_map(|paths| paths.into_iter().collect())
}

fn sorted<K: Ord, V>(map: BTreeMap<K, V>) -> Vec<(K, V)> {
    map.into_iter().collect()
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let env = btree_map("[^=\0]{1,12}", plain(), 0..ITEMS).prop_map(sorted);
    (vec(plain(), 1..ITEMS), env, path(), paths(), paths()).prop_map(
        |(argv, env, working_directory, output_files, output_directories)| Command {
            argv,
            env,
            working_directory,
            output_files,
            output_directories,
        },
    )
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let platform = btree_map(".{0,12}", ".{0,12}", 0..ITEMS).prop_map(sorted);
    (digest(), digest(), digest(), platform, any::<u64>(), any::<bool>()).prop_map(
        |(command, input_root, toolchain, platform, timeout_ms, do_not_cache)| Action {
            command,
            input_root,
            toolchain: ToolchainId(toolchain),
            platform,
            timeout_ms,
            do_not_cache,
        },
    )
}

pub(crate) fn read_set() -> impl Strategy<Value = ReadSet> {
    let files = btree_map(path(), digest(), 0..ITEMS).prop_map(sorted);
    let symlinks = btree_map(path(), ".{0,20}", 0..ITEMS).prop_map(sorted);
    let twins = vec(proptest::option::of(twin()), ITEMS);
    let listed = btree_map(path(), digest(), 0..ITEMS).prop_map(sorted);
    let env = btree_map("[A-Z]{1,8}", proptest::option::of(".{0,20}"), 0..ITEMS).prop_map(sorted);
    (files, paths(), symlinks, twins, listed, env).prop_map(|(files, absent, symlinks, twins, listed, env)| {
        let twins = (0..).zip(twins).take(files.len()).filter_map(|(at, twin)| Some((at, twin?))).collect();
        ReadSet { files, absent, symlinks, twins, listed, env }
    })
}

pub(crate) fn observed() -> impl Strategy<Value = Observed> {
    let names = || btree_set("[^=\0]{1,12}", 0..ITEMS).prop_map(|names| names.into_iter().collect());
    (paths(), paths(), paths(), paths(), paths(), names(), names(), paths(), any::<bool>()).prop_map(
        |(files, seen, links, absent, listed, env, late_env, walkers, network)| Observed {
            files,
            seen,
            links,
            absent,
            listed,
            env,
            late_env,
            walkers,
            network,
        },
    )
}

fn provenance() -> impl Strategy<Value = Provenance> {
    (peer(), any::<bool>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(peer, sandboxed, wall_ms, cpu_ms, peak_memory_bytes)| Provenance {
            peer,
            sandboxed,
            wall_ms,
            cpu_ms,
            peak_memory_bytes,
        },
    )
}

pub(crate) fn action_result() -> impl Strategy<Value = ActionResult> {
    let outputs = btree_map(path(), (digest(), 0..=0o777_u32), 0..ITEMS).prop_map(|outputs| {
        outputs.into_iter().map(|(path, (digest, mode))| OutputFile { path, digest, mode }).collect()
    });
    let observed = proptest::option::of(digest());
    (digest(), any::<i32>(), outputs, digest(), digest(), observed, provenance()).prop_map(
        |(action, exit_code, outputs, stdout, stderr, observed, provenance)| ActionResult {
            action,
            exit_code,
            outputs,
            stdout,
            stderr,
            observed,
            provenance,
        },
    )
}

pub(crate) fn signed_result() -> impl Strategy<Value = SignedResult> {
    (action_result(), signature()).prop_map(|(result, signature)| SignedResult { result, signature })
}

pub(crate) fn manifest() -> impl Strategy<Value = Manifest> {
    let entry = (digest(), read_set()).prop_map(|(action, read_set)| ManifestEntry { action, read_set });
    vec(entry, 0..ITEMS).prop_map(|entries| Manifest { entries })
}

pub(crate) fn hint() -> impl Strategy<Value = Hint> {
    (vec(path(), 0..=MAX_HINT_ROOTS), digest()).prop_map(|(roots, action)| Hint { roots, action })
}

pub(crate) fn hints() -> impl Strategy<Value = Hints> {
    vec(hint(), 0..=MAX_HINTS).prop_map(|entries| Hints { entries })
}

pub(crate) fn membership() -> impl Strategy<Value = Membership> {
    (peer(), peer(), role(), "\\PC{0,20}", any::<u64>(), any::<u64>()).prop_map(
        |(farm, peer, role, name, issued_at, expires_at)| Membership { farm, peer, role, name, issued_at, expires_at },
    )
}

pub(crate) fn ticket() -> impl Strategy<Value = Ticket> {
    let addresses = vec("\\PC{0,20}", 0..=MAX_ADDRESSES_PER_PEER);
    let times = (any::<u64>(), any::<u64>(), 1..=MAX_TICKET_USES);
    (peer(), peer(), addresses, role(), times, uniform16(any::<u8>())).prop_map(
        |(farm, coordinator, addresses, role, (issued_at, expires_at, uses), nonce)| Ticket {
            farm,
            coordinator,
            addresses,
            role,
            issued_at,
            expires_at,
            uses,
            nonce,
        },
    )
}

pub(crate) fn roster() -> impl Strategy<Value = Roster> {
    let members = btree_map(peer(), role(), 0..ITEMS).prop_map(sorted);
    let revoked = btree_set(peer(), 0..ITEMS).prop_map(|peers: BTreeSet<PeerId>| peers.into_iter().collect());
    (peer(), any::<u64>(), members, revoked).prop_map(|(farm, version, members, revoked)| Roster {
        farm,
        version,
        members,
        revoked,
    })
}

pub(crate) fn signed<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Signed<T>> {
    let times = (any::<u32>(), 1..=MAX_DELEGATION_SECONDS);
    let warrant = (peer(), peer(), times, signature()).prop_map(|(farm, signer, (issued_at, seconds), signature)| {
        let issued_at = u64::from(issued_at);
        let delegation = Delegation { farm, signer, issued_at, expires_at: issued_at + seconds };
        Warrant { delegation, signature }
    });
    let warrant = proptest::option::of(warrant);
    (value, signature(), warrant).prop_map(|(value, signature, warrant)| Signed { value, signature, warrant })
}
