//! What gcc says of itself, cut down to what decides its output: two that say the same were made from the same sources for the same target
//! with the same defaults, as far as gcc tells. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::pair::Group;
use crate::inputs::search_path::parse as parse_search;

/// What is asked of both compilers, beside the file `nothing` in their working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which it is.
    pub kind: Kind,
    /// Arguments that ask it.
    pub arguments: Vec<String>,
    /// Whether the double's own arguments stand around them.
    pub is_compile: bool,
}

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// gcc's `-v`.
    Version,
    /// gcc's `-dumpspecs`.
    Specs,
    /// gcc's `-Q --help=…`.
    Defaults,
    /// The text as it is.
    Text,
    /// gcc's `-v -S`.
    Compile,
    /// First line of the text.
    FirstLine,
    /// clang's `-###`.
    Plan,
}

/// Options of gcc's configuration that say where it runs, where it is, what else is installed, or what only links see. A word before `=`.
const HARMLESS: [&str; 25] = [
    "-v",
    "--build",
    "--host",
    "--prefix",
    "--program-prefix",
    "--program-suffix",
    "--libexecdir",
    "--libdir",
    "--includedir",
    "--with-bugurl",
    // The front-ends that are compared are proved by their own answers.
    "--enable-languages",
    "--enable-link-serialization",
    "--enable-bootstrap",
    "--disable-bootstrap",
    "--with-build-config",
    // Where headers are: all folders are named.
    "--with-sysroot",
    "--enable-objc-gc",
    "--with-target-system-zlib",
    "--without-target-system-zlib",
    "--enable-libphobos-checking",
    // Offloading is refused.
    "--enable-offload-targets",
    "--enable-offload-defaulted",
    "--without-cuda-driver",
    "--disable-werror",
    "--with-system-zlib",
];

/// Specs that only a link sees.
const LINK_SPECS: [&str; 12] = [
    "cross_compile",
    "startfile",
    "endfile",
    "link",
    "lib",
    "libgcc",
    "link_libgcc",
    "link_gomp",
    "link_command",
    "linker",
    "linker_plugin_file",
    "lto_wrapper",
];

/// What is asked about `group`.
pub fn questions(group: Group) -> Vec<Question> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let ask = |kind, line: &str| Question { kind, arguments: words(line), is_compile: false };
    let compile = |kind, line: &str| Question { kind, arguments: words(line), is_compile: true };
    let mut asked = vec![ask(Kind::Version, "-v"), ask(Kind::Specs, "-dumpspecs")];
    asked.extend(
        ["common", "target", "optimizers", "params", "warnings"]
            .map(|topic| ask(Kind::Defaults, &format!("-Q --help={topic}"))),
    );
    asked.push(ask(Kind::FirstLine, "-c -x assembler nothing -o nothing.o -Wa,--version"));
    let language = if group == Group::Cxx { "c++" } else { "c" };
    asked.push(ask(Kind::Defaults, &format!("-Q --help={language}")));
    // The C library's own macros (`stdc-predef.h`) are a header's.
    asked.push(ask(Kind::Text, &format!("-nostdinc -dM -E -x {language} nothing")));
    asked.push(compile(Kind::Compile, &format!("-v -S -x {language} nothing -o -")));
    asked
}

/// What of an answer must be the same; `None` where it is none.
pub fn comparable(kind: Kind, stdout: &str, stderr: &str) -> Option<String> {
    match kind {
        Kind::Version => version(stderr),
        Kind::Specs => specs(stdout),
        Kind::Defaults => Some(defaults(stdout)).filter(|text| !text.is_empty()),
        Kind::Text => Some(stdout.to_owned()).filter(|text| !text.is_empty()),
        Kind::FirstLine => stdout.lines().next().map(str::to_owned),
        Kind::Compile => compile(stdout, stderr),
        Kind::Plan => super::clang::plan(stderr),
    }
}

fn version(text: &str) -> Option<String> {
    if !text.lines().any(|line| line == "Using built-in specs.") {
        return None;
    }
    let told = ["Target: ", "Thread model: ", "Supported LTO compression algorithms: ", "gcc version "];
    // The version first: it tells most.
    let mut kept: Vec<String> = told
        .iter()
        .rev()
        .flat_map(|label| text.lines().filter(move |line| line.starts_with(*label)))
        .map(str::to_owned)
        .collect();
    let configured = text.lines().find_map(|line| line.strip_prefix("Configured with: "))?;
    let is_harmless = |option: &str| HARMLESS.contains(&option.split('=').next().unwrap_or_default());
    let options: BTreeSet<&str> = configured
        .split_whitespace()
        .skip(1)
        .filter(|option| option.starts_with('-') && !is_harmless(option))
        .collect();
    kept.extend(options.into_iter().map(|option| format!("configured {option}")));
    Some(kept.join("\n"))
}

fn specs(text: &str) -> Option<String> {
    let kept: Vec<&str> = (text.split("\n\n"))
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .filter(|part| {
            let name = part.lines().next().unwrap_or_default().trim_start_matches('*').trim_end_matches(':');
            !LINK_SPECS.contains(&name)
        })
        .collect();
    text.contains("*cc1").then(|| kept.join("\n\n"))
}

fn defaults(text: &str) -> String {
    // Names of temporary files, and what gcc makes of this machine's memory, which changes how often it collects its garbage alone.
    let differs = |line: &&str| {
        let option = line.trim_start();
        ["-o ", "--param=ggc-min-", "-dumpdir", "-dumpbase", "-auxbase"].iter().any(|with| option.starts_with(with))
    };
    text.lines().filter(|line| !differs(line)).collect::<Vec<_>>().join("\n")
}

fn compile(stdout: &str, stderr: &str) -> Option<String> {
    let command = stderr.lines().find(|line| line.split_whitespace().next().is_some_and(is_front_end))?;
    let mut kept = vec![without_folders(command)];
    let banner = stderr.lines().skip_while(|line| !line.starts_with("GNU C")).take(2);
    kept.extend(banner.map(str::to_owned));
    kept.extend(stderr.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned));
    kept.push(stdout.to_owned());
    Some(kept.join("\n"))
}

fn is_front_end(word: &str) -> bool {
    matches!(word.rsplit('/').next(), Some("cc1" | "cc1plus"))
}

fn without_folders(command: &str) -> String {
    let mut kept = Vec::new();
    let mut words = command.split_whitespace().skip(1);
    while let Some(word) = words.next() {
        if word == "-isystem" {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// The folders that gcc looks in by itself, in order, as arguments for its double; `canonical` follows symlinks. `None` where gcc would spell
/// what it finds there in a way that no argument asks for.
pub fn folders(listing: &str, canonical: &dyn Fn(&Path) -> Option<PathBuf>) -> Option<Vec<String>> {
    let found = parse_search(listing)?;
    if !found.quoted.is_empty() {
        return None;
    }
    let mut arguments = Vec::new();
    for spelled in found.angled {
        // gcc takes the real name of what it finds in its own folders where that is shorter, and of what it is told to look in never.
        let real = canonical(&spelled)?;
        let folder =
            if real.as_os_str().len() < spelled.as_os_str().len() || real == spelled { real } else { return None };
        arguments.extend(["-isystem".to_owned(), folder.to_str()?.to_owned()]);
    }
    Some(arguments)
}

/// Folders that a double looks in by itself, in its sandbox.
pub fn own_folders(listing: &str) -> Option<Vec<PathBuf>> {
    let found = parse_search(listing)?;
    Some(found.quoted.into_iter().chain(found.angled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: &str = "Using built-in specs.\nCOLLECT_GCC=gcc-14\nTarget: aarch64-linux-gnu\nConfigured with: ../src/configure -v \
        --with-pkgversion='Debian 14.2.0-19' --enable-default-pie --build=aarch64-linux-gnu --host=aarch64-linux-gnu\nThread model: posix\n\
        Supported LTO compression algorithms: zlib zstd\ngcc version 14.2.0 (Debian 14.2.0-19) \n";

    #[test]
    fn builds_of_one_gcc_for_two_hosts_are_alike() {
        let cross = NATIVE.replace("--host=aarch64-linux-gnu", "--host=x86_64-linux-gnu --with-sysroot=/");
        assert_eq!(version(NATIVE).unwrap(), version(&cross).unwrap());
    }

    #[test]
    fn other_versions_packages_and_defaults_are_seen() {
        for (from, to) in [
            ("Debian 14.2.0-19", "Debian 14.2.0-20"),
            ("version 14.2.0", "version 14.2.1"),
            ("--enable-default-pie", "--disable-default-pie"),
            ("--enable-default-pie ", ""),
            ("zlib zstd", "zlib"),
            ("Target: aarch64-linux-gnu", "Target: aarch64-linux-musl"),
        ] {
            assert!(NATIVE.contains(from), "{from}");
            assert_ne!(version(NATIVE), version(&NATIVE.replace(from, to)), "{from}");
        }
        assert_eq!(version(&NATIVE.replace("Using built-in specs.", "Reading specs from /x")), None);
    }

    #[test]
    fn specs_for_links_do_not_count() {
        let text = |cc1: &str, end: &str| format!("*asm:\n%{{x}}\n\n*cc1:\n{cc1}\n\n*endfile:\n{end}\n\n");
        assert_eq!(specs(&text("a", "b")), specs(&text("a", "c")));
        assert_ne!(specs(&text("a", "b")), specs(&text("z", "b")));
        assert_eq!(specs("no specs"), None);
    }

    #[test]
    fn folders_are_named_as_gcc_spells_what_it_finds() {
        let listing = |folders: &[&str]| {
            let lines = folders.join("\n ");
            format!(
                "#include \"...\" search starts here:\n#include <...> search starts here:\n {lines}\nEnd of search list.\n"
            )
        };
        let same = |path: &Path| Some(path.to_owned());
        let told = folders(&listing(&["/usr/lib/gcc/x/14/include", "/usr/include"]), &same).unwrap();
        assert_eq!(told, ["-isystem", "/usr/lib/gcc/x/14/include", "-isystem", "/usr/include"]);
        let shorter = |_: &Path| Some(PathBuf::from("/usr/include"));
        assert_eq!(folders(&listing(&["/usr/lib/gcc/../../include"]), &shorter).unwrap(), ["-isystem", "/usr/include"]);
        let longer = |_: &Path| Some(PathBuf::from("/opt/somewhere/else"));
        assert_eq!(folders(&listing(&["/usr/include"]), &longer), None);
    }

    #[test]
    fn a_compile_is_compared_without_its_places() {
        let text = |program: &str, folders: &str, mpfr: &str| {
            format!(
                " {program} -quiet -v nothing {folders} -mabi=lp64\nGNU C17 (x) version 14\n\tcompiled, MPFR {mpfr}\nGGC: 1\n"
            )
        };
        let native = compile("asm", &text("/usr/libexec/gcc/x/cc1", "", "4.2.1")).unwrap();
        assert_eq!(
            native,
            compile("asm", &text("/usr/libexec/gcc-cross/x/cc1", "-isystem /usr/include", "4.2.1")).unwrap()
        );
        assert_ne!(native, compile("asm", &text("/usr/libexec/gcc-cross/x/cc1", "", "4.2.0")).unwrap());
        assert_eq!(compile("asm", "nothing"), None);
    }
}
