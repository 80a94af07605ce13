//! Fixed values of the content model.

use buildbee_proto::action::{Action, Command};
use buildbee_proto::digest::{Digest, DigestFunction};
use buildbee_proto::double::Double;
use buildbee_proto::entry::EntryName;
use buildbee_proto::hint::{Hint, Hints};
use buildbee_proto::manifest::{Manifest, ManifestEntry};
use buildbee_proto::membership::{Membership, Roster, Signed, Ticket};
use buildbee_proto::observed::Observed;
use buildbee_proto::outcome::{ActionResult, OutputFile, Provenance, ReadSet, SignedResult};
use buildbee_proto::path::{PathComponent, RelPath};
use buildbee_proto::peer::{PeerId, Role, Signature};
use buildbee_proto::toolchain::{Toolchain, ToolchainId};
use buildbee_proto::tree::{Directory, DirectoryNode, FileNode, SymlinkNode, Twin};

use super::{Sample, content};

pub(crate) fn name(text: &str) -> PathComponent {
    PathComponent::try_from(text).expect("a valid name")
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::try_from(text).expect("a valid path")
}

pub(crate) fn blake3(seed: u8) -> Digest {
    Digest { function: DigestFunction::Blake3, hash: [seed; 32], size_bytes: u64::from(seed) * 1000 }
}

pub(crate) fn sha256(seed: u8) -> Digest {
    Digest { function: DigestFunction::Sha256, ..blake3(seed) }
}

pub(crate) fn peer(seed: u8) -> PeerId {
    PeerId([seed; 32])
}

fn pairs(items: &[(&str, &str)]) -> Vec<(String, String)> {
    items.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn directory() -> Directory {
    Directory {
        files: vec![
            FileNode { name: name("cc1"), digest: blake3(1), executable: true, twin: Twin::default() },
            FileNode {
                name: name("größe.h"),
                digest: sha256(2),
                executable: false,
                twin: Twin { inode: 2, second: 1 },
            },
        ],
        directories: vec![DirectoryNode { name: name("include"), digest: blake3(3) }],
        symlinks: vec![SymlinkNode { name: name("cc"), target: "../bin/gcc".to_owned() }],
    }
}

pub(crate) fn toolchain() -> Toolchain {
    Toolchain { root: blake3(4), host: "x86_64-linux".to_owned(), label: "gcc 12.2.0".to_owned() }
}

pub(crate) fn double() -> Double {
    Double {
        toolchain: toolchain(),
        program: "/usr/bin/aarch64-linux-gnu-g++-12".to_owned(),
        search: "/usr/bin:/bin".to_owned(),
        family: "gcc".to_owned(),
        driver: "c++".to_owned(),
        version: "12.2.0".to_owned(),
        target: "aarch64-linux-gnu".to_owned(),
        libraries: vec!["libz.so.1.2.13".to_owned(), "libzstd.so.1.5.4".to_owned()],
    }
}

pub(crate) fn command() -> Command {
    Command {
        argv: ["/usr/bin/gcc", "-c", "x.c", "-o", "x.o", ""].map(str::to_owned).to_vec(),
        env: pairs(&[("LANG", "C"), ("PATH", "")]),
        working_directory: path("home/bee/src"),
        output_files: vec![path("home/bee/src/x.d"), path("home/bee/src/x.o")],
        output_directories: vec![path("home/bee/src/out")],
    }
}

pub(crate) fn action() -> Action {
    Action {
        command: blake3(5),
        input_root: blake3(6),
        toolchain: ToolchainId(blake3(7)),
        platform: pairs(&[("cpu", "avx2"), ("os", "linux")]),
        timeout_ms: 600_000,
        do_not_cache: true,
    }
}

pub(crate) fn read_set() -> ReadSet {
    ReadSet {
        files: vec![(path("home/bee/src/x.c"), blake3(8)), (path("usr/include/stdio.h"), blake3(9))],
        absent: vec![path("usr/local/include/stdio.h")],
        symlinks: vec![(path("usr/lib/cpp"), "/etc/alternatives/cpp".to_owned())],
        twins: vec![(0, Twin::default()), (1, Twin { inode: 1, second: 0 })],
        listed: vec![(path("home/bee/src"), blake3(61))],
        env: vec![("BEE".to_owned(), Some("ü".to_owned())), ("HIVE".to_owned(), None)],
    }
}

pub(crate) fn observed() -> Observed {
    Observed {
        files: vec![path("home/bee/src/lib.rs"), path("home/bee/target/libm.so")],
        seen: vec![path("home/bee/Cargo.toml")],
        links: vec![path("home/bee/latest")],
        absent: vec![path("home/bee/.env")],
        listed: vec![path("home/bee/assets")],
        env: vec!["DATABASE_URL".to_owned(), "RUST_LOG".to_owned()],
        late_env: vec!["DATABASE_URL".to_owned()],
        walkers: vec![path("home/bee/target/libm.so")],
        network: true,
    }
}

pub(crate) fn action_result() -> ActionResult {
    ActionResult {
        action: blake3(10),
        exit_code: -1,
        outputs: vec![
            OutputFile { path: path("home/bee/src/x.d"), digest: blake3(11), mode: 0o644 },
            OutputFile { path: path("home/bee/src/x.o"), digest: blake3(12), mode: 0o777 },
        ],
        stdout: blake3(13),
        stderr: sha256(14),
        observed: Some(blake3(61)),
        provenance: Provenance {
            peer: peer(15),
            sandboxed: true,
            wall_ms: 1_234,
            cpu_ms: 1_200,
            peak_memory_bytes: 64 << 20,
        },
    }
}

pub(crate) fn signed_result() -> SignedResult {
    SignedResult { result: action_result(), signature: Signature([16; 64]) }
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        entries: vec![
            ManifestEntry { action: blake3(17), read_set: read_set() },
            ManifestEntry { action: blake3(18), read_set: ReadSet::default() },
        ],
    }
}

pub(crate) fn hint() -> Hint {
    Hint { roots: vec![path("home/bee/src"), path("home/bee/target")], action: blake3(60) }
}

pub(crate) fn membership(role: Role) -> Membership {
    Membership {
        farm: peer(19),
        peer: peer(20),
        role,
        name: "Büro 3".to_owned(),
        issued_at: 1_700_000_000,
        expires_at: 1_800_000_000,
    }
}

pub(crate) fn ticket() -> Ticket {
    Ticket {
        farm: peer(21),
        coordinator: peer(22),
        addresses: vec!["192.0.2.1:7411".to_owned(), "[2001:db8::1]:7411".to_owned()],
        role: Role::Agent,
        issued_at: 1_700_000_000,
        expires_at: 1_700_003_600,
        uses: 3,
        nonce: [23; 16],
    }
}

pub(crate) fn roster() -> Roster {
    Roster {
        farm: peer(24),
        version: 7,
        members: vec![(peer(25), Role::Coordinator), (peer(26), Role::Agent), (peer(27), Role::Client)],
        revoked: vec![peer(28), peer(29)],
    }
}

pub(crate) fn signed<T>(value: T) -> Signed<T> {
    Signed { value, signature: Signature([30; 64]), warrant: None }
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = vec![
        content("Directory", &directory()),
        content("Directory empty", &Directory::default()),
        content("Toolchain", &toolchain()),
        content("Double", &double()),
        content("Command", &command()),
        content("Action", &action()),
        content("ReadSet", &read_set()),
        content("ReadSet empty", &ReadSet::default()),
        content("Observed", &observed()),
        content("Observed nothing", &Observed::default()),
        content("ActionResult", &action_result()),
        content("ActionResult unobserved", &ActionResult { observed: None, ..action_result() }),
        content("SignedResult", &signed_result()),
        content("Manifest", &manifest()),
        content("Manifest empty", &Manifest::default()),
        content("Hints", &Hints { entries: vec![hint()] }),
        content("EntryName", &EntryName::new("project/ab/cdef").unwrap()),
        content("Ticket", &ticket()),
        content("Signed Ticket", &signed(ticket())),
        content("Roster", &roster()),
        content("Signed Roster", &signed(roster())),
        content("Signed Membership", &signed(membership(Role::Agent))),
    ];
    for role in [Role::Coordinator, Role::Agent, Role::Client] {
        samples.push(content(&format!("Membership {role}"), &membership(role)));
    }
    samples
}
