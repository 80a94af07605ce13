//! What travels to whom, and what is said by what differs.

use buildbee_p2p::difference::restored;
use buildbee_proto::execute::Alike;

use super::super::lender::{Loan, Source};
use super::*;
use crate::inputs::tree::TreeBuilder;

const ONE: PeerId = PeerId([1; 32]);
const TWO: PeerId = PeerId([2; 32]);

fn blob(n: u8, size_bytes: u64) -> Digest {
    Digest { size_bytes, ..Digest::of(&[n]) }
}

/// A tree with these headers in one folder.
fn tree(headers: std::ops::Range<u32>) -> Arc<Tree> {
    let mut builder = TreeBuilder::default();
    for n in headers {
        let path = format!("usr/include/part{n:04}.h");
        builder.file(&path.as_str().try_into().unwrap(), Digest::of(&n.to_le_bytes()), false).unwrap();
    }
    Arc::new(builder.finish())
}

fn digests(tree: &Tree) -> Vec<Digest> {
    tree.directories.iter().map(|(digest, _)| *digest).collect()
}

fn lent(tree: &Tree) -> (Lender, Loan) {
    let lender = Lender::default();
    let loan = lender.lend(tree.directories.iter().map(|(digest, bytes)| (*digest, Source::Bytes(Arc::clone(bytes)))));
    (lender, loan)
}

const NOTHING: Supply = Supply { blobs: Vec::new(), alike: None };

#[test]
fn a_file_goes_to_one_agent_and_directories_to_all() {
    let sent = Sent::default();
    let (tree, file) = (tree(0..1), blob(2, 10));
    let directories = digests(&tree);
    let both = [&directories[..], &[file]].concat();
    let to = |agent| sent.along(agent, &tree, [file].iter());
    let first = to(ONE);
    assert_eq!((&first.unasked, &first.offered), (&both, &vec![]));
    // Even while it is under way.
    assert_eq!(to(TWO).unasked, directories);
    first.arrived(&[], &NOTHING);
    assert!(to(ONE).unasked.is_empty());
    sent.forget(&ONE);
    assert_eq!(to(TWO).unasked, both);
}

#[test]
fn what_an_agent_made_is_not_sent_to_others() {
    let sent = Sent::default();
    let (tree, library) = (tree(0..0), blob(1, 1 << 20));
    sent.along(TWO, &tree, [].iter()).arrived(&[], &NOTHING);
    sent.made(ONE, [&library].into_iter());
    assert_eq!(sent.along(TWO, &tree, [library].iter()).offered, []);
    assert_eq!(sent.held([library, blob(2, 5)].iter()), HashMap::from([(ONE, 1 << 20)]));
    sent.forget(&ONE);
    assert_eq!(sent.along(TWO, &tree, [library].iter()).offered, [library]);
}

#[test]
fn a_request_that_failed_has_sent_nothing() {
    let sent = Sent::default();
    let (tree, file) = (tree(0..1000), blob(1, 10));
    drop(sent.along(ONE, &tree, [file].iter()));
    assert!(sent.lock()[&ONE].tree.is_none());
    assert!(sent.along(TWO, &tree, [file].iter()).offered.contains(&file));
}

#[test]
fn what_was_sent_is_remembered_within_bounds() {
    let sent = Sent::default();
    let (tree, file) = (tree(0..0), blob(1, 10));
    let others: Vec<Digest> = (0..MAX_SENT as u64).map(|n| Digest::of(&n.to_le_bytes())).collect();
    for files in std::iter::once(&[file][..]).chain(others.chunks(MAX_OFFERED)) {
        sent.along(ONE, &tree, files.iter()).arrived(&[], &NOTHING);
    }
    assert!(sent.lock()[&ONE].blobs.len() <= MAX_SENT);
    assert!(sent.along(ONE, &tree, [file].iter()).unasked.contains(&file), "the memory started over");
}

#[test]
fn much_is_offered_and_what_does_not_fit_is_not_sent() {
    let sent = Sent::default();
    let tree = tree(0..0);
    sent.along(ONE, &tree, [].iter()).arrived(&[], &NOTHING);
    let files: Vec<Digest> = (0..5).map(|n| blob(n, OFFERED_FILE_BYTES)).collect();
    let along = sent.along(ONE, &tree, files.iter());
    assert!(along.unasked.is_empty());
    assert_eq!(along.offered, files);
    assert!(along.lacking(&[true]).is_none());
    let lacking = along.lacking(&[true, false, true, true, true]).unwrap();
    // Nothing is lent: all are left out, and the agent asks for them.
    let supply = lacking.supply(&Lender::default());
    along.arrived(&lacking.digests, &supply);
    assert_eq!(sent.along(ONE, &tree, files.iter()).offered, lacking.digests);
}

/// What an agent makes of it.
fn read(alike: &Alike, trees: &[&Arc<Tree>], offered: &[Digest], wanted: &[Digest]) -> Vec<u8> {
    let base = |digest| trees.iter().find_map(|tree| tree.content(digest)).unwrap();
    let prefix = Alike::prefix(alike.bases.iter().map(base), offered);
    let n_bytes = wanted.iter().take(alike.n_blobs as usize).map(|digest| digest.size_bytes).sum::<u64>();
    restored(&alike.frame.0, &prefix, n_bytes.try_into().unwrap()).unwrap()
}

#[test]
fn directories_are_said_by_what_differs() {
    let sent = Sent::default();
    let trees = [tree(0..1000), tree(5..1005), tree(20..1005)];
    let mut sizes = Vec::new();
    for (at, tree) in trees.iter().enumerate() {
        let along = sent.along(ONE, tree, [].iter());
        assert_eq!(along.offered, digests(tree));
        let lacking = along.lacking(&vec![true; along.offered.len()]).unwrap();
        let (lender, _loan) = lent(tree);
        let supply = lacking.supply(&lender);
        let alike = supply.alike.clone().unwrap();
        assert!(supply.blobs.iter().all(|blob| blob.0.is_empty()), "said once");
        let earlier: Vec<_> = trees[..at].iter().collect();
        let contents: Vec<u8> =
            lacking.digests.iter().flat_map(|digest| tree.content(digest).unwrap().to_vec()).collect();
        assert_eq!(read(&alike, &earlier, &along.offered, &lacking.digests), contents);
        sizes.push(alike.frame.0.len());
        along.arrived(&lacking.digests, &supply);
        assert!(sent.along(ONE, tree, [].iter()).offered.is_empty(), "nothing was left out");
    }
    // The first has a thousand digests in it that are said nowhere else.
    assert!(sizes[0] > 32_000 && sizes[1..].iter().all(|size| *size < 700), "{sizes:?}");
    // Another agent knows nothing of it, unless the files are offered with it.
    let files: Vec<Digest> = (20..1005).map(|n: u32| Digest::of(&n.to_le_bytes())).collect();
    sent.forget(&ONE);
    let along = sent.along(TWO, &trees[2], files.iter());
    let lacking = along.lacking(&vec![true; along.offered.len()]).unwrap();
    let alike = lacking.supply(&Lender::default()).alike.unwrap();
    assert!(alike.frame.0.len() < 15_000, "{}", alike.frame.0.len());
    let contents: Vec<u8> =
        digests(&trees[2]).iter().flat_map(|digest| trees[2].content(digest).unwrap().to_vec()).collect();
    assert_eq!(read(&alike, &[], &along.offered, &lacking.digests), contents);
}
