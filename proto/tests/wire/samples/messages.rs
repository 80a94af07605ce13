//! Fixed values of every message, one group a protocol.

use buildbee_proto::codec::Bytes;
use buildbee_proto::control::{
    AgentDesired, AgentInfo, AgentState, Class, ClientDesired, ClientState, ControlAnswer, ControlCall, ControlReply,
    ControlRequest, Hello, HelloReply, JoinReply, JoinRequest, Offer,
};
use buildbee_proto::error::{ErrorCode, Retry, WireError};
use buildbee_proto::exchange::{
    BlobHave, BlobHeader, BlobMap, BlobRequest, CacheReply, CacheRequest, FilterMark, FilterUpdate,
};
use buildbee_proto::execute::{ActionRequest, ActionUpdate, Alike, Stage, Supply};
use buildbee_proto::lease::{Lease, SlotReport, SlotToken};
use buildbee_proto::listing::Listing;
use buildbee_proto::local::{AdminCall, Invocation, LocalCall, LocalOutcome, LocalReply, LocalRequest};
use buildbee_proto::papers::{PapersReply, PapersRequest};
use buildbee_proto::peer::Role;
use buildbee_proto::roster_news::{RosterChange, RosterNews, Standing};
use buildbee_proto::store_path::{StorePath, StorePathReply, StorePathRequest};
use buildbee_proto::toolchain::ToolchainId;
use buildbee_proto::version::{LOCAL_VERSION, Protocol};

use super::content::{blake3, hint, peer, sha256};
use super::{Sample, message};

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes(text.as_bytes().to_vec())
}

pub(crate) fn error() -> WireError {
    WireError::new(ErrorCode::Busy, Retry::SameAgent, "the owner is back")
}

fn token(seed: u8) -> SlotToken {
    SlotToken { agent: peer(seed), boot_id: 0xb007_b007_b007_b007, counter: u64::from(seed) }
}

pub(crate) fn offer() -> Offer {
    Offer {
        name: "desk-7".to_owned(),
        host: "x86_64-linux".to_owned(),
        n_cores: 16,
        memory_bytes: 32 << 30,
        memory_free_bytes: 20 << 30,
        load_percent: 12,
        toolchains: vec![ToolchainId(blake3(40)), ToolchainId(sha256(41))],
        addresses: vec!["192.0.2.7:7412".to_owned()],
    }
}

fn agent_info() -> AgentInfo {
    AgentInfo { peer: peer(42), offer: offer(), n_slots: 12 }
}

fn listing() -> Listing {
    Listing { after: 3, number: 400, dropped: vec![1, 300], added: vec![agent_info()] }
}

fn roster_change() -> RosterChange {
    let joined = Standing { peer: peer(51), role: Some(Role::Agent), revoked: false };
    let sent_away = Standing { peer: peer(52), role: None, revoked: true };
    RosterChange { from: 300, to: 302, standings: vec![joined, sent_away], signature: Bytes(vec![9; 64]) }
}

fn agent_state() -> AgentState {
    let dealt = SlotReport { token: token(43), dealt_to: Some(peer(44)), expires_in_ms: 30_000, busy: true };
    let open = SlotReport { token: token(45), dealt_to: None, expires_in_ms: 0, busy: false };
    AgentState { offer: offer(), slots: vec![dealt, open], roster_version: 7, listing: 3 }
}

fn agent_desired() -> AgentDesired {
    AgentDesired {
        dealt: vec![(token(46), peer(47))],
        deal_for_ms: 60_000,
        peers: Some(listing()),
        roster: Some(RosterNews::Whole(bytes("signed roster"))),
        next_call_ms: 1_000,
    }
}

fn client_state() -> ClientState {
    ClientState {
        n_wanted: 40,
        toolchains: vec![ToolchainId(blake3(48))],
        held: vec![token(49)],
        roster_version: 300,
        class: Class::Batch,
        listing: 70_000,
    }
}

fn client_desired() -> ClientDesired {
    ClientDesired {
        leases: vec![Lease { token: token(50), expires_in_ms: 70_000 }],
        agents: None,
        roster: Some(RosterNews::Change(roster_change())),
        next_call_ms: 2_000,
    }
}

fn hello() -> Hello {
    Hello { membership: bytes("signed membership"), features: 0 }
}

fn hello_samples() -> Vec<Sample> {
    let replies = [HelloReply::Welcome(hello()), HelloReply::Refused(error())];
    let mut samples = vec![message("Hello", &hello())];
    samples.extend(replies.iter().map(|reply| {
        let variant = match reply {
            HelloReply::Welcome(_) => "Welcome",
            HelloReply::Refused(_) => "Refused",
        };
        message(&format!("HelloReply {variant}"), reply)
    }));
    samples
}

fn join_samples() -> Vec<Sample> {
    let mut samples =
        vec![message("JoinRequest", &JoinRequest { ticket: bytes("signed ticket"), name: "desk-7".to_owned() })];
    for role in [Role::Coordinator, Role::Agent, Role::Client] {
        let reply = JoinReply::Welcome { membership: bytes("signed membership"), role };
        samples.push(message(&format!("JoinReply Welcome {role}"), &reply));
    }
    samples.push(message("JoinReply Refused", &JoinReply::Refused(error())));
    samples
}

fn control_samples() -> Vec<Sample> {
    let calls = [ControlCall::Agent(agent_state()), ControlCall::Client(client_state())];
    let mut samples: Vec<Sample> = (calls.into_iter())
        .map(|body| {
            let variant = match &body {
                ControlCall::Agent(_) => "Agent",
                ControlCall::Client(_) => "Client",
            };
            message(&format!("ControlRequest {variant}"), &ControlRequest { id: 1, body })
        })
        .collect();
    let answers =
        [ControlAnswer::Agent(agent_desired()), ControlAnswer::Client(client_desired()), ControlAnswer::Error(error())];
    samples.extend(answers.into_iter().map(|body| {
        let variant = match &body {
            ControlAnswer::Agent(_) => "Agent",
            ControlAnswer::Client(_) => "Client",
            ControlAnswer::Error(_) => "Error",
        };
        message(&format!("ControlReply {variant}"), &ControlReply { id: 70_000, body })
    }));
    samples.extend(error_samples());
    samples
}

/// Every code and every advice to retry, in the smallest message that carries them.
fn error_samples() -> Vec<Sample> {
    const CODES: [ErrorCode; 11] = [
        ErrorCode::Busy,
        ErrorCode::Lease,
        ErrorCode::Invalid,
        ErrorCode::MissingBlob,
        ErrorCode::Toolchain,
        ErrorCode::Sandbox,
        ErrorCode::Limit,
        ErrorCode::Storage,
        ErrorCode::Cancelled,
        ErrorCode::Internal,
        ErrorCode::Refused,
    ];
    let codes = CODES.map(|code| (code, Retry::OtherAgent));
    let retries = [Retry::Never, Retry::SameAgent].map(|retry| (ErrorCode::Internal, retry));
    (codes.into_iter().chain(retries))
        .map(|(code, retry)| {
            let body = ControlAnswer::Error(WireError::new(code, retry, ""));
            message(
                &format!("ControlReply Error {} {}", code_name(code), retry_name(retry)),
                &ControlReply { id: 0, body },
            )
        })
        .collect()
}

/// No wildcard: a new code must be added here and above.
fn code_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Busy => "Busy",
        ErrorCode::Lease => "Lease",
        ErrorCode::Invalid => "Invalid",
        ErrorCode::MissingBlob => "MissingBlob",
        ErrorCode::Toolchain => "Toolchain",
        ErrorCode::Sandbox => "Sandbox",
        ErrorCode::Limit => "Limit",
        ErrorCode::Storage => "Storage",
        ErrorCode::Cancelled => "Cancelled",
        ErrorCode::Internal => "Internal",
        ErrorCode::Refused => "Refused",
    }
}

fn retry_name(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "Never",
        Retry::SameAgent => "SameAgent",
        Retry::OtherAgent => "OtherAgent",
    }
}

pub(crate) fn action_request(token: Option<SlotToken>) -> ActionRequest {
    ActionRequest {
        attempt: [51; 16],
        token,
        action: bytes("action"),
        command: bytes("command"),
        toolchain: bytes("toolchain"),
        offered: vec![blake3(55)],
        inline: vec![bytes("int main;"), bytes("")],
        early: token.map(|_| 1),
    }
}

fn alike() -> Alike {
    Alike { n_blobs: 1, bases: vec![blake3(59)], frame: bytes("zstd frame") }
}

fn action_samples() -> Vec<Sample> {
    let stages = [Stage::Fetching, Stage::Executing, Stage::Collecting].map(ActionUpdate::Running);
    let finished = ActionUpdate::Finished { result: bytes("signed result"), blobs: vec![blake3(53), sha256(54)] };
    let updates = [ActionUpdate::Accepted].into_iter().chain(stages).chain([
        finished,
        ActionUpdate::Failed(error()),
        ActionUpdate::Lacks(vec![true, false]),
        ActionUpdate::Early {
            output: blake3(58),
            mode: 0o644,
            stderr: bytes("written"),
            observed: Some(bytes("seen")),
        },
    ]);
    let mut samples = vec![
        message("ActionRequest leased", &action_request(Some(token(52)))),
        message("ActionRequest open", &action_request(None)),
        message("Supply", &Supply { blobs: vec![bytes("#define X"), bytes("")], alike: None }),
        message("Supply alike", &Supply { blobs: vec![bytes(""), bytes("#define X")], alike: Some(alike()) }),
    ];
    samples.extend(updates.map(|update| {
        let variant = match &update {
            ActionUpdate::Accepted => "Accepted",
            ActionUpdate::Running(Stage::Fetching) => "Running Fetching",
            ActionUpdate::Running(Stage::Executing) => "Running Executing",
            ActionUpdate::Running(Stage::Collecting) => "Running Collecting",
            ActionUpdate::Finished { .. } => "Finished",
            ActionUpdate::Failed(_) => "Failed",
            ActionUpdate::Lacks(_) => "Lacks",
            ActionUpdate::Early { .. } => "Early",
        };
        message(&format!("ActionUpdate {variant}"), &update)
    }));
    samples
}

fn blob_samples() -> Vec<Sample> {
    let requests = [
        BlobRequest::Have(vec![blake3(55)]),
        BlobRequest::Get(vec![blake3(56), sha256(57)]),
        BlobRequest::Map { blob: blake3(58), known: Some(3) },
        BlobRequest::Chunks { blob: blake3(59), chunks: vec![0, 300] },
    ];
    let maps = [
        BlobMap::Working,
        BlobMap::Missing,
        BlobMap::Found { values: vec![[7; 32], [8; 32]], present: Bytes(vec![1]), coming: true },
    ];
    let headers = [BlobHeader::Found, BlobHeader::Missing, BlobHeader::Refused(error())];
    let mut samples: Vec<Sample> = (requests.iter())
        .map(|request| {
            let variant = match request {
                BlobRequest::Have(_) => "Have",
                BlobRequest::Get(_) => "Get",
                BlobRequest::Map { .. } => "Map",
                BlobRequest::Chunks { .. } => "Chunks",
            };
            message(&format!("BlobRequest {variant}"), request)
        })
        .collect();
    samples.push(message("BlobHave", &BlobHave { present: vec![true, false, true] }));
    samples.extend(headers.iter().map(|header| {
        let variant = match header {
            BlobHeader::Found => "Found",
            BlobHeader::Missing => "Missing",
            BlobHeader::Refused(_) => "Refused",
        };
        message(&format!("BlobHeader {variant}"), header)
    }));
    samples.extend(maps.iter().map(|map| {
        let variant = match map {
            BlobMap::Working => "Working",
            BlobMap::Missing => "Missing",
            BlobMap::Found { .. } => "Found",
        };
        message(&format!("BlobMap {variant}"), map)
    }));
    samples
}

fn cache_samples() -> Vec<Sample> {
    let requests = [
        CacheRequest::Find { action: blake3(58) },
        CacheRequest::Announce { result: bytes("signed result"), blobs: vec![bytes("object")] },
        CacheRequest::Hints { key: blake3(59) },
        CacheRequest::Hint { key: blake3(59), hint: hint() },
        CacheRequest::Holds { actions: vec![blake3(58), blake3(60)] },
        CacheRequest::Claim { action: blake3(58), nonce: 7 },
        CacheRequest::Await { action: blake3(58) },
        CacheRequest::Release { claims: vec![(blake3(58), 7)] },
        CacheRequest::Filter { known: Some(FilterMark { epoch: 8, n_added: 9 }) },
        CacheRequest::Doubles,
    ];
    let replies = [
        CacheReply::Found(Some(bytes("signed result"))),
        CacheReply::Found(None),
        CacheReply::Noted,
        CacheReply::Refused(error()),
        CacheReply::Hints(vec![hint(), hint()]),
        CacheReply::Kept,
        CacheReply::Held(vec![true, false]),
        CacheReply::Claimed,
        CacheReply::Coming,
        CacheReply::Filter(FilterUpdate {
            mark: FilterMark { epoch: 8, n_added: 10 },
            whole: Some(bytes("filter")),
            added: vec![11],
        }),
        CacheReply::Doubles(vec![bytes("a double")]),
    ];
    let requests = requests.iter().map(|request| {
        let variant = match request {
            CacheRequest::Find { .. } => "Find",
            CacheRequest::Announce { .. } => "Announce",
            CacheRequest::Hints { .. } => "Hints",
            CacheRequest::Hint { .. } => "Hint",
            CacheRequest::Holds { .. } => "Holds",
            CacheRequest::Claim { .. } => "Claim",
            CacheRequest::Await { .. } => "Await",
            CacheRequest::Release { .. } => "Release",
            CacheRequest::Filter { .. } => "Filter",
            CacheRequest::Doubles => "Doubles",
        };
        message(&format!("CacheRequest {variant}"), request)
    });
    let replies = replies.iter().map(|reply| {
        let variant = match reply {
            CacheReply::Found(Some(_)) => "Found",
            CacheReply::Found(None) => "Found none",
            CacheReply::Noted => "Noted",
            CacheReply::Refused(_) => "Refused",
            CacheReply::Hints(_) => "Hints",
            CacheReply::Kept => "Kept",
            CacheReply::Held(_) => "Held",
            CacheReply::Claimed => "Claimed",
            CacheReply::Coming => "Coming",
            CacheReply::Filter(_) => "Filter",
            CacheReply::Doubles(_) => "Doubles",
        };
        message(&format!("CacheReply {variant}"), reply)
    });
    requests.chain(replies).collect()
}

fn store_path_samples() -> Vec<Sample> {
    let path = StorePath {
        name: "0wwbmlzz12c1mn5a754ndya7mkbbfknm-gcc-12".to_owned(),
        archive_hash: [7; 32],
        archive_bytes: 1 << 20,
        references: vec!["hllfy01p036kv5j778skv59qx1xxhniw-glibc-2.36".to_owned()],
        deriver: Some("zbgk8j6nxzfc8jxa4k4sj3dsdhf5d204-gcc-12.drv".to_owned()),
        signatures: vec!["farm-1:c2lnbmF0dXJl".to_owned()],
        content_address: Some("fixed:r:sha256:abc".to_owned()),
    };
    let hash = "0wwbmlzz12c1mn5a754ndya7mkbbfknm".to_owned();
    vec![
        message("StorePathRequest Describe", &StorePathRequest::Describe(vec![hash.clone()])),
        message("StorePathRequest Archive", &StorePathRequest::Archive { hash }),
        message("StorePathReply Described", &StorePathReply::Described(Some(path))),
        message("StorePathReply Described none", &StorePathReply::Described(None)),
        message("StorePathReply Follows", &StorePathReply::Follows { n_bytes: 1 << 20 }),
        message("StorePathReply Missing", &StorePathReply::Missing),
    ]
}

pub(crate) fn invocation() -> Invocation {
    Invocation {
        program: bytes("/usr/bin/gcc"),
        argv: vec![bytes("gcc"), bytes("-c"), Bytes(vec![0xff, 0xfe])],
        env: vec![bytes("PATH=/usr/bin"), bytes("LANG=C")],
        cwd: bytes("/home/bee/src"),
        umask: 0o022,
        stdout_is_terminal: false,
        stderr_is_terminal: true,
        columns: Some(120),
    }
}

fn admin_calls() -> Vec<AdminCall> {
    vec![
        AdminCall::Ping,
        AdminCall::Status,
        AdminCall::Stats { zero: true },
        AdminCall::Explain { filter: Some("x.c".to_owned()), limit: 20 },
        AdminCall::Explain { filter: None, limit: u32::MAX },
        AdminCall::Peers,
        AdminCall::Stop,
        AdminCall::CacheVerify,
        AdminCall::CacheClear,
        AdminCall::CacheUsage,
        AdminCall::Activity { after: 7, limit: 20 },
        AdminCall::RunStats { run: "r1".to_owned() },
        AdminCall::CacheGc { max_bytes: Some(7) },
        AdminCall::Toolchains,
        AdminCall::Toolchain { which: "/usr/bin/gcc".to_owned() },
        AdminCall::ToolchainVerify { which: None },
        AdminCall::ToolchainGc,
        AdminCall::ToolchainWarm { program: "/usr/bin/gcc".to_owned(), search: "/usr/bin".to_owned() },
        AdminCall::ToolchainWarmRust {
            program: "/h/.cargo/bin/rustc".to_owned(),
            search: "/usr/bin".to_owned(),
            folder: "/h/work".to_owned(),
            home: Some("/h".to_owned()),
            rustup_home: None,
            rustup_toolchain: Some("nightly".to_owned()),
            target: None,
        },
    ]
}

fn admin_name(call: &AdminCall) -> &'static str {
    match call {
        AdminCall::Ping => "Ping",
        AdminCall::Status => "Status",
        AdminCall::Stats { .. } => "Stats",
        AdminCall::Explain { filter: Some(_), .. } => "Explain filter",
        AdminCall::Explain { filter: None, .. } => "Explain all",
        AdminCall::Peers => "Peers",
        AdminCall::Stop => "Stop",
        AdminCall::CacheVerify => "CacheVerify",
        AdminCall::CacheClear => "CacheClear",
        AdminCall::CacheUsage => "CacheUsage",
        AdminCall::Activity { .. } => "Activity",
        AdminCall::RunStats { .. } => "RunStats",
        AdminCall::CacheGc { .. } => "CacheGc",
        AdminCall::Toolchains => "Toolchains",
        AdminCall::Toolchain { .. } => "Toolchain",
        AdminCall::ToolchainVerify { .. } => "ToolchainVerify",
        AdminCall::ToolchainGc => "ToolchainGc",
        AdminCall::ToolchainWarm { .. } => "ToolchainWarm",
        AdminCall::ToolchainWarmRust { .. } => "ToolchainWarmRust",
    }
}

fn local_requests() -> Vec<Sample> {
    let outcome = |exit_code: Option<i32>| LocalOutcome {
        exit_code,
        record: exit_code.map(|_| bytes("log")),
        stdout: bytes("out"),
        stderr: bytes("err"),
        complete: true,
        wall_ms: 250,
    };
    let mut calls = vec![
        LocalCall::Compile(invocation()),
        LocalCall::Compile(Invocation { columns: None, ..invocation() }),
        LocalCall::LocalDone(outcome(Some(1))),
        LocalCall::LocalDone(outcome(None)),
    ];
    calls.extend(admin_calls().into_iter().map(LocalCall::Admin));
    calls.push(LocalCall::Entries);
    (calls.into_iter())
        .map(|call| {
            let variant = match &call {
                LocalCall::Compile(Invocation { columns: Some(_), .. }) => "Compile terminal".to_owned(),
                LocalCall::Compile(_) => "Compile".to_owned(),
                LocalCall::LocalDone(LocalOutcome { exit_code: Some(_), .. }) => "LocalDone".to_owned(),
                LocalCall::LocalDone(_) => "LocalDone killed".to_owned(),
                LocalCall::Admin(call) => format!("Admin {}", admin_name(call)),
                LocalCall::Entries => "Entries".to_owned(),
            };
            message(&format!("LocalRequest {variant}"), &LocalRequest { version: LOCAL_VERSION, call })
        })
        .collect()
}

fn local_replies() -> Vec<Sample> {
    let replies = [
        LocalReply::Working,
        LocalReply::Done { exit_code: -2, stdout: bytes("out"), stderr: bytes("") },
        LocalReply::RunLocally {
            reason: "link".to_owned(),
            report: true,
            extra_arguments: vec!["-fdiagnostics-color=always".to_owned()],
            extra_env: vec![bytes("COLUMNS=80")],
            recorder: Some("/usr/bin/libbuildbee_recorder.so".to_owned()),
            strict_failure: false,
            own_temporary_dir: true,
        },
        LocalReply::Cancel,
        LocalReply::Admin { json: "{}".to_owned() },
        LocalReply::WrongVersion { version: 2 },
        LocalReply::Print {
            stderr: bytes("{}"),
            metadata: bytes("/t/x.rmeta"),
            extra_arguments: vec!["--remap-path-prefix=/a=/b".to_owned()],
        },
        LocalReply::Entries,
        LocalReply::Waiting { text: "gcc is on its way".to_owned() },
    ];
    (replies.iter())
        .map(|reply| {
            let variant = match reply {
                LocalReply::Working => "Working",
                LocalReply::Done { .. } => "Done",
                LocalReply::RunLocally { .. } => "RunLocally",
                LocalReply::Cancel => "Cancel",
                LocalReply::Admin { .. } => "Admin",
                LocalReply::WrongVersion { .. } => "WrongVersion",
                LocalReply::Print { .. } => "Print",
                LocalReply::Entries => "Entries",
                LocalReply::Waiting { .. } => "Waiting",
            };
            message(&format!("LocalReply {variant}"), reply)
        })
        .collect()
}

fn papers_samples() -> Vec<Sample> {
    let full = PapersReply {
        roster: Some(bytes("signed roster")),
        coordinator: vec!["192.0.2.1:7470".to_owned()],
        membership: Some(bytes("signed membership")),
    };
    vec![
        message("PapersRequest", &PapersRequest { roster_newer_than: 7, renew: false }),
        message("PapersRequest renew", &PapersRequest { roster_newer_than: 0, renew: true }),
        message("PapersReply", &full),
        message("PapersReply nothing", &PapersReply::default()),
    ]
}

/// Every protocol's id with its samples.
pub(crate) fn groups() -> Vec<(String, Vec<Sample>)> {
    let mut groups: Vec<(String, Vec<Sample>)> = (Protocol::ALL.into_iter())
        .map(|protocol| {
            let samples = match protocol {
                Protocol::Hello => hello_samples(),
                Protocol::Join => join_samples(),
                Protocol::Control => control_samples(),
                Protocol::Action => action_samples(),
                Protocol::Blob => blob_samples(),
                Protocol::Cache => cache_samples(),
                Protocol::StorePath => store_path_samples(),
                Protocol::Papers => papers_samples(),
            };
            (protocol.id().to_owned(), samples)
        })
        .collect();
    let local = local_requests().into_iter().chain(local_replies()).collect();
    groups.push((format!("local {LOCAL_VERSION}"), local));
    groups
}
