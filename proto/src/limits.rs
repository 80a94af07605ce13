//! Every maximum that a peer, a file or a socket is held to. Bytes unless the name says otherwise.

/// One file name.
pub const MAX_COMPONENT_BYTES: usize = 255;
/// One path.
pub const MAX_PATH_BYTES: usize = 4096;
/// Components in one path, and levels of a tree of directories.
pub const MAX_PATH_DEPTH: usize = 128;

/// One `Directory` blob.
pub const MAX_DIRECTORY_BYTES: usize = 8 << 20;
/// Files, folders and symlinks in one tree (an input root or a toolchain).
pub const MAX_TREE_ENTRIES: usize = 500_000;
/// One `Command` or `Action` or `Toolchain` blob.
pub const MAX_COMMAND_BYTES: usize = 2 << 20;
/// Arguments of one command.
pub const MAX_ARGUMENTS: usize = 65_536;
/// Environment variables of one command.
pub const MAX_ENVIRONMENT: usize = 4_096;
/// Declared outputs of one command.
pub const MAX_OUTPUTS: usize = 4_096;
/// One `ActionResult` or `Manifest` record.
pub const MAX_RESULT_BYTES: usize = 8 << 20;
/// Results a manifest keeps; the oldest go first.
pub const MAX_MANIFEST_ENTRIES: usize = 16;
/// Folders that are remembered for one portable key; the oldest go first.
pub const MAX_HINTS: usize = 8;
/// Folders of one compile that may be elsewhere in another checkout: workspace, cargo home, target folder, and one for outputs.
pub const MAX_HINT_ROOTS: usize = 4;
/// Files, absences and symlinks in one read set.
pub const MAX_READ_SET: usize = 100_000;
/// One log of the recorder. The most that a compile was seen to note is some 200 KiB (a link); a macro that reads 20,000 files notes 2 MiB.
pub const MAX_RECORD_BYTES: usize = 8 << 20;
/// One `Observed` blob: a log's paths may each stand in several lists.
pub const MAX_OBSERVED_BYTES: usize = 2 * MAX_RECORD_BYTES;

/// Doubles of compilers that one agent tells of.
pub const MAX_DOUBLES: usize = 64;
/// Each text of one: a path, a version.
pub const MAX_DOUBLE_TEXT_BYTES: usize = MAX_PATH_BYTES;
/// Libraries that one names.
pub const MAX_DOUBLE_LIBRARIES: usize = 16;

/// One frame on a control stream.
pub const MAX_CONTROL_FRAME: usize = 1 << 20;
/// One frame on an action stream (it may carry directories and small sources).
pub const MAX_ACTION_FRAME: usize = 16 << 20;
/// One request frame on a blob stream.
pub const MAX_BLOB_FRAME: usize = 64 << 10;
/// One frame that says what is there of a large blob: 32 bytes a chunk, and a bit.
pub const MAX_BLOB_MAP_FRAME: usize = 512 << 10;
/// One frame on a cache stream.
pub const MAX_CACHE_FRAME: usize = MAX_RESULT_BYTES;
/// One frame of the hello and join streams.
pub const MAX_HELLO_FRAME: usize = 64 << 10;
/// One frame of the papers streams: a roster of all members and as many revoked ones, and room.
pub const MAX_PAPERS_FRAME: usize = 512 << 10;
/// One frame between wrapper and daemon.
pub const MAX_LOCAL_FRAME: usize = 64 << 20;

/// Blobs announced with their result.
pub const MAX_ANNOUNCED_BLOBS: usize = 16;
/// Bytes of these, in all.
pub const MAX_ANNOUNCED_BYTES: usize = 64 << 10;
/// Value of one entry of another tool's cache.
pub const MAX_ENTRY_BYTES: u64 = 128 << 20;
/// Its name.
pub const MAX_ENTRY_NAME_BYTES: usize = 1024;
/// Results that are asked for, or released, together.
pub const MAX_RESULTS_PER_REQUEST: usize = 256;
/// One filter: 16 bits for each of a million entries.
pub const MAX_FILTER_BYTES: usize = 2 << 20;
/// Fingerprints in one update of a filter.
pub const MAX_FILTER_NEWS: usize = 4_096;
/// Digests in one blob request.
pub const MAX_BLOBS_PER_REQUEST: usize = 256;
/// Blobs sent along with an action, in all.
pub const MAX_INLINE_BYTES: usize = 8 << 20;
/// Blobs sent along with an action.
pub const MAX_INLINE_BLOBS: usize = 65_536;
/// Blobs offered with an action.
pub const MAX_OFFERED: usize = 16_384;
/// Blobs that others are described by.
pub const MAX_BASES: usize = 4_096;
/// These, in all.
pub const MAX_BASES_BYTES: usize = 8 << 20;
/// Distinct blobs that one result names: its outputs, standard output, standard error and what was observed.
pub const MAX_RESULT_BLOBS: usize = MAX_OUTPUTS + 3;
/// One blob.
pub const MAX_BLOB_BYTES: u64 = 8 << 30;
/// One chunk of a large blob. A power of two of BLAKE3's own chunks (1024 bytes).
pub const CHUNK_BYTES: u64 = 1 << 20;
/// A blob from this size on travels in chunks.
pub const MIN_CHUNKED_BYTES: u64 = 4 * CHUNK_BYTES;
/// Chunks of one blob.
pub const MAX_CHUNKS: usize = 8192;
/// Chunks in one request.
pub const MAX_CHUNKS_PER_REQUEST: usize = 64;
/// Captured standard output and standard error of one action, each.
pub const MAX_STREAM_BYTES: u64 = 64 << 20;
/// All outputs of one action.
pub const MAX_OUTPUT_BYTES: u64 = 4 << 30;

/// Members of one farm: ten thousand agents, a thousand clients, and room.
pub const MAX_MEMBERS: usize = 12_288;
/// Agents of which one peer is told.
pub const MAX_KNOWN_AGENTS: usize = 4_096;
/// Members whose standing one change of the roster tells; beyond that the roster is told whole.
pub const MAX_ROSTER_CHANGES: usize = 1_024;
/// Machines that one ticket may let in.
pub const MAX_TICKET_USES: u32 = 4_096;
/// Slots that one agent may offer.
pub const MAX_SLOTS_PER_AGENT: usize = 1_024;
/// Toolchains that one agent may advertise, or one client ask for.
pub const MAX_TOOLCHAINS_PER_AGENT: usize = 256;
/// Leases that one client may hold.
pub const MAX_LEASES_PER_CLIENT: usize = 4_096;
/// Addresses of one peer.
pub const MAX_ADDRESSES_PER_PEER: usize = 16;
/// One address, `host:port`: the longest DNS name is 253 bytes.
pub const MAX_ADDRESS_BYTES: usize = 512;
/// A name that a person gave to a peer or a farm.
pub const MAX_NAME_BYTES: usize = 128;
/// Text of an error that a peer sent.
pub const MAX_ERROR_TEXT_BYTES: usize = 4_096;

const _: () = assert!(MAX_BLOB_BYTES / CHUNK_BYTES == MAX_CHUNKS as u64);
/// Hashes of store paths in one question.
pub const MAX_STORE_PATH_HASHES: usize = 256;
/// Bytes of a store path's name: Nix allows 211 behind the hash and its dash.
pub const MAX_STORE_PATH_NAME_BYTES: usize = 255;
/// Paths that one needs. Whole systems name thousands, each 60 bytes or so.
pub const MAX_STORE_PATH_REFERENCES: usize = 4_096;
/// Signatures of one path.
pub const MAX_STORE_PATH_SIGNATURES: usize = 32;
/// Bytes of a signature or content address.
pub const MAX_STORE_PATH_TEXT_BYTES: usize = 512;
