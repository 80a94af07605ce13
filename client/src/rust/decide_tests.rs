//! The decision, row by row and over command lines that cargo gave.

use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::decide::{Machine, RustInvocation, SESSION_PLACE, added_to_local, decide, leading_words};
use super::option_table::{CODEGEN, Class, MAIN, SubOption};
use super::reason::{RustReason, RustReasonKind as Why};
use super::request::{RustDecision, RustDriver, RustOutputKind, RustRequest, Target};
use super::roots::{PathSetting, RootKind};
use super::unstable_table::UNSTABLE;

const SYSROOT: &str = "/home/a/.rustup/toolchains/stable-x86_64-unknown-linux-gnu";

struct Case {
    driver: RustDriver,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: PathBuf,
    sysroot: PathBuf,
    paths: PathSetting,
    files: Vec<(&'static str, &'static str)>,
    stderr_is_terminal: bool,
}

impl Case {
    fn new(argv: &[&str]) -> Self {
        Self {
            driver: RustDriver::Rustc,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("HOME".to_owned(), "/home/a".to_owned())],
            cwd: "/home/a/ws".into(),
            sysroot: SYSROOT.into(),
            paths: PathSetting::Portable,
            files: vec![("/home/a/ws/target/CACHEDIR.TAG", "")],
            stderr_is_terminal: false,
        }
    }

    fn decide(&self) -> RustDecision {
        self.ask(decide)
    }

    fn added(&self) -> Vec<String> {
        self.ask(added_to_local)
    }

    fn ask<T>(&self, question: impl Fn(&RustInvocation<'_>, &Machine<'_>) -> T) -> T {
        let invocation = RustInvocation {
            driver: self.driver,
            argv: &self.argv,
            env: &self.env,
            cwd: &self.cwd,
            sysroot: Some(&self.sysroot),
            paths: self.paths,
            stderr_is_terminal: self.stderr_is_terminal,
        };
        let content =
            |path: &Path| self.files.iter().find(|(known, _)| Path::new(known) == path).map(|(_, text)| *text);
        question(
            &invocation,
            &Machine {
                read: &|path| content(path).map(|text| text.as_bytes().to_vec()).ok_or(io::ErrorKind::NotFound.into()),
                exists: &|path| content(path).is_some(),
                processor: &|| Some("znver3+avx2".to_owned()),
            },
        )
    }

    fn request(&self) -> RustRequest {
        match self.decide() {
            RustDecision::Compile(request) => *request,
            RustDecision::Local(reason) => panic!("{:?}: {reason}", self.argv),
        }
    }

    fn reason(&self) -> RustReason {
        match self.decide() {
            RustDecision::Compile(_) => panic!("{:?} is a compile", self.argv),
            RustDecision::Local(reason) => reason,
        }
    }
}

const BASE: [&str; 7] =
    ["--crate-name", "x", "--crate-type", "lib", "src/lib.rs", "--out-dir", "/home/a/ws/target/debug/deps"];

/// The base command and more words.
fn with(words: &[&str]) -> Case {
    Case::new(&[&BASE, words].concat())
}

/// The base command without what the words say themselves.
fn with_own(words: &[&str]) -> Case {
    let own = ["--crate-name", "--out-dir", "--crate-type"];
    let base: Vec<&str> = BASE
        .chunks(2)
        .flat_map(|pair| match pair {
            // Crate name, crate type, source and a lone `--out-dir` of the last chunks: taken apart below.
            [name, value] if own.contains(name) => vec![*name, *value],
            other => other.to_vec(),
        })
        .collect();
    let mut kept: Vec<&str> = Vec::new();
    let mut words_of_base = base.into_iter();
    while let Some(word) = words_of_base.next() {
        let value = if own.contains(&word) { words_of_base.next() } else { None };
        if !words.iter().any(|mine| *mine == word || mine.starts_with(&format!("{word}="))) {
            kept.push(word);
            kept.extend(value);
        }
    }
    Case::new(&[kept.as_slice(), words].concat())
}

fn has_in_order(all: &[String], wanted: &[&str]) -> bool {
    wanted.is_empty() || all.windows(wanted.len()).any(|window| window.iter().zip(wanted).all(|(one, two)| one == two))
}

/// What is expected of a row: words of the key, or a reason.
type Row<'a> = (&'a [&'a str], Result<&'a [&'a str], Why>);

const MAIN_ROWS: [Row<'static>; 55] = [
    (&["-h"], Err(Why::NotACompile)),
    (&["--help"], Err(Why::NotACompile)),
    (&["-V"], Err(Why::NotACompile)),
    (&["-vV"], Err(Why::NotACompile)),
    (&["--version"], Err(Why::NotACompile)),
    (&["--explain", "E0001"], Err(Why::NotACompile)),
    (&["--print", "sysroot"], Err(Why::Print)),
    (&["--print=cfg"], Err(Why::Print)),
    (&["--cfg", "feature=\"a b\""], Ok(&["--cfg", "feature=\"a b\""])),
    (&["--check-cfg", "cfg(x)"], Ok(&["--check-cfg", "cfg(x)"])),
    (&["-L", "dependency=/home/a/ws/target/debug/deps"], Ok(&["-L", "dependency=/buildbee.d/target/debug/deps"])),
    (&["-Lnative=/usr/lib"], Ok(&["-Lnative=/usr/lib"])),
    (&["-L", "/home/a/ws/lib"], Ok(&["-L", "/buildbee.d/workspace/lib"])),
    (&["-Lnative=@RUSTC_BUILTIN"], Err(Why::UnknownValue)),
    (&["-L"], Err(Why::MissingValue)),
    (&["-l", "static:+bundle=z"], Ok(&["-l", "static:+bundle=z"])),
    (&["-lm"], Ok(&["-lm"])),
    (&["-l", "odd=z"], Err(Why::UnknownValue)),
    (&["--crate-type", "bin"], Ok(&["--crate-type", "bin"])),
    (&["--crate-type=odd"], Err(Why::UnknownValue)),
    (&["--crate-name=y"], Ok(&["--crate-name=y"])),
    (&["--crate-name=a/b"], Err(Why::UnknownValue)),
    (&["--edition=2024"], Ok(&["--edition=2024"])),
    (&["--emit=metadata,link"], Ok(&["--emit=metadata,link"])),
    (&["--emit=link=/home/a/ws/x.rlib"], Ok(&["--emit=link=/buildbee.d/workspace/x.rlib"])),
    (&["--emit=link=-"], Err(Why::UnusualOutput)),
    (&["--emit=odd"], Err(Why::UnknownValue)),
    (&["-g"], Ok(&["-g"])),
    (&["-O"], Ok(&["-O"])),
    (&["-gO"], Ok(&["-gO"])),
    (&["-o", "out/x.rlib"], Ok(&["-o", "out/x.rlib"])),
    (&["-o", "/dev/null"], Err(Why::SpecialPath)),
    (&["--out-dir=/home/a/ws/target/x"], Ok(&["--out-dir=/buildbee.d/target/x"])),
    (&["--test"], Ok(&["--test"])),
    (&["--target", "aarch64-unknown-linux-gnu"], Ok(&["--target", "aarch64-unknown-linux-gnu"])),
    (&["--target=x86_64-pc-windows-msvc"], Err(Why::UnknownTarget)),
    (&["-A", "dead_code", "-Wunused"], Ok(&["-A", "dead_code", "-Wunused"])),
    (&["--allow=x", "--warn=x", "--deny=x", "--forbid=x"], Ok(&["--allow=x", "--warn=x", "--deny=x", "--forbid=x"])),
    (&["-Dwarnings", "-F", "x", "--force-warn", "x"], Ok(&["-Dwarnings", "-F", "x", "--force-warn", "x"])),
    (&["-W", "help"], Err(Why::NotACompile)),
    (&["--cap-lints", "allow"], Ok(&["--cap-lints", "allow"])),
    (&["-Copt-level=3", "-C", "panic=abort"], Ok(&["-Copt-level=3", "-C", "panic=abort"])),
    (&["--codegen=lto"], Ok(&["--codegen=lto"])),
    (&["-Zthreads=4"], Ok(&["-Zthreads=4"])),
    (&["-v", "--verbose"], Ok(&["-v", "--verbose"])),
    (
        &["--extern", "priv:y=/home/a/ws/target/debug/deps/liby-1.rmeta"],
        Ok(&["--extern", "priv:y=/buildbee.d/target/debug/deps/liby-1.rmeta"]),
    ),
    (&["--extern=proc_macro"], Ok(&["--extern=proc_macro"])),
    (&["--sysroot", SYSROOT], Ok(&["--sysroot", "/buildbee.d/rust"])),
    (&["--sysroot=/other"], Err(Why::CompilerParts)),
    (&["--error-format=json", "--json=artifacts"], Ok(&["--error-format=json", "--json=artifacts"])),
    (&["--error-format=odd"], Err(Why::UnknownValue)),
    (&["--json=timings"], Err(Why::UnknownValue)),
    (&["--color", "never"], Ok(&["--color", "never"])),
    (&["--diagnostic-width", "80"], Ok(&["--diagnostic-width", "80"])),
    (
        &["--remap-path-prefix", "/home/a/ws/src=/x", "--remap-path-scope=macro"],
        Ok(&["--remap-path-prefix", "/buildbee.d/workspace/src=/x", "--remap-path-scope=macro"]),
    ),
];

#[test]
fn main_options() {
    for (words, expected) in MAIN_ROWS {
        let case = with_own(words);
        match expected {
            Ok(key) => {
                let found = case.request().key_arguments;
                assert!(has_in_order(&found, key), "{words:?}: {found:?}");
            }
            Err(why) => assert_eq!(case.reason().kind, why, "{words:?}"),
        }
    }
    for option in &MAIN {
        let is_shown = MAIN_ROWS.iter().any(|(words, _)| {
            words.iter().any(|word| {
                let short = option.short.is_some_and(|name| word.starts_with(&format!("-{name}")));
                let long = option
                    .long
                    .is_some_and(|name| *word == format!("--{name}") || word.starts_with(&format!("--{name}=")));
                short || long
            })
        });
        assert!(is_shown, "no row for {option:?}");
    }
}

#[test]
fn a_linker_that_is_not_started_does_not_count() {
    let plain = with(&["-C", "opt-level=2", "-g"]).request();
    for words in [
        ["-C", "linker=cc", "-C", "opt-level=2", "-g"].as_slice(),
        &["-C", "opt-level=2", "-Clinker=/usr/bin/cc", "-g"],
        &["--codegen", "linker=x/cc", "-C", "opt-level=2", "-g"],
        &["-C", "opt-level=2", "--codegen=linker=cc", "-g"],
    ] {
        let found = with(words).request();
        assert_eq!((&found.key_arguments, &found.action_arguments), (&plain.key_arguments, &plain.action_arguments));
        assert!(found.argv.iter().any(|word| word.contains("linker=")), "{words:?}: a run here is told all");
    }
    let linked = with_own(&["--crate-type", "bin", "-C", "linker=cc"]).request();
    assert!(has_in_order(&linked.key_arguments, &["-C", "linker=cc"]), "{:?}", linked.key_arguments);
    let other = with(&["-C", "linker-flavor=gcc"]).request();
    assert!(has_in_order(&other.key_arguments, &["-C", "linker-flavor=gcc"]));
}

/// A row of `-C` or `-Z` in both spellings: with dashes and with underscores.
fn sub_option(letter: &str, option: &SubOption) {
    let local = |value: &str, why: Why| {
        for name in [option.name.to_owned(), option.name.replace('-', "_")] {
            assert_eq!(with(&[&format!("-{letter}{name}{value}")]).reason().kind, why, "{name}{value}");
        }
    };
    let key = |value: &str, expected: &str| {
        let words = [format!("-{letter}"), format!("{}{value}", option.name)];
        let found = with(&[&words[0], &words[1]]).request().key_arguments;
        assert_eq!(found[found.len() - 2..], [words[0].clone(), format!("{}{expected}", option.name)]);
    };
    match option.class {
        Class::Local(why) => local("=x", why),
        Class::LocalUnlessOff(why) => {
            local("", why);
            local("=yes", why);
            key("=no", "=no");
        }
        Class::LocalUnlessSwitch(why) => {
            local("=/x.so", why);
            key("", "");
            key("=yes", "=yes");
        }
        // Where one is started.
        Class::Linker => {
            let found = with_own(&["--crate-type", "bin", "-C", "linker=/home/a/ws/f"]).request().key_arguments;
            assert!(has_in_order(&found, &["-C", "linker=/buildbee.d/workspace/f"]), "{found:?}");
        }
        Class::ReadFile | Class::PlainPath => key("=/home/a/ws/f", "=/buildbee.d/workspace/f"),
        Class::Incremental => key("=/home/a/ws/target/debug/incremental", &format!("={SESSION_PLACE}")),
        Class::Processor => {
            key("=x86-64-v3", "=x86-64-v3");
            key("=native", "=native:znver3+avx2");
        }
        Class::LlvmArguments => {
            key("=--inline-threshold=9", "=--inline-threshold=9");
            local("=-stats", Why::Dump);
        }
        Class::ExtraFilename => key("=-0123", "=-0123"),
        _ => {
            key("=1", "=1");
            key("", "");
        }
    }
}

#[test]
fn codegen_options() {
    for option in &CODEGEN {
        sub_option("C", option);
    }
    assert_eq!(with(&["-Cno-such=1"]).reason().kind, Why::UnknownOption);
}

#[test]
fn unstable_options() {
    for option in &UNSTABLE {
        sub_option("Z", option);
    }
    assert_eq!(with(&["-Z", "no-such"]).reason().kind, Why::UnknownOption);
}

#[test]
fn what_is_no_single_compile_is_local() {
    for (words, why) in [
        (&["--no-such"][..], Why::UnknownOption),
        (&["-q"], Why::UnknownOption),
        (&["--test=1"], Why::UnknownValue),
        (&["other.rs"], Why::MultipleInputs),
        (&["--edition=2021", "--edition=2024"], Why::RepeatedOption),
        (&["-Csplit-debuginfo=unpacked", "-g"], Why::ExtraOutput),
        (&["--emit=obj", "-Ccodegen-units=4"], Why::AmbiguousOutput),
        (&["--crate-type=cdylib", "-o", "x"], Why::AmbiguousOutput),
        (&["--crate-type=bin", "-Clink-arg=-Wl,-Map=x"], Why::LinkerArgument),
        (&["@/none"], Why::ResponseFileUnreadable),
        (&["-L", "/home/a/ws/../x/../ws/lib"], Why::UnplaceablePath),
    ] {
        assert_eq!(with(words).reason().kind, why, "{words:?}");
    }
    assert_eq!(Case::new(&["--crate-name", "x", "--crate-type=lib", "-"]).reason().kind, Why::StdinInput);
    assert_eq!(Case::new(&["--crate-name", "x", "--crate-type=lib"]).reason().kind, Why::NotACompile);
    assert_eq!(Case::new(&["x.rs"]).reason().kind, Why::CrateInSource);
    let terminal = Case { stderr_is_terminal: true, ..with(&[]) };
    assert_eq!(terminal.reason().kind, Why::TerminalMessages);
    assert!(matches!(
        Case { stderr_is_terminal: true, ..with(&["--error-format=json"]) }.decide(),
        RustDecision::Compile(_)
    ));
    let logging = Case { env: vec![("RUSTC_LOG".to_owned(), "debug".to_owned())], ..with(&[]) };
    assert_eq!(logging.reason().kind, Why::Environment);
    let request = with(&[]).request();
    assert_eq!(with(&["--no-such"]).added(), request.added_arguments, "a build has names everywhere, or nowhere");
    assert_eq!(Case::new(&["-vV"]).added(), Vec::<String>::new());
    // Without a link a linker's argument says nothing.
    assert!(matches!(with(&["-Clink-arg=-Wl,-Map=x"]).decide(), RustDecision::Compile(_)));
    assert!(matches!(
        with(&["-Csplit-debuginfo=unpacked", "-g", "--emit=metadata"]).decide(),
        RustDecision::Compile(_)
    ));
}

#[test]
fn response_files_are_expanded() {
    let mut case = Case::new(&["@args"]);
    case.files.push(("/home/a/ws/args", "--crate-name\nx\n--crate-type=lib\nsrc/lib.rs\n--cfg\na b"));
    let request = case.request();
    assert_eq!(request.argv[5], "a b");
    assert_eq!(request.crate_name, "x");
}

#[test]
fn clippy_is_given_the_compilers_path() {
    let mut case = with(&["--emit=metadata"]);
    case.driver = RustDriver::Clippy;
    case.argv.insert(0, format!("{SYSROOT}/bin/rustc"));
    case.env.push(("CLIPPY_ARGS".to_owned(), "-Dclippy::all".to_owned()));
    let request = case.request();
    assert_eq!(leading_words(RustDriver::Clippy, &case.argv), 1);
    assert_eq!(request.key_arguments[0], "--crate-name");
    assert_eq!(request.source, Path::new("src/lib.rs"));
    assert_eq!(request.env, [("CLIPPY_ARGS".to_owned(), "-Dclippy::all".to_owned())]);
    assert_eq!(request.argv.len(), case.argv.len(), "the user's words stay whole");
}

#[test]
fn what_holds_real_names_stays_at_real_places() {
    for words in [
        &["--crate-type=bin", "-Clink-arg=-Wl,-rpath,/home/a/ws/lib"][..],
        &["--remap-path-prefix=/home/a=/x"],
        &["--remap-path-prefix=/home/a/ws=/x"],
        &["--cfg", "where=\"/home/a/ws\""],
    ] {
        let request = with(words).request();
        assert!(!request.roots.are_placed(), "{words:?}");
        assert_eq!(request.roots.place(RootKind::Workspace), Some(Path::new("/home/a/ws")));
        assert_eq!(request.added_arguments.len(), 3);
    }
    let exact = Case { paths: PathSetting::Exact, ..with(&["--extern=y=/home/a/ws/target/liby.rlib"]) };
    let request = exact.request();
    assert_eq!(request.added_arguments, Vec::<String>::new());
    assert_eq!(request.action_arguments, exact.argv);
}

#[test]
fn natives_are_cached_for_this_processor_and_made_here() {
    let request = with(&["-Ctarget-cpu=native"]).request();
    assert_eq!(request.here_only, Some(Why::NativeProcessor.into()));
}

#[test]
fn native_libraries_are_found_where_the_command_says() {
    let mut case = with(&["-L", "native=/home/a/ws/lib", "-l", "static=z", "-lstatic=none", "-l", "ssl"]);
    case.files.extend([("/home/a/ws/lib/libz.a", ""), ("/home/a/ws/lib/libssl.so", "")]);
    let request = case.request();
    assert_eq!(request.named_inputs, [Path::new("/home/a/ws/lib/libz.a")]);
    assert_eq!(
        request.native_libraries.iter().map(|library| library.is_opened).collect::<Vec<_>>(),
        [true, true, false]
    );
    case.argv[3] = "bin".to_owned();
    let request = case.request();
    assert_eq!(request.named_inputs, ["/home/a/ws/lib/libz.a", "/home/a/ws/lib/libssl.so"].map(Path::new));
}

#[test]
fn specifications_of_targets_are_read() {
    let mut case = with(&["--crate-type=cdylib", "--target=my.json", "-Cextra-filename=-1"]);
    case.files.push(("/home/a/ws/my.json", r#"{"dll-suffix": ".dso"}"#));
    let request = case.request();
    assert_eq!(request.target, Some(Target::Specification("my.json".into())));
    assert_eq!(request.named_inputs, [Path::new("my.json")]);
    let names: Vec<_> = request.outputs.iter().map(|output| output.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["libx-1.rlib", "libx-1.dso"]);
    case.files.pop();
    assert_eq!(case.reason().kind, Why::UnknownTarget);
}

/// Command lines of cargo 1.95: `build` (plain, `--release`, `--target`), `check`, `clippy`, `test`, `bench`, `rustc` of a workspace with a
/// procedural macro, a build script and every kind of target, and some crates of the application `hyperfine`.
fn corpus() -> Vec<Case> {
    let lines = include_str!("testdata/cargo-commands.jsonl").lines();
    let cases = lines.map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let words = |name: &str| -> Vec<String> {
            line[name].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let argv = words("argv");
        let driver = if argv[0].ends_with("clippy-driver") { RustDriver::Clippy } else { RustDriver::Rustc };
        let env = words("env")
            .iter()
            .map(|entry| entry.split_once('=').unwrap())
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Case {
            driver,
            argv: argv[1..].to_vec(),
            env,
            cwd: line["cwd"].as_str().unwrap().into(),
            files: vec![("/home/a/ws/target/CACHEDIR.TAG", ""), ("/home/a/hyperfine/target/CACHEDIR.TAG", "")],
            ..Case::new(&[])
        }
    });
    cases.collect()
}

#[test]
fn cargos_compiles_are_understood() {
    let (mut n_compiles, mut n_links, mut n_pipelined) = (0, 0, 0);
    for case in corpus() {
        match case.decide() {
            RustDecision::Compile(request) => {
                n_compiles += 1;
                n_links += usize::from(request.links);
                n_pipelined += usize::from(request.pipelined);
                let words = request.action_arguments.iter().chain(&request.key_arguments);
                assert_eq!(words.filter(|word| word.contains("/home/a")).collect::<Vec<_>>(), Vec::<&String>::new());
                for (name, value) in request.placed_env() {
                    assert!(!value.contains("/home/a"), "{name}={value}");
                }
                assert_eq!(request.outputs[0].what, RustOutputKind::DepInfo);
                assert!(request.outputs.iter().all(|output| output.path.starts_with(&request.out_dir)));
                assert!(request.json_messages && request.package.is_some());
            }
            RustDecision::Local(reason) => {
                let expected = [Why::NotACompile, Why::Print, Why::ExtraOutput];
                assert!(expected.contains(&reason.kind), "{reason}: {:?}", case.argv);
            }
        }
    }
    assert!(n_compiles > 50 && n_links > 15 && n_pipelined > 8, "{n_compiles} {n_links} {n_pipelined}");
}

#[test]
fn another_home_and_checkout_give_the_same_action() {
    let moved = |text: &str| {
        let text = text.replace("/home/a/ws", "/srv/builds/other place/ws").replace("/home/a/.cargo", "/c");
        text.replace("/home/a/hyperfine", "/h").replace("/home/a", "/home/someone-else")
    };
    for case in corpus() {
        let RustDecision::Compile(here) = case.decide() else { continue };
        let elsewhere = Case {
            driver: case.driver,
            argv: case.argv.iter().map(|word| moved(word)).collect(),
            env: case
                .env
                .iter()
                .map(|(name, value)| (name.clone(), moved(value)))
                .chain([("CARGO_HOME".into(), "/c".into())])
                .collect(),
            cwd: moved(case.cwd.to_str().unwrap()).into(),
            sysroot: moved(case.sysroot.to_str().unwrap()).into(),
            files: vec![("/srv/builds/other place/ws/target/CACHEDIR.TAG", ""), ("/h/target/CACHEDIR.TAG", "")],
            ..Case::new(&[])
        };
        let mut elsewhere_env = elsewhere.env.clone();
        elsewhere_env.retain(|(name, value)| name != "CARGO_HOME" || value == "/c");
        let there = Case { env: elsewhere_env, ..elsewhere }.request();
        assert_eq!(here.action_arguments, there.action_arguments);
        assert_eq!(here.key_arguments, there.key_arguments);
        assert_eq!(here.placed_env(), there.placed_env());
    }
}

fn word() -> impl Strategy<Value = String> {
    let names = MAIN.iter().filter_map(|option| option.long).map(|name| format!("--{name}"));
    let shorts = MAIN.iter().filter_map(|option| option.short).map(|name| format!("-{name}"));
    let subs =
        CODEGEN.iter().chain(&UNSTABLE).flat_map(|option| [format!("-C{}", option.name), format!("-Z{}", option.name)]);
    let known: Vec<String> = names.chain(shorts).chain(subs).collect();
    prop_oneof![
        4 => (prop::sample::select(known), "(=?[a-z0-9/.,:=@é -]{0,12})?").prop_map(|(name, value)| name + &value),
        2 => "[a-z/=.,:@é -]{0,12}",
        1 => any::<String>(),
        3 => prop::sample::select(vec!["x", "lib,bin", "link,dep-info=/a/b", "a=/home/a/ws/target/l.rlib", "native=/l", "static:+verbatim=z", "-", "--", "json", "/home/a/ws/../x"]).prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn no_words_are_too_strange(words in prop::collection::vec(word(), 0..8), clippy in any::<bool>(), base in any::<bool>()) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut case = if base { with(&words) } else { Case::new(&words) };
        if clippy {
            case.driver = RustDriver::Clippy;
        }
        let decision = case.decide();
        prop_assert_eq!(&decision, &case.decide());
        if let RustDecision::Compile(request) = decision {
            prop_assert!(!request.outputs.is_empty() && !request.crate_types.is_empty() && !request.emits.is_empty());
            let flags = request.action_arguments.len() - request.key_arguments.len();
            prop_assert_eq!(flags, request.added_arguments.len());
        }
    }
}
