//! Values that break a rule of their type: their bytes are well formed, and refused all the same.

use buildbee_proto::action::{Action, Command};
use buildbee_proto::canonical::{Canonical, CanonicalError};
use buildbee_proto::codec::{Bytes, CodecError, from_body};
use buildbee_proto::control::{AgentState, ControlCall, ControlRequest, JoinRequest, Offer};
use buildbee_proto::digest::Digest;
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobMap, BlobRequest};
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Alike, Supply};
use buildbee_proto::limits::{
    MAX_ADDRESS_BYTES, MAX_ADDRESSES_PER_PEER, MAX_ARGUMENTS, MAX_BASES, MAX_BLOBS_PER_REQUEST, MAX_CHUNKS,
    MAX_CHUNKS_PER_REQUEST, MAX_ENVIRONMENT, MAX_ERROR_TEXT_BYTES, MAX_INLINE_BLOBS, MAX_MANIFEST_ENTRIES,
    MAX_NAME_BYTES, MAX_OFFERED, MAX_RESULT_BLOBS, MAX_TICKET_USES, MAX_TOOLCHAINS_PER_AGENT,
};
use buildbee_proto::local::{AdminCall, Invocation, LocalCall, LocalRequest};
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::membership::{Membership, Roster, Ticket};
use buildbee_proto::observed::Observed;
use buildbee_proto::outcome::{ActionResult, ReadSet};
use buildbee_proto::peer::Role;
use buildbee_proto::toolchain::ToolchainId;
use buildbee_proto::tree::{Directory, SymlinkNode, Twin};

use crate::samples::messages::{action_request, bytes, invocation, offer};
use crate::samples::{self, content as fixed};

fn refusal<T: Canonical + std::fmt::Debug + Clone>(value: &T, change: impl FnOnce(&mut T)) -> CanonicalError {
    T::from_canonical(&value.to_canonical()).expect("good before the change");
    let mut value = value.clone();
    change(&mut value);
    T::from_canonical(&value.to_canonical()).expect_err("a broken rule")
}

#[test]
fn directories_out_of_order_are_refused() {
    let good = fixed::directory();
    let order = |change: fn(&mut Directory)| refusal(&good, change);
    assert_eq!(order(|directory| directory.files.reverse()), CanonicalError::Order("files"));
    assert_eq!(
        order(|directory| directory.directories.push(directory.directories[0].clone())),
        CanonicalError::Order("directories")
    );
    assert_eq!(
        order(|directory| directory.symlinks.push(directory.symlinks[0].clone())),
        CanonicalError::Order("symlinks")
    );
    // The same name as a file and as a symlink would be two things in one place.
    assert_eq!(
        order(|directory| {
            directory.symlinks = vec![SymlinkNode { name: directory.files[0].name.clone(), target: "x".to_owned() }];
        }),
        CanonicalError::Order("names")
    );
    assert_eq!(
        order(|directory| directory.directories[0].name = directory.files[0].name.clone()),
        CanonicalError::Order("names")
    );
}

#[test]
fn tickets_for_nobody_or_for_too_many_are_refused() {
    for uses in [0, MAX_TICKET_USES + 1, u32::MAX] {
        assert_eq!(refusal(&fixed::ticket(), |ticket: &mut Ticket| ticket.uses = uses), CanonicalError::Range("uses"));
    }
}

#[test]
fn commands_with_a_bad_environment_or_argv_are_refused() {
    let good = fixed::command();
    let range = |change: fn(&mut Command)| refusal(&good, change);
    assert_eq!(range(|command| command.argv.clear()), CanonicalError::Range("argv"));
    assert_eq!(range(|command| command.argv[1] = "-c\0".to_owned()), CanonicalError::Range("argv"));
    assert_eq!(range(|command| command.argv = vec![String::new(); MAX_ARGUMENTS + 1]), CanonicalError::Range("count"));
    assert_eq!(range(|command| command.env[0].0 = String::new()), CanonicalError::Range("environment"));
    assert_eq!(range(|command| command.env[0].0 = "A=B".to_owned()), CanonicalError::Range("environment"));
    assert_eq!(range(|command| command.env[0].1 = "\0".to_owned()), CanonicalError::Range("environment"));
    assert_eq!(range(|command| command.env.reverse()), CanonicalError::Order("environment variables"));
    assert_eq!(range(|command| command.env[0].0 = "PATH".to_owned()), CanonicalError::Order("environment variables"));
    assert_eq!(range(|command| command.output_files.reverse()), CanonicalError::Order("output files"));
    assert_eq!(
        range(|command| command.output_directories.push(command.output_directories[0].clone())),
        CanonicalError::Order("output directories")
    );
}

#[test]
fn lists_out_of_order_are_refused_everywhere() {
    let order = |error| matches!(error, CanonicalError::Order(_));
    assert!(order(refusal(&fixed::action(), |action: &mut Action| action.platform.reverse())));
    assert!(order(refusal(&fixed::read_set(), |set: &mut ReadSet| set.files.reverse())));
    assert!(order(refusal(&fixed::read_set(), |set: &mut ReadSet| set.absent.push(set.absent[0].clone()))));
    assert!(order(refusal(&fixed::read_set(), |set: &mut ReadSet| set.symlinks.push(set.symlinks[0].clone()))));
    assert!(order(refusal(&fixed::read_set(), |set: &mut ReadSet| set.twins.reverse())));
    assert!(order(refusal(&fixed::read_set(), |set: &mut ReadSet| set.listed.push(set.listed[0].clone()))));
    assert!(order(refusal(&fixed::read_set(), |set: &mut ReadSet| set.env.reverse())));
    assert!(order(refusal(&fixed::manifest(), |manifest| manifest.entries[0].read_set.files.reverse())));
    assert!(order(refusal(&fixed::observed(), |observed: &mut Observed| observed.files.reverse())));
    assert!(order(refusal(&fixed::observed(), |observed: &mut Observed| observed.env.reverse())));
    assert!(order(refusal(&fixed::observed(), |observed: &mut Observed| {
        observed.walkers.push(observed.walkers[0].clone());
    })));
    assert!(order(refusal(&fixed::action_result(), |result: &mut ActionResult| result.outputs.reverse())));
    assert!(order(refusal(&fixed::signed_result(), |signed| signed.result.outputs.reverse())));
    assert!(order(refusal(&fixed::roster(), |roster: &mut Roster| roster.members.reverse())));
    assert!(order(refusal(&fixed::roster(), |roster: &mut Roster| roster.revoked.reverse())));
}

#[test]
fn variables_that_cannot_be_are_refused() {
    for name in ["", "A=B", "A\0"] {
        let error = refusal(&fixed::observed(), |observed: &mut Observed| observed.env = vec![name.to_owned()]);
        assert_eq!(error, CanonicalError::Range("variable"), "{name:?}");
    }
}

#[test]
fn twins_of_nothing_are_refused() {
    let error = refusal(&fixed::read_set(), |set: &mut ReadSet| set.twins[1].0 = 2);
    assert_eq!(error, CanonicalError::Range("twin"));
    let mut plain = fixed::directory();
    plain.files[1].twin = Twin::default();
    let (plain, twin) = (plain.to_canonical(), fixed::directory().to_canonical());
    // The flag says that a twin follows, and what follows is what stands for none.
    let flag = plain.iter().zip(&twin).position(|(one, other)| one != other).unwrap();
    let spelled_out = [&plain[..flag], &[1], &[0; 8], &plain[flag + 1..]].concat();
    assert_eq!(Directory::from_canonical(&spelled_out), Err(CanonicalError::Range("twin")));
}

#[test]
fn modes_beyond_permissions_are_refused() {
    for mode in [0o1000, 0o2755, 0o4755, 0o100_644, u32::MAX] {
        let error = refusal(&fixed::action_result(), |result| result.outputs[0].mode = mode);
        assert_eq!(error, CanonicalError::Range("mode"), "{mode:o}");
    }
}

#[test]
fn names_of_members_are_short_and_printable() {
    let good = fixed::membership(Role::Agent);
    let longest = Membership { name: "a".repeat(MAX_NAME_BYTES), ..good.clone() };
    assert_eq!(Membership::from_canonical(&longest.to_canonical()), Ok(longest));
    for name in ["a".repeat(MAX_NAME_BYTES + 1), "\u{1b}[2J".to_owned(), "a\nb".to_owned(), "\u{9b}".to_owned()] {
        assert_eq!(refusal(&good, |membership| membership.name = name), CanonicalError::Range("name"));
    }
}

#[test]
fn tickets_and_manifests_keep_their_bounds() {
    let error = refusal(&fixed::ticket(), |ticket| {
        ticket.addresses = vec!["192.0.2.1:1".to_owned(); MAX_ADDRESSES_PER_PEER + 1];
    });
    assert_eq!(error, CanonicalError::Range("count"));
    let error = refusal(&fixed::manifest(), |manifest| {
        manifest.entries = vec![manifest.entries[0].clone(); MAX_MANIFEST_ENTRIES + 1];
    });
    assert_eq!(error, CanonicalError::Range("count"));
}

#[test]
fn a_manifest_remembers_the_newest_results() {
    let mut manifest = Manifest::default();
    for seed in 0..40 {
        manifest.remember(ManifestEntry { action: fixed::blake3(seed), read_set: ReadSet::default() });
        manifest.remember(ManifestEntry { action: fixed::blake3(seed), read_set: fixed::read_set() });
    }
    let newest: Vec<Digest> = (0..40).rev().take(MAX_MANIFEST_ENTRIES).map(fixed::blake3).collect();
    assert_eq!(manifest.entries.iter().map(|entry| entry.action).collect::<Vec<_>>(), newest);
    assert!(manifest.entries.iter().all(|entry| entry.read_set == fixed::read_set()), "an older read set stayed");
    assert_eq!(Manifest::from_canonical(&manifest.to_canonical()), Ok(manifest));
}

#[test]
fn tags_differ() {
    let tags: Vec<[u8; 4]> = samples::content::samples()
        .iter()
        .map(|sample| (sample.kind, [sample.bytes[0], sample.bytes[1], sample.bytes[2], sample.bytes[3]]))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_values()
        .collect();
    let distinct: std::collections::BTreeSet<_> = tags.iter().collect();
    assert_eq!(distinct.len(), tags.len(), "{tags:?}");
    assert_eq!(tags.len(), 18, "a kind of content has no sample");
}

#[test]
fn digest_texts_have_one_form() {
    let digest = Digest::of(b"bee");
    for text in [format!("{}-+3", digest.hex()), format!("{}- 3", digest.hex()), format!("{}-3-", digest.hex())] {
        assert!(text.parse::<Digest>().is_err(), "{text}");
    }
    assert_eq!(
        Digest::of(b"").to_string(),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262-0",
        "the published hash of nothing"
    );
}

fn too_many<M: buildbee_proto::codec::Message + std::fmt::Debug>(message: &M) {
    let read = from_body::<M>(&samples::body(message));
    assert!(matches!(read, Err(CodecError::Malformed(_))), "{:?} was not refused", std::any::type_name::<M>());
}

fn fits<M: buildbee_proto::codec::Message + std::fmt::Debug + PartialEq>(message: &M) {
    let read = from_body::<M>(&samples::body(message));
    assert!(read.as_ref() == Ok(message), "{:?} at its bound was refused", std::any::type_name::<M>());
}

#[test]
fn lists_in_messages_keep_their_bounds() {
    let digests = |n| vec![fixed::blake3(1); n];
    fits(&BlobRequest::Get(digests(MAX_BLOBS_PER_REQUEST)));
    too_many(&BlobRequest::Get(digests(MAX_BLOBS_PER_REQUEST + 1)));
    too_many(&BlobRequest::Have(digests(MAX_BLOBS_PER_REQUEST + 1)));
    fits(&BlobHave { present: vec![true; MAX_BLOBS_PER_REQUEST] });
    too_many(&BlobHave { present: vec![true; MAX_BLOBS_PER_REQUEST + 1] });
    let chunks = |n: usize| BlobRequest::Chunks { blob: Digest::of(b"large"), chunks: vec![0; n] };
    fits(&chunks(MAX_CHUNKS_PER_REQUEST));
    too_many(&chunks(MAX_CHUNKS_PER_REQUEST + 1));
    let map =
        |n: usize| BlobMap::Found { values: vec![[0; 32]; n], present: Bytes(vec![0; n.div_ceil(8)]), coming: true };
    fits(&map(MAX_CHUNKS));
    too_many(&map(MAX_CHUNKS + 1));

    let finished = |n| ActionUpdate::Finished { result: bytes("result"), blobs: digests(n) };
    fits(&finished(MAX_RESULT_BLOBS));
    too_many(&finished(MAX_RESULT_BLOBS + 1));
    let request = |n| ActionRequest { inline: vec![Bytes::default(); n], ..action_request(None) };
    fits(&request(MAX_INLINE_BLOBS));
    too_many(&request(MAX_INLINE_BLOBS + 1));
    fits(&ActionRequest { offered: digests(MAX_OFFERED), ..action_request(None) });
    too_many(&ActionRequest { offered: digests(MAX_OFFERED + 1), ..action_request(None) });
    fits(&ActionUpdate::Lacks(vec![true; MAX_OFFERED]));
    too_many(&ActionUpdate::Lacks(vec![true; MAX_OFFERED + 1]));
    fits(&Supply { blobs: vec![Bytes::default(); MAX_OFFERED], alike: None });
    too_many(&Supply { blobs: vec![Bytes::default(); MAX_OFFERED + 1], alike: None });
    let alike = |n| Alike { n_blobs: 1, bases: digests(n), frame: bytes("frame") };
    fits(&Supply { blobs: Vec::new(), alike: Some(alike(MAX_BASES)) });
    too_many(&Supply { blobs: Vec::new(), alike: Some(alike(MAX_BASES + 1)) });

    let compile = |argv, env| {
        let lists = Invocation { argv: vec![bytes("a"); argv], env: vec![bytes("A="); env], ..invocation() };
        LocalRequest { version: 1, call: LocalCall::Compile(lists) }
    };
    fits(&compile(MAX_ARGUMENTS, MAX_ENVIRONMENT));
    too_many(&compile(MAX_ARGUMENTS + 1, 0));
    too_many(&compile(1, MAX_ENVIRONMENT + 1));
}

#[test]
fn offers_keep_their_bounds() {
    let request = |change: &dyn Fn(&mut Offer)| {
        let mut offer = offer();
        change(&mut offer);
        let state = AgentState { offer, slots: Vec::new(), roster_version: 0, listing: 0 };
        ControlRequest { id: 1, body: ControlCall::Agent(state) }
    };
    let toolchains = |n| vec![ToolchainId(fixed::blake3(1)); n];
    fits(&request(&|offer| offer.toolchains = toolchains(MAX_TOOLCHAINS_PER_AGENT)));
    too_many(&request(&|offer| offer.toolchains = toolchains(MAX_TOOLCHAINS_PER_AGENT + 1)));
    fits(&request(&|offer| offer.addresses = vec!["a".repeat(MAX_ADDRESS_BYTES); MAX_ADDRESSES_PER_PEER]));
    too_many(&request(&|offer| offer.addresses = vec![String::new(); MAX_ADDRESSES_PER_PEER + 1]));
    too_many(&request(&|offer| offer.addresses = vec!["a".repeat(MAX_ADDRESS_BYTES + 1)]));
    fits(&request(&|offer| offer.name = "a".repeat(MAX_NAME_BYTES)));
    too_many(&request(&|offer| offer.name = "a".repeat(MAX_NAME_BYTES + 1)));
    too_many(&request(&|offer| offer.host = "a".repeat(MAX_NAME_BYTES + 1)));
}

#[test]
fn texts_in_messages_keep_their_bounds() {
    too_many(&JoinRequest { ticket: bytes("ticket"), name: "a".repeat(MAX_NAME_BYTES + 1) });
    let explain = |n| LocalRequest {
        version: 1,
        call: LocalCall::Admin(AdminCall::Explain { filter: Some("a".repeat(n)), limit: 1 }),
    };
    fits(&explain(4096));
    too_many(&explain(4097));
}

#[test]
fn errors_of_peers_are_cut_and_harmless_to_show() {
    let cut = WireError::new(ErrorCode::Internal, Retry::Never, "é".repeat(MAX_ERROR_TEXT_BYTES));
    assert_eq!(cut.message.len(), MAX_ERROR_TEXT_BYTES);
    fits(&BlobHeader::Refused(cut));
    let odd = WireError::new(ErrorCode::Internal, Retry::Never, format!("a{}", "é".repeat(MAX_ERROR_TEXT_BYTES)));
    assert_eq!(odd.message.len(), MAX_ERROR_TEXT_BYTES - 1, "cut between characters");
    let long =
        WireError { code: ErrorCode::Internal, retry: Retry::Never, message: "a".repeat(MAX_ERROR_TEXT_BYTES + 1) };
    too_many(&BlobHeader::Refused(long));
    let hostile = WireError::new(ErrorCode::Internal, Retry::Never, "\u{1b}]0;title\u{7}\r\nnext\u{9b}2J");
    assert_eq!(hostile.to_string(), " ]0;title   next 2J");
}
