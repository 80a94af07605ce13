//! The decoders, each as a function of bytes. Whatever they answer is fine.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use buildbee::compiler::decide::decide;
use buildbee::compiler::depfile;
use buildbee::compiler::request::{CompilerFamily, DriverLanguage, Invocation};
use buildbee::compiler::response_file;
use buildbee::daemon::crates::needs::needs;
use buildbee::doubles::machine::Machine;
use buildbee::inputs::scan::scan;
use buildbee::portable::leak::could_hide;
use buildbee::rust::dep_info::DepInfo;
use buildbee::rust::{failure, messages, scan as rust_scan};
use buildbee_coordinator::membership::key_file::Keys;
use buildbee_coordinator::membership::register::Register;
use buildbee_p2p::difference::restored;
use buildbee_p2p::enrolment::Enrolment;
use buildbee_proto::action::{Action, Command};
use buildbee_proto::canonical::Canonical;
use buildbee_proto::codec::{Message, from_body};
use buildbee_proto::control::{ControlReply, ControlRequest, Hello, HelloReply, JoinReply, JoinRequest};
use buildbee_proto::digest::Digest;
use buildbee_proto::double::Double;
use buildbee_proto::exchange::{BlobHave, BlobHeader, BlobMap, BlobRequest, CacheReply, CacheRequest};
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Supply};
use buildbee_proto::filter::Filter;
use buildbee_proto::hint::Hints;
use buildbee_proto::local::{LocalReply, LocalRequest};
use buildbee_proto::manifest::Manifest;
use buildbee_proto::membership::{Membership, Roster, Signed, Ticket};
use buildbee_proto::observed::Observed;
use buildbee_proto::outcome::{ActionResult, ReadSet, SignedResult};
use buildbee_proto::papers::{PapersReply, PapersRequest};
use buildbee_proto::path::RelPath;
use buildbee_proto::peer::PeerId;
use buildbee_proto::record;
use buildbee_proto::store_path::{StorePathReply, StorePathRequest};
use buildbee_proto::toolchain::Toolchain;
use buildbee_proto::tree::Directory;
use tempfile::TempDir;

type Decode = fn(&[u8]);

/// One decoder, or some that read the same kind of bytes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) decode: Decode,
}

/// All of them. Each has a folder of this name in the corpus, or golden bytes.
pub(crate) fn all() -> Vec<Target> {
    let targets: Vec<(&str, Decode)> = vec![
        ("canonical", canonical),
        ("frames", frames),
        ("ticket", |bytes| drop(Signed::<Ticket>::from_text(&text(bytes)))),
        ("names", names),
        ("enrolment", enrolment),
        ("key-file", |bytes| drop(Keys::from_text(&text(bytes)))),
        ("register", |bytes| drop(serde_json::from_slice::<Register>(bytes).map(|register| register.is_sound()))),
        ("record", |bytes| {
            record::used_bytes(bytes);
            record::records(bytes).for_each(drop);
        }),
        ("filter", filter),
        ("difference", |bytes| drop(restored(bytes, b"what both sides have", 1 << 16))),
        ("depfile", |bytes| drop(depfile::parse(bytes).map(depfile::prerequisites))),
        ("dep-info", |bytes| drop(DepInfo::parse(bytes))),
        ("rustc-messages", |bytes| {
            messages::name_written_file(bytes);
            failure::is_certain(bytes);
        }),
        ("response-file", response_files),
        ("arguments", arguments),
        ("c-source", |bytes| drop(scan(bytes))),
        ("rust-source", |bytes| drop(rust_scan::scan(bytes))),
        ("rust-library", |bytes| drop(needs(bytes))),
        ("object", |bytes| {
            Machine::of(bytes);
            could_hide(bytes);
        }),
    ];
    targets.into_iter().map(|(name, decode)| Target { name, decode }).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is read is written again as it was: no two encodings mean the same.
fn content<T: Canonical>(bytes: &[u8]) {
    if let Ok(value) = T::from_canonical(bytes) {
        assert_eq!(value.to_canonical(), bytes, "two encodings of one value");
    }
}

fn canonical(bytes: &[u8]) {
    content::<Directory>(bytes);
    content::<Toolchain>(bytes);
    content::<Double>(bytes);
    content::<Command>(bytes);
    content::<Action>(bytes);
    content::<ReadSet>(bytes);
    content::<Observed>(bytes);
    content::<ActionResult>(bytes);
    content::<SignedResult>(bytes);
    content::<Manifest>(bytes);
    content::<Hints>(bytes);
    content::<Ticket>(bytes);
    content::<Signed<Ticket>>(bytes);
    content::<Roster>(bytes);
    content::<Signed<Roster>>(bytes);
    content::<Membership>(bytes);
    content::<Signed<Membership>>(bytes);
}

fn message<M: Message>(bytes: &[u8]) {
    drop(from_body::<M>(bytes));
}

fn frames(bytes: &[u8]) {
    message::<ControlRequest>(bytes);
    message::<ControlReply>(bytes);
    message::<Hello>(bytes);
    message::<HelloReply>(bytes);
    message::<JoinRequest>(bytes);
    message::<JoinReply>(bytes);
    message::<ActionRequest>(bytes);
    message::<ActionUpdate>(bytes);
    message::<Supply>(bytes);
    message::<BlobRequest>(bytes);
    message::<BlobHave>(bytes);
    message::<BlobHeader>(bytes);
    message::<BlobMap>(bytes);
    message::<CacheRequest>(bytes);
    message::<CacheReply>(bytes);
    message::<StorePathRequest>(bytes);
    message::<StorePathReply>(bytes);
    message::<PapersRequest>(bytes);
    message::<PapersReply>(bytes);
    message::<LocalRequest>(bytes);
    message::<LocalReply>(bytes);
}

fn names(bytes: &[u8]) {
    let text = text(bytes);
    drop(text.parse::<PeerId>());
    drop(text.parse::<Digest>());
    if let Ok(path) = RelPath::try_from(text.as_str()) {
        let shown = path.to_string();
        assert!(!shown.starts_with('/') && shown.split('/').all(|part| part != ".."), "{shown:?} leads out");
    }
}

fn enrolment(bytes: &[u8]) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let file = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().join("enrolment");
    fs::write(&file, bytes).unwrap();
    drop(Enrolment::load(&file));
}

fn filter(bytes: &[u8]) {
    if let Some(filter) = Filter::from_bytes(bytes.to_vec()) {
        for fingerprint in [0, 1, u64::MAX] {
            filter.may_have(fingerprint);
        }
    }
}

fn response_files(bytes: &[u8]) {
    let argv = ["@one".to_owned(), "-c".to_owned()];
    // The file may name itself.
    let read = |_: &Path| io::Result::Ok(bytes.to_vec());
    drop(response_file::expand(&argv, Path::new("/w"), &read));
    drop(buildbee::rust::response_file::expand(&argv, Path::new("/w"), &read));
}

fn arguments(bytes: &[u8]) {
    let argv: Vec<String> = bytes.split(|byte| *byte == b'\n').map(text).collect();
    let read = |_: &Path| io::Result::Ok(b"-O2 x.c".to_vec());
    for family in [CompilerFamily::Gcc, CompilerFamily::Clang] {
        let invocation = Invocation {
            family,
            driver: DriverLanguage::C,
            argv: &argv,
            env: &[],
            cwd: Path::new("/w"),
            stderr_is_terminal: false,
            columns: None,
            locale: None,
            variables: &[],
        };
        drop(decide(&invocation, &read));
    }
}
