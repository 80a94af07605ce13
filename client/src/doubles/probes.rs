//! What a compiler and its double both compile before the pair is used: small sources with what targets, versions and configurations differ
//! in, and the argument lines that builds use. Their objects must be the same to the byte, headers and dependency files included. Of no use are
//! options with which two runs of one compiler already differ.
//!
//! Raise [`VERSION`] with any change: verdicts that are remembered count for one set of probes.

use super::pair::Group;
use crate::compiler::request::CompilerFamily;

/// Of this set of probes.
pub const VERSION: u32 = 3;

/// One compile.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The source's name in its folder.
    pub source: &'static str,
    /// Arguments besides the source.
    pub arguments: &'static str,
}

/// The sources by name.
pub const SOURCES: [(&str, &str); 4] = [
    ("probe.c", include_str!("probes/probe.c")),
    ("probe.cc", include_str!("probes/probe.cc")),
    ("probe.S", include_str!("probes/probe.S")),
    ("probe.h", include_str!("probes/probe.h")),
];

/// Assembler that this machine's compiler makes of `probe.c` before anything else: nobody here writes it for every target.
pub const MADE: &str = "made.s";

const fn probe(source: &'static str, arguments: &'static str) -> Probe {
    Probe { source, arguments }
}

const C: [Probe; 8] = [
    probe("probe.c", "-c -Wall -Wextra -MD -MF probe.d -H"),
    probe("probe.c", "-c -O2 -g"),
    probe("probe.c", "-c -O3 -g -fPIC -fstack-protector-strong -D_FORTIFY_SOURCE=2 -ffast-math"),
    probe("probe.c", "-c -O2 -fstack-protector-all -fno-pie -ffunction-sections -fdata-sections"),
    probe("probe.c", "-c -Os -fPIE -fno-plt -fvisibility=hidden -fno-common -pthread"),
    probe("probe.c", "-c -Og -g3"),
    probe("probe.c", "-S -O2 -fno-asynchronous-unwind-tables"),
    probe("probe.c", "-c -O2 -fno-strict-aliasing -fwrapv -fno-omit-frame-pointer -funroll-loops"),
];
const CXX: [Probe; 5] = [
    probe("probe.cc", "-c -Wall -Wextra -MD -MF probe.d -H"),
    probe("probe.cc", "-c -O2 -g"),
    probe("probe.cc", "-c -O3 -fPIC -std=c++17 -fvisibility-inlines-hidden -fstack-protector-strong"),
    probe("probe.cc", "-c -Os -g -fno-rtti -fno-asynchronous-unwind-tables -DPLAIN"),
    probe("probe.cc", "-S -O2"),
];
const ASSEMBLER: [Probe; 4] =
    [probe("probe.S", "-c -MD -MF probe.d"), probe("probe.S", "-c -g"), probe(MADE, "-c"), probe(MADE, "-c -g")];
/// With compression by libraries of the system's.
const COMPRESSED: [&str; 2] = ["-c -O2 -flto -frandom-seed=probe", "-c -O1 -g -gz"];

/// What is compiled for `group`.
pub fn probes(group: Group, family: CompilerFamily, same_libraries: bool) -> Vec<Probe> {
    let mut probes = match group {
        Group::C => C.to_vec(),
        Group::Cxx => CXX.to_vec(),
        Group::Assembler => return ASSEMBLER.to_vec(),
    };
    let source = probes.first().map_or("probe.c", |probe| probe.source);
    if same_libraries {
        probes.extend(COMPRESSED.map(|arguments| Probe { source, arguments }));
    } else if family == CompilerFamily::Clang {
        probes.push(Probe { source, arguments: "-c -O2 -flto" });
    }
    probes
}
