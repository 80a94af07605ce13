//! Arbitrary messages.

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
use buildbee_proto::limits::MAX_HINTS;
use buildbee_proto::listing::Listing;
use buildbee_proto::local::{AdminCall, Invocation, LocalCall, LocalOutcome, LocalReply, LocalRequest};
use buildbee_proto::papers::{PapersReply, PapersRequest};
use buildbee_proto::roster_news::{RosterChange, RosterNews, Standing};
use buildbee_proto::toolchain::ToolchainId;
use proptest::array::uniform16;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::content::{digest, hint, peer, role};

/// Lists in messages are at most this long here.
const ITEMS: usize = 6;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes)
}

fn error() -> impl Strategy<Value = WireError> {
    let code = prop_oneof![
        Just(ErrorCode::Busy),
        Just(ErrorCode::Lease),
        Just(ErrorCode::Invalid),
        Just(ErrorCode::MissingBlob),
        Just(ErrorCode::Toolchain),
        Just(ErrorCode::Sandbox),
        Just(ErrorCode::Limit),
        Just(ErrorCode::Storage),
        Just(ErrorCode::Cancelled),
        Just(ErrorCode::Internal),
        Just(ErrorCode::Refused),
    ];
    let retry = prop_oneof![Just(Retry::Never), Just(Retry::SameAgent), Just(Retry::OtherAgent)];
    (code, retry, ".{0,40}").prop_map(|(code, retry, message)| WireError { code, retry, message })
}

fn token() -> impl Strategy<Value = SlotToken> {
    (peer(), any::<u64>(), any::<u64>()).prop_map(|(agent, boot_id, counter)| SlotToken { agent, boot_id, counter })
}

fn toolchains() -> impl Strategy<Value = Vec<ToolchainId>> {
    vec(digest().prop_map(ToolchainId), 0..ITEMS)
}

fn offer() -> impl Strategy<Value = Offer> {
    let sizes = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>());
    (".{0,20}", ".{0,20}", sizes, toolchains(), vec(".{0,20}", 0..ITEMS)).prop_map(
        |(name, host, (n_cores, memory_bytes, memory_free_bytes, load_percent), toolchains, addresses)| Offer {
            name,
            host,
            n_cores,
            memory_bytes,
            memory_free_bytes,
            load_percent,
            toolchains,
            addresses,
        },
    )
}

fn agent_infos() -> impl Strategy<Value = Vec<AgentInfo>> {
    let info = (peer(), offer(), any::<u32>()).prop_map(|(peer, offer, n_slots)| AgentInfo { peer, offer, n_slots });
    vec(info, 0..ITEMS)
}

fn listing() -> impl Strategy<Value = Option<Listing>> {
    let listing = (any::<u64>(), any::<u64>(), vec(any::<u16>(), 0..ITEMS), agent_infos());
    option::of(listing.prop_map(|(after, number, dropped, added)| Listing { after, number, dropped, added }))
}

fn roster_news() -> impl Strategy<Value = Option<RosterNews>> {
    let standing =
        (peer(), option::of(role()), any::<bool>()).prop_map(|(peer, role, revoked)| Standing { peer, role, revoked });
    let change = (any::<u64>(), any::<u64>(), vec(standing, 0..ITEMS), bytes())
        .prop_map(|(from, to, standings, signature)| RosterChange { from, to, standings, signature });
    option::of(prop_oneof![bytes().prop_map(RosterNews::Whole), change.prop_map(RosterNews::Change)])
}

fn slot_report() -> impl Strategy<Value = SlotReport> {
    (token(), option::of(peer()), any::<u32>(), any::<bool>())
        .prop_map(|(token, dealt_to, expires_in_ms, busy)| SlotReport { token, dealt_to, expires_in_ms, busy })
}

fn control_call() -> impl Strategy<Value = ControlCall> {
    prop_oneof![
        (offer(), vec(slot_report(), 0..ITEMS), any::<u64>(), any::<u64>()).prop_map(
            |(offer, slots, roster_version, listing)| {
                ControlCall::Agent(AgentState { offer, slots, roster_version, listing })
            }
        ),
        (any::<u32>(), toolchains(), vec(token(), 0..ITEMS), any::<u64>(), any::<bool>(), any::<u64>()).prop_map(
            |(n_wanted, toolchains, held, roster_version, waits, listing)| {
                let class = if waits { Class::Interactive } else { Class::Batch };
                ControlCall::Client(ClientState { n_wanted, toolchains, held, roster_version, class, listing })
            }
        ),
    ]
}

pub(crate) fn control_request() -> impl Strategy<Value = ControlRequest> {
    (any::<u64>(), control_call()).prop_map(|(id, body)| ControlRequest { id, body })
}

fn control_answer() -> impl Strategy<Value = ControlAnswer> {
    let dealt = vec((token(), peer()), 0..ITEMS);
    let lease = (token(), any::<u32>()).prop_map(|(token, expires_in_ms)| Lease { token, expires_in_ms });
    prop_oneof![
        (dealt, any::<u32>(), listing(), roster_news(), any::<u32>()).prop_map(
            |(dealt, deal_for_ms, peers, roster, next_call_ms)| {
                ControlAnswer::Agent(AgentDesired { dealt, deal_for_ms, peers, roster, next_call_ms })
            }
        ),
        (vec(lease, 0..ITEMS), listing(), roster_news(), any::<u32>()).prop_map(
            |(leases, agents, roster, next_call_ms)| {
                ControlAnswer::Client(ClientDesired { leases, agents, roster, next_call_ms })
            }
        ),
        error().prop_map(ControlAnswer::Error),
    ]
}

pub(crate) fn control_reply() -> impl Strategy<Value = ControlReply> {
    (any::<u64>(), control_answer()).prop_map(|(id, body)| ControlReply { id, body })
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    (bytes(), any::<u64>()).prop_map(|(membership, features)| Hello { membership, features })
}

pub(crate) fn hello_reply() -> impl Strategy<Value = HelloReply> {
    prop_oneof![hello().prop_map(HelloReply::Welcome), error().prop_map(HelloReply::Refused)]
}

pub(crate) fn papers_request() -> impl Strategy<Value = PapersRequest> {
    (any::<u64>(), any::<bool>()).prop_map(|(roster_newer_than, renew)| PapersRequest { roster_newer_than, renew })
}

pub(crate) fn papers_reply() -> impl Strategy<Value = PapersReply> {
    let texts = vec(".{0,20}", 0..4);
    (option::of(bytes()), texts, option::of(bytes())).prop_map(|(roster, coordinator, membership)| PapersReply {
        roster,
        coordinator,
        membership,
    })
}

pub(crate) fn join_request() -> impl Strategy<Value = JoinRequest> {
    (bytes(), ".{0,20}").prop_map(|(ticket, name)| JoinRequest { ticket, name })
}

pub(crate) fn join_reply() -> impl Strategy<Value = JoinReply> {
    prop_oneof![
        (bytes(), role()).prop_map(|(membership, role)| JoinReply::Welcome { membership, role }),
        error().prop_map(JoinReply::Refused),
    ]
}

pub(crate) fn action_request() -> impl Strategy<Value = ActionRequest> {
    let content = (bytes(), bytes(), bytes());
    let along = (vec(digest(), 0..ITEMS), vec(bytes(), 0..ITEMS));
    (uniform16(any::<u8>()), option::of(token()), content, along, option::of(any::<u32>())).prop_map(
        |(attempt, token, (action, command, toolchain), (offered, inline), early)| ActionRequest {
            attempt,
            token,
            action,
            command,
            toolchain,
            offered,
            inline,
            early,
        },
    )
}

pub(crate) fn action_update() -> impl Strategy<Value = ActionUpdate> {
    let stage = prop_oneof![Just(Stage::Fetching), Just(Stage::Executing), Just(Stage::Collecting)];
    prop_oneof![
        Just(ActionUpdate::Accepted),
        stage.prop_map(ActionUpdate::Running),
        (bytes(), vec(digest(), 0..ITEMS)).prop_map(|(result, blobs)| ActionUpdate::Finished { result, blobs }),
        error().prop_map(ActionUpdate::Failed),
        vec(any::<bool>(), 0..ITEMS).prop_map(ActionUpdate::Lacks),
        (digest(), any::<u32>(), bytes(), proptest::option::of(bytes()))
            .prop_map(|(output, mode, stderr, observed)| { ActionUpdate::Early { output, mode, stderr, observed } }),
    ]
}

pub(crate) fn supply() -> impl Strategy<Value = Supply> {
    let alike = (any::<u32>(), vec(digest(), 0..ITEMS), bytes());
    let alike = alike.prop_map(|(n_blobs, bases, frame)| Alike { n_blobs, bases, frame });
    (vec(bytes(), 0..ITEMS), option::of(alike)).prop_map(|(blobs, alike)| Supply { blobs, alike })
}

pub(crate) fn blob_request() -> impl Strategy<Value = BlobRequest> {
    prop_oneof![
        vec(digest(), 0..ITEMS).prop_map(BlobRequest::Have),
        vec(digest(), 0..ITEMS).prop_map(BlobRequest::Get),
        (digest(), any::<Option<u32>>()).prop_map(|(blob, known)| BlobRequest::Map { blob, known }),
        (digest(), vec(any::<u32>(), 0..ITEMS)).prop_map(|(blob, chunks)| BlobRequest::Chunks { blob, chunks }),
    ]
}

pub(crate) fn blob_map() -> impl Strategy<Value = BlobMap> {
    let found = (vec(any::<[u8; 32]>(), 0..ITEMS), vec(any::<u8>(), 0..ITEMS), any::<bool>())
        .prop_map(|(values, present, coming)| BlobMap::Found { values, present: Bytes(present), coming });
    prop_oneof![Just(BlobMap::Working), Just(BlobMap::Missing), found]
}

pub(crate) fn blob_have() -> impl Strategy<Value = BlobHave> {
    vec(any::<bool>(), 0..=256).prop_map(|present| BlobHave { present })
}

pub(crate) fn blob_header() -> impl Strategy<Value = BlobHeader> {
    prop_oneof![Just(BlobHeader::Found), Just(BlobHeader::Missing), error().prop_map(BlobHeader::Refused)]
}

pub(crate) fn cache_request() -> impl Strategy<Value = CacheRequest> {
    prop_oneof![
        digest().prop_map(|action| CacheRequest::Find { action }),
        (bytes(), vec(bytes(), 0..4)).prop_map(|(result, blobs)| CacheRequest::Announce { result, blobs }),
        digest().prop_map(|key| CacheRequest::Hints { key }),
        (digest(), hint()).prop_map(|(key, hint)| CacheRequest::Hint { key, hint }),
        vec(digest(), 0..ITEMS).prop_map(|actions| CacheRequest::Holds { actions }),
        (digest(), any::<u64>()).prop_map(|(action, nonce)| CacheRequest::Claim { action, nonce }),
        digest().prop_map(|action| CacheRequest::Await { action }),
        vec((digest(), any::<u64>()), 0..ITEMS).prop_map(|claims| CacheRequest::Release { claims }),
        option::of(filter_mark()).prop_map(|known| CacheRequest::Filter { known }),
        Just(CacheRequest::Doubles),
    ]
}

fn filter_mark() -> impl Strategy<Value = FilterMark> {
    (any::<u64>(), any::<u64>()).prop_map(|(epoch, n_added)| FilterMark { epoch, n_added })
}

fn filter_update() -> impl Strategy<Value = FilterUpdate> {
    (filter_mark(), option::of(bytes()), vec(any::<u64>(), 0..ITEMS)).prop_map(|(mark, whole, added)| FilterUpdate {
        mark,
        whole,
        added,
    })
}

pub(crate) fn cache_reply() -> impl Strategy<Value = CacheReply> {
    prop_oneof![
        option::of(bytes()).prop_map(CacheReply::Found),
        Just(CacheReply::Noted),
        error().prop_map(CacheReply::Refused),
        vec(hint(), 0..=MAX_HINTS).prop_map(CacheReply::Hints),
        Just(CacheReply::Kept),
        vec(any::<bool>(), 0..ITEMS).prop_map(CacheReply::Held),
        Just(CacheReply::Claimed),
        Just(CacheReply::Coming),
        filter_update().prop_map(CacheReply::Filter),
        vec(bytes(), 0..ITEMS).prop_map(CacheReply::Doubles),
    ]
}

fn invocation() -> impl Strategy<Value = Invocation> {
    let lists = (vec(bytes(), 0..ITEMS), vec(bytes(), 0..ITEMS));
    let terminal = (any::<bool>(), any::<bool>(), option::of(any::<u16>()));
    (bytes(), lists, bytes(), any::<u32>(), terminal).prop_map(
        |(program, (argv, env), cwd, umask, (stdout_is_terminal, stderr_is_terminal, columns))| Invocation {
            program,
            argv,
            env,
            cwd,
            umask,
            stdout_is_terminal,
            stderr_is_terminal,
            columns,
        },
    )
}

fn local_outcome() -> impl Strategy<Value = LocalOutcome> {
    (option::of(any::<i32>()), bytes(), bytes(), any::<bool>(), any::<u64>(), option::of(bytes())).prop_map(
        |(exit_code, stdout, stderr, complete, wall_ms, record)| LocalOutcome {
            exit_code,
            stdout,
            stderr,
            complete,
            wall_ms,
            record,
        },
    )
}

fn admin_call() -> impl Strategy<Value = AdminCall> {
    prop_oneof![
        Just(AdminCall::Ping),
        Just(AdminCall::Status),
        any::<bool>().prop_map(|zero| AdminCall::Stats { zero }),
        (option::of(".{0,20}"), any::<u32>()).prop_map(|(filter, limit)| AdminCall::Explain { filter, limit }),
        Just(AdminCall::Peers),
        Just(AdminCall::Stop),
        Just(AdminCall::CacheVerify),
        Just(AdminCall::CacheClear),
        Just(AdminCall::CacheUsage),
        any::<(u64, u32)>().prop_map(|(after, limit)| AdminCall::Activity { after, limit }),
        ".{0,16}".prop_map(|run| AdminCall::RunStats { run }),
        option::of(any::<u64>()).prop_map(|max_bytes| AdminCall::CacheGc { max_bytes }),
        Just(AdminCall::Toolchains),
        ".{0,20}".prop_map(|which| AdminCall::Toolchain { which }),
        option::of(".{0,20}").prop_map(|which| AdminCall::ToolchainVerify { which }),
        Just(AdminCall::ToolchainGc),
        (".{0,20}", ".{0,20}").prop_map(|(program, search)| AdminCall::ToolchainWarm { program, search }),
        (
            (".{0,20}", ".{0,20}", ".{0,20}"),
            [option::of(".{0,9}"), option::of(".{0,9}"), option::of(".{0,9}"), option::of(".{0,9}")]
        )
            .prop_map(|((program, search, folder), [home, rustup_home, rustup_toolchain, target])| {
                AdminCall::ToolchainWarmRust { program, search, folder, home, rustup_home, rustup_toolchain, target }
            }),
    ]
}

pub(crate) fn local_request() -> impl Strategy<Value = LocalRequest> {
    let call = prop_oneof![
        invocation().prop_map(LocalCall::Compile),
        local_outcome().prop_map(LocalCall::LocalDone),
        admin_call().prop_map(LocalCall::Admin),
        Just(LocalCall::Entries),
    ];
    (any::<u32>(), call).prop_map(|(version, call)| LocalRequest { version, call })
}

pub(crate) fn local_reply() -> impl Strategy<Value = LocalReply> {
    let extra = (vec(".{0,20}", 0..ITEMS), vec(bytes(), 0..ITEMS), option::of(".{0,20}"));
    let run = (".{0,20}", any::<bool>(), extra, any::<(bool, bool)>());
    prop_oneof![
        Just(LocalReply::Working),
        (any::<i32>(), bytes(), bytes()).prop_map(|(exit_code, stdout, stderr)| LocalReply::Done {
            exit_code,
            stdout,
            stderr
        }),
        run.prop_map(
            |(reason, report, (extra_arguments, extra_env, recorder), (strict_failure, own_temporary_dir))| {
                LocalReply::RunLocally {
                    reason,
                    report,
                    extra_arguments,
                    extra_env,
                    recorder,
                    strict_failure,
                    own_temporary_dir,
                }
            }
        ),
        Just(LocalReply::Cancel),
        Just(LocalReply::Entries),
        ".{0,40}".prop_map(|text| LocalReply::Waiting { text }),
        ".{0,200}".prop_map(|json| LocalReply::Admin { json }),
        any::<u32>().prop_map(|version| LocalReply::WrongVersion { version }),
        (bytes(), bytes(), vec(".{0,20}", 0..ITEMS)).prop_map(|(stderr, metadata, extra_arguments)| {
            LocalReply::Print { stderr, metadata, extra_arguments }
        }),
    ]
}
