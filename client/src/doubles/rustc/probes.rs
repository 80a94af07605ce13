//! What both compile before a pair is used: two small crates, the second of which uses the first, with the argument lines that cargo's
//! profiles come to. Libraries, metadata, dependency files and messages must be the same to the byte.
//!
//! Raise [`VERSION`] with any change: verdicts that are remembered count for one set of probes.

/// Of this set of probes.
pub const VERSION: u32 = 1;

/// The folder of the sources, in that of a proof.
pub const SOURCE_FOLDER: &str = "src";
/// The sources by name.
pub const SOURCES: [(&str, &str); 2] =
    [("probe.rs", include_str!("probes/probe.rs")), ("user.rs", include_str!("probes/user.rs"))];

/// One compile.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The crate's name, and its source's without the ending.
    pub name: &'static str,
    /// Arguments besides those that all have.
    pub arguments: &'static str,
}

impl Probe {
    /// Whether two runs of one rustc call objects in its library differently, so that no more than those can be compared.
    pub fn draws_names(&self) -> bool {
        self.arguments.contains("incremental")
    }
}

const fn probe(name: &'static str, arguments: &'static str) -> Probe {
    Probe { name, arguments }
}

/// Compiled before all others, which use what this machine's compiler makes of it.
pub const FIRST: Probe =
    probe("probe", "--crate-type lib --emit=dep-info,metadata,link -C opt-level=3 -C embed-bitcode=no");
/// The others.
pub const OTHERS: [Probe; 8] = [
    probe("probe", "--crate-type lib --emit=dep-info,metadata,link -C embed-bitcode=no -C debuginfo=2"),
    probe("user", "--crate-type lib --emit=metadata,link -C debuginfo=1 -C incremental=incremental"),
    probe(
        "probe",
        "--crate-type lib --emit=obj,asm -C opt-level=2 -C codegen-units=1 -C overflow-checks=on -C force-frame-pointers=yes",
    ),
    probe("probe", "--crate-type lib --emit=metadata -C debuginfo=2 --cap-lints allow"),
    probe(
        "user",
        "--crate-type lib --emit=dep-info,metadata,link -C opt-level=3 -C lto=off -C debuginfo=line-tables-only -C codegen-units=1",
    ),
    probe(
        "user",
        "--crate-type rlib --emit=link -C opt-level=s -C panic=abort -C symbol-mangling-version=v0 -C lto=fat",
    ),
    probe(
        "user",
        "--crate-type lib --emit=link -C opt-level=1 -C relocation-model=static -C debug-assertions=on -l static=probe",
    ),
    probe("user", "--crate-type staticlib --emit=link -C opt-level=z -C strip=debuginfo"),
];

/// Of the set below.
pub const MACRO_VERSION: u32 = 1;
/// Sources of macros and of a crate that uses them.
pub const MACRO_SOURCES: [(&str, &str); 2] =
    [("macros.rs", include_str!("probes/macros.rs")), ("derived.rs", include_str!("probes/derived.rs"))];
/// Macros, which both sides build for themselves.
pub const MACROS: Probe = probe("macros", "--crate-type proc-macro --emit=dep-info,link -C embed-bitcode=no");
/// What uses them.
pub const MACRO_USER: Probe =
    probe("derived", "--crate-type lib --emit=dep-info,metadata,link -C embed-bitcode=no -C debuginfo=2");

/// The argument line of a probe that writes into `folder` and finds crates and libraries in `crates`.
pub fn line(probe: &Probe, folder: &str, crates: &str) -> Vec<String> {
    let Probe { name, arguments } = probe;
    let used = match *name {
        "probe" => String::new(),
        "macros" => " --extern proc_macro".to_owned(),
        "derived" => format!(" -L dependency={crates} --extern macros={crates}/libmacros-0123456789abcdef.so"),
        _ => {
            format!(" -L dependency={crates} -L native={crates} --extern probe={crates}/libprobe-0123456789abcdef.rlib")
        }
    };
    let line = format!(
        "--crate-name {name} --edition=2018 {SOURCE_FOLDER}/{name}.rs --error-format=json --json=diagnostic-rendered-ansi,artifacts \
         {arguments} -C metadata=0123456789abcdef -C extra-filename=-0123456789abcdef --out-dir {folder}{used}"
    );
    line.split(' ').map(str::to_owned).collect()
}
