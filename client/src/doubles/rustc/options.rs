//! Which compiles of crates a pair's likeness says something of: those with options that were probed, or that change what they say they do and
//! nothing that a host could. All others run here. Pure.

use crate::rust::request::{EmitKind, RustDriver, RustRequest, Target};

/// Of `-C`.
const CODEGEN: [&str; 34] = [
    "code-model",
    "codegen-units",
    "collapse-macro-debuginfo",
    "debug-assertions",
    "debuginfo",
    "default-linker-libraries",
    "dwarf-version",
    "embed-bitcode",
    "extra-filename",
    "force-frame-pointers",
    "force-unwind-tables",
    "incremental",
    "inline-threshold",
    "jump-tables",
    "link-arg",
    "link-args",
    "link-dead-code",
    "link-self-contained",
    "linker",
    "linker-features",
    "linker-flavor",
    "lto",
    "metadata",
    "no-vectorize-loops",
    "no-vectorize-slp",
    "opt-level",
    "overflow-checks",
    "panic",
    "prefer-dynamic",
    "relocation-model",
    "strip",
    "symbol-mangling-version",
    "target-cpu",
    "target-feature",
];
/// Of those: what is said of this machine, and need not be right for another.
const OF_HOST: [&str; 9] = [
    "code-model",
    "link-arg",
    "link-args",
    "link-self-contained",
    "linker",
    "linker-features",
    "linker-flavor",
    "relocation-model",
    "target-cpu",
];
/// Options of the command line that say where the compiler has its own parts.
const OWN_PARTS: &str = "--sysroot";

/// What of `request` stands in the way, if something does.
pub fn objection(request: &RustRequest) -> Option<String> {
    if request.driver != RustDriver::Rustc {
        return Some("clippy".to_owned());
    }
    if request.links {
        return Some("links".to_owned());
    }
    if let Some(Target::Specification(path)) = &request.target {
        return Some(format!("--target {}", path.display()));
    }
    let is_probed = |kind| {
        use EmitKind::{Assembly, DepInfo, Link, Metadata, Object};
        matches!(kind, Assembly | DepInfo | Link | Metadata | Object)
    };
    if let Some(emit) = request.emits.iter().find(|emit| !is_probed(emit.kind)) {
        return Some(format!("--emit {:?}", emit.kind).to_lowercase());
    }
    arguments(&request.argv)
}

/// The same, where what `request` makes is to be made for the agents' host.
pub fn objection_to_twin(request: &RustRequest) -> Option<String> {
    if let Some(Target::Triple(target)) = &request.target {
        return Some(format!("--target {target}"));
    }
    if let Some(library) = request.native_libraries.first() {
        return Some(format!("-l {}", library.name));
    }
    let of_host = |word: &String| {
        let given = word.strip_prefix("--codegen=").or_else(|| word.strip_prefix("-C")).unwrap_or(word);
        let name = given.split_once('=').map_or(given, |(name, _)| name).replace('_', "-");
        OF_HOST.contains(&name.as_str())
    };
    let about_host = request.argv.iter().find(|word| of_host(word)).cloned();
    about_host.or_else(|| objection(&RustRequest { links: false, ..request.clone() }))
}

fn arguments(argv: &[String]) -> Option<String> {
    let mut words = argv.iter();
    while let Some(word) = words.next() {
        let given = match word.as_str() {
            "-C" | "--codegen" => words.next().map(String::as_str),
            _ => word.strip_prefix("--codegen=").or_else(|| word.strip_prefix("-C")),
        };
        if let Some(given) = given {
            let name = given.split_once('=').map_or(given, |(name, _)| name).replace('_', "-");
            if !CODEGEN.contains(&name.as_str()) {
                return Some(format!("-C {given}"));
            }
        } else if !is_plain(word) || word.starts_with(OWN_PARTS) {
            return Some(word.clone());
        }
    }
    None
}

/// A value, a long option, or a short one that can't hide another behind it.
fn is_plain(word: &str) -> bool {
    let Some(option) = word.strip_prefix('-') else { return true };
    let takes_value = ["A", "D", "F", "L", "W", "l", "o"].iter().any(|name| option.starts_with(name));
    option.starts_with('-') || takes_value || ["", "O", "g", "v"].contains(&option)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection_to(line: &str) -> Option<String> {
        arguments(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn cargos_own_options_go_and_others_stay() {
        for line in [
            "--crate-name a --edition=2024 src/lib.rs --error-format=json --json=artifacts --crate-type lib --emit=dep-info,metadata,link \
             -C opt-level=3 -C embed-bitcode=no --cfg feature=\"std\" --check-cfg cfg(docsrs) -C metadata=0a -C extra-filename=-0b \
             --out-dir /t/deps -L dependency=/t/deps --extern b=/t/deps/libb.rmeta --cap-lints allow -L native=/t/build -l static=z",
            "-Copt-level=2 -g -O -Cdebuginfo=2 -C incremental=/t/incremental -Wunused -o x x.rs",
        ] {
            assert_eq!(objection_to(line), None);
        }
        for line in [
            "-C instrument-coverage x.rs",
            "-Cprofile-use=/p x.rs",
            "--codegen llvm-args=-x x.rs",
            "--codegen=passes=x x.rs",
            "-Zlocation-detail=none x.rs",
            "-gC profile-generate x.rs",
            "--sysroot=/s x.rs",
        ] {
            assert!(objection_to(line).is_some(), "{line}");
        }
    }
}
