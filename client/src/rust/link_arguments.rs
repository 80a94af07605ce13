//! What arguments for the linker and for LLVM do: which read files, which write more than the output. Known are the ones of gcc's and clang's
//! drivers and of GNU ld, lld, gold and mold; the linker that runs is the toolchain's business.

use super::reason::RustReasonKind as Why;

/// What a linker's argument does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing beyond its text.
    Text,
    /// Reads a file.
    Reads {
        /// What stands before the path.
        before: String,
        /// The file.
        path: String,
        /// What stands behind it.
        after: String,
    },
    /// Not known, or not followed.
    Unknown(Why),
}

/// Driver flags that stand alone.
const DRIVER_FLAGS: [&str; 19] = [
    "-static",
    "-static-pie",
    "-pie",
    "-no-pie",
    "-nopie",
    "-nostartfiles",
    "-nodefaultlibs",
    "-nostdlib",
    "-nolibc",
    "-rdynamic",
    "-s",
    "-pthread",
    "-shared",
    "-shared-libgcc",
    "-static-libgcc",
    "-static-libstdc++",
    "-m32",
    "-m64",
    "-mx32",
];

/// Beginnings of driver flags with a joined value that is text.
const DRIVER_PREFIXES: [&str; 9] =
    ["-l", "-fuse-ld=", "-march=", "-mcpu=", "-mabi=", "-mfloat-abi=", "-u", "-rtlib=", "-stdlib="];

/// ld's words that stand alone.
const LD_FLAGS: [&str; 57] = [
    "--gc-sections",
    "--no-gc-sections",
    "--print-gc-sections",
    "--as-needed",
    "--no-as-needed",
    "--build-id",
    "--export-dynamic",
    "-export-dynamic",
    "-E",
    "--no-export-dynamic",
    "--allow-multiple-definition",
    "--allow-shlib-undefined",
    "--no-allow-shlib-undefined",
    "--no-undefined",
    "--undefined-version",
    "--no-undefined-version",
    "-Bsymbolic",
    "-Bsymbolic-functions",
    "-Bstatic",
    "-Bdynamic",
    "-dn",
    "-dy",
    "--strip-all",
    "-s",
    "--strip-debug",
    "-S",
    "--start-group",
    "--end-group",
    "-(",
    "-)",
    "--whole-archive",
    "--no-whole-archive",
    "--eh-frame-hdr",
    "--no-eh-frame-hdr",
    "--enable-new-dtags",
    "--disable-new-dtags",
    "-n",
    "-N",
    "--nmagic",
    "--omagic",
    "--fatal-warnings",
    "--no-fatal-warnings",
    "--no-warnings",
    "--no-warn-mismatch",
    "--no-rosegment",
    "--rosegment",
    "--relax",
    "--no-relax",
    "--no-dynamic-linker",
    "--demangle",
    "--no-demangle",
    "--threads",
    "--no-threads",
    "--emit-relocs",
    "-q",
    "-x",
    "-X",
];

/// ld's words whose value is text: joined with `=`, or the next word.
const LD_VALUES: [&str; 39] = [
    "-z",
    "-rpath",
    "--rpath",
    "-R",
    "-soname",
    "--soname",
    "-h",
    "--hash-style",
    "-hash-style",
    "--build-id",
    "-build-id",
    "--icf",
    "--threads",
    "--thread-count",
    "--undefined",
    "-u",
    "--require-defined",
    "--defsym",
    "--wrap",
    "--exclude-libs",
    "--compress-debug-sections",
    "--image-base",
    "-Ttext",
    "-Tdata",
    "-Tbss",
    "--section-start",
    "-e",
    "--entry",
    "--pack-dyn-relocs",
    "-dynamic-linker",
    "--dynamic-linker",
    "-I",
    "--unresolved-symbols",
    "--sort-section",
    "--package-metadata",
    "-m",
    "--max-page-size",
    "-plugin-opt",
    "--stack",
];

/// ld's words whose value is a file that is read.
const LD_READS: [&str; 7] = [
    "--version-script",
    "--dynamic-list",
    "--script",
    "-T",
    "--export-dynamic-symbol-list",
    "--retain-symbols-file",
    "--symbol-ordering-file",
];

/// What `argument` does behind `before`, the argument in front of it.
pub(super) fn weigh(argument: &str, before: Option<&str>) -> Weight {
    let unknown = Weight::Unknown(Why::LinkerArgument);
    match before {
        Some("-z" | "-u" | "-e") => return Weight::Text,
        Some("-T") => return reads("", argument, ""),
        Some("-L" | "-o" | "-Xlinker" | "-B") => return unknown,
        _ => {}
    }
    if argument.contains(['\0', '\n']) {
        return unknown;
    }
    if let Some(words) = argument.strip_prefix("-Wl,") {
        return weigh_ld(words).unwrap_or(unknown);
    }
    if let Some(script) = argument.strip_prefix("-T").filter(|script| !script.is_empty()) {
        // A name without a folder is looked up on the search path, whose folders count as they are.
        return if script.contains('/') { reads("-T", script, "") } else { Weight::Text };
    }
    if !argument.starts_with('-') {
        return if argument.is_empty() || argument.starts_with('@') { unknown } else { reads("", argument, "") };
    }
    let known = DRIVER_FLAGS.contains(&argument)
        || matches!(argument, "-z" | "-u" | "-e" | "-T")
        || DRIVER_PREFIXES.iter().any(|prefix| argument.starts_with(prefix) && !argument.contains('/'))
        || (argument.starts_with("-O") && argument.len() <= 3);
    if known { Weight::Text } else { unknown }
}

fn reads(before: &str, path: &str, after: &str) -> Weight {
    Weight::Reads { before: before.to_owned(), path: path.to_owned(), after: after.to_owned() }
}

/// `-Wl,`: words between commas. One of them may read a file.
fn weigh_ld(words: &str) -> Option<Weight> {
    let words: Vec<&str> = words.split(',').collect();
    let mut found = Weight::Text;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let value_follows = words.get(at + 1).is_some();
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (*word, None),
        };
        if LD_READS.contains(&name) {
            let (path_at, path) = match joined {
                Some(path) => (at, path),
                None => (at + 1, *words.get(at + 1)?),
            };
            if found != Weight::Text {
                return None;
            }
            if path.contains('/') || joined.is_some() {
                let head = words.get(..at)?.iter().chain(if path_at > at { Some(word) } else { None });
                let mut before: String = std::iter::once("-Wl").chain(head.copied()).collect::<Vec<_>>().join(",");
                before.push(',');
                if path_at == at {
                    before.push_str(name);
                    before.push('=');
                }
                let tail = words.get(path_at + 1..)?;
                let after: String = tail.iter().flat_map(|word| [",", word]).collect();
                found = reads(&before, path, &after);
            }
            at = path_at + 1;
        } else if LD_FLAGS.contains(word) || is_joined_text(word) || (LD_VALUES.contains(&name) && joined.is_some()) {
            at += 1;
        } else if LD_VALUES.contains(word) && value_follows {
            at += 2;
        } else {
            return None;
        }
    }
    Some(found)
}

/// Words with a value that is joined without `=`.
fn is_joined_text(word: &str) -> bool {
    let value = |prefix: &str| word.strip_prefix(prefix).is_some_and(|value| !value.is_empty() && !value.contains('/'));
    value("-l") || value("-O") || value("-z") || value("--warn-") || value("--no-warn-")
}

/// Whether arguments for LLVM neither write nor read files nor report anything, as far as their names tell.
pub(super) fn llvm_is_harmless(arguments: &str) -> bool {
    const TELLING: [&str; 11] =
        ["file", "print", "dump", "stats", "time", "debug", "view", "dot-", "remarks", "trace", "load"];
    !arguments.contains('/') && !TELLING.iter().any(|word| arguments.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_linker_reads_is_found() {
        for (argument, path) in [
            ("-Wl,--version-script=/w/x.map", "/w/x.map"),
            ("-Wl,--gc-sections,-T,/w/link.x,-z,now", "/w/link.x"),
            ("-Wl,--dynamic-list,/w/list", "/w/list"),
            ("-T/w/link.x", "/w/link.x"),
            ("/w/x.o", "/w/x.o"),
            ("memory.o", "memory.o"),
        ] {
            let Weight::Reads { before, path: found, after } = weigh(argument, None) else { panic!("{argument}") };
            assert_eq!(found, path);
            assert_eq!(format!("{before}{found}{after}"), argument);
        }
        assert_eq!(weigh("/w/link.x", Some("-T")), reads("", "/w/link.x", ""));
    }

    #[test]
    fn texts_are_texts() {
        for argument in [
            "-Wl,-z,now",
            "-Wl,-rpath,$ORIGIN/../lib",
            "-Wl,-rpath=/opt/x",
            "-Wl,--as-needed,-O1",
            "-Wl,-soname,libx.so.1",
            "-Wl,--build-id=sha1",
            "-fuse-ld=lld",
            "-nostartfiles",
            "-lm",
            "-Tlink.x",
            "-static",
            "-Wl,--defsym=x=1",
        ] {
            assert_eq!(weigh(argument, None), Weight::Text, "{argument}");
        }
        assert_eq!(weigh("now", Some("-z")), Weight::Text);
    }

    #[test]
    fn what_is_not_known_stays_here() {
        for argument in [
            "-Wl,-Map=/w/x.map",
            "-Wl,-Map,x.map",
            "-o",
            "-L/x",
            "-L",
            "-B/x",
            "@args",
            "",
            "-specs=/x",
            "--sysroot=/x",
            "-Wl,--plugin,/x.so",
            "-Wl,--dependency-file=x",
            "-fplugin=x",
            "-Wl,@x",
        ] {
            assert_eq!(weigh(argument, None), Weight::Unknown(Why::LinkerArgument), "{argument}");
        }
        assert_eq!(weigh("x", Some("-o")), Weight::Unknown(Why::LinkerArgument));
    }

    #[test]
    fn arguments_for_llvm() {
        assert!(llvm_is_harmless("--inline-threshold=5"));
        assert!(!llvm_is_harmless("-stats"));
        assert!(!llvm_is_harmless("-pgo-x=/a"));
    }
}
