//! Draws command lines. Options come from the table and the words of the front-end, values from what makes sense for some option.

use std::fmt;

use buildbee::compiler::arg_table::{Attached, ROWS, Row};
use buildbee::compiler::flag_words;
use buildbee::compiler::request::CompilerFamily;
use fastrand::Rng;

use crate::corpus::SOURCES;

/// Options whose output differs from run to run (times, sizes of memory), or that start other programs.
const NOT_DRAWN: [&str; 19] = [
    "-time",
    "-ftime-",
    "-fmem-report",
    "-fpre-ipa-mem-report",
    "-fpost-ipa-mem-report",
    "-fproc-stat-report",
    "-Q",
    "-v",
    "-###",
    "-fself-test",
    "-wrapper",
    "-fcrash-diagnostics-dir",
    "-specs",
    "--specs",
    "-fstats",
    "-B",
    "-save-stats",
    "--save-stats",
    "-fopt-info",
];

/// Values by the beginning of the option that they are for; the last line is for all others.
const VALUES: &[(&str, &[&str])] = &[
    ("-std=", &["c99", "gnu11", "c17", "c++17", "gnu++20", "c++98"]),
    ("--std=", &["gnu17", "c++14"]),
    ("-O", &["", "0", "1", "2", "3", "s", "g", "fast"]),
    ("-o", &["out/x.o", "x.o", "out/../y.o", "out/no suffix", "none/x.o", "a.c"]),
    ("-MF", &["out/x.dep", "x.d", "none/x.d", "out/x.o"]),
    ("-MT", &["target", "a b", "$(x)", "out/x.o"]),
    ("-MQ", &["target", "a b", "$(x)"]),
    ("-MJ", &["out/x.json"]),
    ("-D", &["X", "SCALE=4", "DEEP=9", "F(x)=x", "B=\"text\"", "__DATE__=\"then\""]),
    ("-U", &["X", "__linux__", "NULL", "__TIME__"]),
    ("-include", &["inc/pre.h", "pre.h", "none.h"]),
    ("-imacros", &["inc/pre.h", "inc/deep.h"]),
    ("-x", &["c", "c++", "none", "assembler", "assembler-with-cpp", "c-header", "cpp-output"]),
    ("-I", &["inc", "out", "none", "."]),
    ("-i", &["inc", "out", "none", "."]),
    ("--sysroot", &["/", "inc"]),
    ("-march=", &["native", "x86-64-v2", "x86-64", "haswell"]),
    ("-mcpu=", &["native"]),
    ("-mtune=", &["native", "generic", "skylake"]),
    ("-Wa,", &["--noexecstack", "-ahl=out/x.lst", "-ahl", "-g", "--defsym,X=1", "-march=native"]),
    ("-Wp,", &["-MD,out/x.dep", "-MMD,x.d", "-DX=2", "-Iinc", "-MD,out/x.dep,-MP"]),
    ("-Wl,", &["--gc-sections"]),
    ("-X", &["-Wall", "-DX", "-O1", "--noexecstack"]),
    ("--param", &["max-inline-insns-auto=10", "ssp-buffer-size=4"]),
    ("-fsanitize", &["inc/list.txt", "address", "undefined", "none"]),
    ("-fdebug-prefix-map=", &["inc=i", "/tmp=/t", "/=/r"]),
    ("-ffile-prefix-map=", &["inc=i", "/tmp=/t"]),
    ("-fmacro-prefix-map=", &["a=b", "/tmp=/t"]),
    ("-fprofile", &["", "=out", "-use", "-generate", "-use=out/none.profdata", "-arcs", "-dir=out"]),
    ("-fmessage-length=", &["0", "40", "200"]),
    ("-fdiagnostics-format=", &["text", "json", "json-file"]),
    ("-fdiagnostics-color=", &["always", "never", "auto"]),
    ("-fdump", &["-tree-all", "-rtl-expand", "-passes"]),
    ("-flto=", &["auto", "2", "thin", "full"]),
    ("-frandom-seed=", &["1", "x"]),
    ("-gsplit-dwarf", &["", "=split", "=single"]),
    (
        "",
        &[
            "1",
            "2",
            "",
            "auto",
            "all",
            "none",
            "16",
            "inc",
            "inc/list.txt",
            "out/extra",
            "=1",
            "fast",
            "x86_64-linux-gnu",
        ],
    ),
];

/// Environments to compile in.
const ENVIRONMENTS: [&[(&str, &str)]; 8] = [
    &[],
    &[],
    &[],
    &[("LC_ALL", "C")],
    &[("LANG", "en_US.UTF-8")],
    &[("CPATH", "inc")],
    &[("SOURCE_DATE_EPOCH", "1000000000")],
    &[("GCC_COLORS", "error=01;31"), ("TERM", "xterm")],
];

/// One command line.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub(crate) compiler: &'static str,
    /// Options, each with its value.
    pub(crate) options: Vec<Vec<String>>,
    pub(crate) source: &'static str,
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) umask: &'static str,
}

impl Draw {
    /// Arguments after the compiler.
    pub(crate) fn arguments(&self) -> Vec<&str> {
        // gcc makes names for some symbols at random where it is not told how.
        let seed = Some("-frandom-seed=7").filter(|_| !self.compiler.starts_with("clang"));
        let options = self.options.iter().flatten().map(String::as_str);
        seed.into_iter().chain(["-Iinc"]).chain(options).chain(["-c", self.source]).collect()
    }
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "umask {}; ", self.umask)?;
        self.environment.iter().try_for_each(|(name, value)| write!(f, "{name}='{value}' "))?;
        write!(f, "{}", self.compiler)?;
        self.arguments().iter().try_for_each(|argument| write!(f, " '{argument}'"))
    }
}

/// Draws one command line after the other.
pub(crate) struct Drawing {
    rng: Rng,
    words: Vec<String>,
}

impl Drawing {
    pub(crate) fn new(seed: u64) -> Self {
        // In an order that does not depend on anything but the words.
        let mut words: Vec<String> = flag_words::names().collect();
        words.sort_unstable();
        Self { rng: Rng::with_seed(seed), words }
    }

    /// `accepts` says whether a compiler takes an option: most of what is drawn should compile.
    pub(crate) fn next(&mut self, mut accepts: impl FnMut(&'static str, &[String]) -> bool) -> Draw {
        let compiler = ["gcc", "g++", "clang", "clang++", "gcc"][self.rng.usize(..5)];
        let n_options = self.rng.usize(..6);
        let mut options = Vec::new();
        while options.len() < n_options {
            let option = self.option(compiler);
            if accepts(compiler, &option) || self.rng.usize(..25) == 0 {
                options.push(option);
            }
        }
        Draw {
            compiler,
            options,
            source: SOURCES[self.rng.usize(..SOURCES.len())],
            environment: ENVIRONMENTS[self.rng.usize(..ENVIRONMENTS.len())],
            umask: ["022", "022", "077", "002"][self.rng.usize(..4)],
        }
    }

    fn option(&mut self, compiler: &str) -> Vec<String> {
        let family = if compiler.starts_with("clang") { CompilerFamily::Clang } else { CompilerFamily::Gcc };
        match self.rng.usize(..10) {
            // What builds use.
            0..4 => {
                let usual =
                    ["-g", "-O2", "-Wall", "-Wextra", "-MD", "-MMD", "-MP", "-fPIC", "-g3", "-Os", "-w", "-Werror"];
                vec![usual[self.rng.usize(..usual.len())].to_owned()]
            }
            4..7 => self.row(family),
            _ => self.word(),
        }
    }

    fn row(&mut self, family: CompilerFamily) -> Vec<String> {
        let drawn = |row: &&Row| row.family.is_none_or(|known| known == family) && !NOT_DRAWN.contains(&row.name);
        let rows: Vec<&Row> = ROWS.iter().filter(drawn).collect();
        let row = rows[self.rng.usize(..rows.len())];
        let value = self.value(row.name);
        match row.attached {
            Attached::None => vec![row.name.to_owned()],
            Attached::Joined => vec![format!("{}{value}", row.name)],
            Attached::JoinedOrSeparate if self.rng.bool() && !value.is_empty() => vec![format!("{}{value}", row.name)],
            Attached::Separate | Attached::JoinedOrSeparate => vec![row.name.to_owned(), value.to_owned()],
        }
    }

    fn word(&mut self) -> Vec<String> {
        let word = self.words[self.rng.usize(..self.words.len())].clone();
        if word.ends_with(['=', '-']) {
            return vec![format!("{word}{}", self.value(&word))];
        }
        match (self.rng.usize(..3), word.split_at(2)) {
            (0, (family, rest)) => vec![format!("{family}no-{rest}")],
            _ => vec![word],
        }
    }

    fn value(&mut self, option: &str) -> &'static str {
        let values = VALUES.iter().find(|(name, _)| option.starts_with(name)).map_or(&[""][..], |(_, values)| values);
        values[self.rng.usize(..values.len())]
    }
}
