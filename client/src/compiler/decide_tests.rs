//! Decisions on whole command lines.

use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::arg_table::ROWS;
use super::decide::{decide, decide_on};
use super::language::Language;
use super::request::{
    CompileRequest, CompilerFamily, Decision, DepKind, DriverLanguage, Invocation, SearchKind, StderrRule,
};

const FAMILIES: [CompilerFamily; 2] = [CompilerFamily::Gcc, CompilerFamily::Clang];

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn no_files(_: &Path) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::NotFound.into())
}

fn run(family: CompilerFamily, line: &str, env: &[(&str, &str)]) -> Decision {
    let argv = words(line);
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let invocation = Invocation {
        family,
        driver: DriverLanguage::C,
        argv: &argv,
        env: &env,
        cwd: Path::new("/home/a/p"),
        stderr_is_terminal: false,
        columns: None,
        locale: None,
        variables: &[],
    };
    decide(&invocation, &no_files)
}

fn distributed(family: CompilerFamily, line: &str) -> CompileRequest {
    match run(family, line, &[]) {
        Decision::Distribute(request) => *request,
        Decision::Local(reason) => panic!("{line}: {reason}"),
    }
}

fn code(family: CompilerFamily, line: &str) -> &'static str {
    match run(family, line, &[]) {
        Decision::Distribute(_) => "distributed",
        Decision::Local(reason) => reason.code(),
    }
}

#[test]
fn words_for_the_time_may_be_common_macros() {
    for (line, expected) in [
        ("-c x.c -D__TIME__=1 -DBUILT=__DATE__", "time-macros"),
        ("-c x.c -Wp,-D__TIME__=1 -D BUILT=__TIME__", "time-macros"),
        ("-c x.c -D__DATE__=1 -DBUILT=__DATE__", "distributed"),
        ("-c x.c -U __DATE__ -D BUILT=__DATE__", "distributed"),
    ] {
        for family in FAMILIES {
            assert_eq!(code(family, line), expected, "{line}");
        }
    }
}

#[test]
fn reasons() {
    for (line, expected) in [
        ("", "not-a-compile"),
        ("--version", "not-a-compile"),
        ("-v -c x.c", "not-a-compile"),
        ("-print-file-name=x", "not-a-compile"),
        ("-O2", "not-a-compile"),
        ("x.o -o x -lm", "link"),
        ("x.c -o x", "link"),
        ("x.o -T script -o x", "link"),
        ("-E x.c", "preprocess-only"),
        ("-M x.c", "preprocess-only"),
        ("-MM -c x.c", "preprocess-only"),
        ("-c -fbrand-new x.c", "unknown-option"),
        ("-c -- x.c", "unknown-option"),
        ("-c x.c -o", "missing-value"),
        ("-c x.c y.c", "multiple-inputs"),
        ("-c x.c y.o", "multiple-inputs"),
        ("-c -x c -", "stdin-input"),
        ("-c x.weird", "unknown-language"),
        ("-c -x weird x.c", "unknown-language"),
        ("-c dir.c/", "unknown-language"),
        ("-c x.s", "distributed"),
        ("-c x.S", "distributed"),
        ("-c -xassembler x.c", "distributed"),
        ("-S x.S", "preprocess-only"),
        ("-fsyntax-only x.s", "preprocess-only"),
        ("-c x.sx", "assembler-source"),
        ("-march=native x.o -o x", "link"),
        ("-c x.c -mcpu=native", "march-native"),
        ("-c x.f90", "other-language"),
        ("-c x.h", "precompiled-header"),
        ("-c -x c++-header x.hpp", "precompiled-header"),
        ("-c x.c -o -", "output-to-stdout"),
        ("-c x.c -MD -MF -", "output-to-stdout"),
        ("-c x.c -o /dev/null", "special-path"),
        ("-c /proc/self/fd/3.c", "special-path"),
        ("-c x.c -I/sys/include", "special-path"),
        ("-c x.c -include ../../../dev/stdin", "special-path"),
        ("-c x.c -o dir/", "unusual-output"),
        ("-c x.c -o x.c", "unusual-output"),
        ("-c x.c -o ./d/../x.c", "unusual-output"),
        ("-c x.c -o a -MD -MF a", "unusual-output"),
        ("-c x.c -include a.h -o a.h", "unusual-output"),
        ("-c .c", "unusual-output"),
        ("-c x.c -o a.o -o b.o", "repeated-output"),
        ("-c x.c -MD -MF a.d -MF b.d", "repeated-output"),
        ("-c x.c -DBUILT=__DATE__", "time-macros"),
        ("-c x.c -D HAS=__has_include", "extra-input"),
        ("-c x.c -MF a.d", "dependency-options"),
        ("-c x.c -MT a", "dependency-options"),
        ("-c x.c -MP", "dependency-options"),
        ("-c x.c -MD -MG", "dependency-options"),
        ("-c x.c -MD -o .o", "dependency-options"),
        ("-c x.c -MD -Wp,-MD,x.d", "dependency-options"),
        ("-c x.c -Wp,-MT,x", "dependency-options"),
        ("@none -c x.c", "response-file-unreadable"),
        ("-c x.c -march=native", "march-native"),
        ("-c x.c -mtune=native", "march-native"),
        ("-c x.c -Wa,-az", "passed-through"),
        ("-c x.c -fstack-usage -o x.su", "unusual-output"),
        ("-c x.c -Wp,-include,x.h", "passed-through"),
        ("-c x.c -I=usr/include", "include-prefix"),
        ("-c x.c -fdiagnostics-format=sarif-file", "extra-output"),
    ] {
        for family in FAMILIES {
            assert_eq!(code(family, line), expected, "{family:?} {line}");
        }
    }
}

#[test]
fn reasons_of_one_family() {
    assert_eq!(code(CompilerFamily::Clang, "-c x.c -Wa,-ahl=x.lst"), "passed-through");
    assert_eq!(code(CompilerFamily::Clang, "-c x.c -Xclang -load"), "passed-through");
    assert_eq!(code(CompilerFamily::Clang, "-c x.c -Xclang -target-feature -Xclang +avx"), "distributed");
    assert_eq!(code(CompilerFamily::Clang, "-S x.c -g -gsplit-dwarf"), "extra-output");
    assert_eq!(code(CompilerFamily::Gcc, "-c x.c -Wa,-aln=a.lst -Wa,-ah"), "repeated-output");
    assert_eq!(code(CompilerFamily::Gcc, "-c x.c -fprofile-use -o d/.o"), "unusual-output");
    assert_eq!(code(CompilerFamily::Gcc, "-c x.c --target=arm"), "unknown-option");
}

#[test]
fn a_reason_names_its_argument() {
    let Decision::Local(reason) = run(CompilerFamily::Gcc, "-c -O2 -fbrand-new x.c", &[]) else { panic!() };
    assert_eq!(reason.to_string(), "the option is not known: -fbrand-new");
}

#[test]
fn environment_can_forbid() {
    for name in ["DEPENDENCIES_OUTPUT", "COMPILER_PATH", "GCC_EXEC_PREFIX", "CCC_OVERRIDE_OPTIONS"] {
        let Decision::Local(reason) = run(CompilerFamily::Gcc, "-c x.c", &[(name, "x")]) else { panic!("{name}") };
        assert_eq!((reason.code(), reason.argument.as_deref()), ("environment", Some(name)));
    }
    let Decision::Local(reason) = run(CompilerFamily::Gcc, "-c x.c", &[("CPATH", "/dev/shm")]) else { panic!() };
    assert_eq!(reason.code(), "special-path");
}

fn written(family: CompilerFamily, line: &str) -> Vec<String> {
    let outputs = distributed(family, line).outputs;
    outputs.into_iter().map(|output| output.path.display().to_string()).collect()
}

#[test]
fn results_with_random_numbers_are_told() {
    let reproducible = |family, line: &str| distributed(family, line).reproducible;
    for line in ["-c x.c -flto", "-c x.c --coverage", "-c x.c -fprofile-arcs", "-c x.c -fprofile-generate"] {
        assert!(!reproducible(CompilerFamily::Gcc, line), "{line}");
        assert!(reproducible(CompilerFamily::Gcc, &format!("{line} -frandom-seed=1")), "{line}");
        assert!(reproducible(CompilerFamily::Clang, line), "{line}");
    }
    assert!(!reproducible(CompilerFamily::Gcc, "-c x.c -Wa,-ahl=x.lst -frandom-seed=1"));
    assert!(reproducible(CompilerFamily::Gcc, "-c x.c -Wa,-ahln=x.lst"));
}

#[test]
fn outputs_as_compilers_derive_them() {
    for (line, expected) in [
        ("-c x.c", &["x.o"][..]),
        ("-c d/x.y.c", &["x.y.o"]),
        ("-c -x c d/x", &["x.o"]),
        ("-c x.c -od/x", &["d/x"]),
        ("-c -MD d/x.c", &["x.o", "x.d"]),
        ("-c -MMD x.c -o a.b/x", &["a.b/x", "a.b/x.d"]),
        ("-c -MMD x.c -o d/x.y.o", &["d/x.y.o", "d/x.y.d"]),
        ("-c -MD -MFq x.c -o d/x.o", &["d/x.o", "q"]),
        ("-c -MD -MF d/q.d -MT t -MQ u -MP x.c", &["x.o", "d/q.d"]),
        ("-c x.c -o d/x.o -Wp,-MMD,d/.x.o.d", &["d/x.o", "d/.x.o.d"]),
        ("-S d/x.c", &["x.s"]),
        ("-S -c x.c -o d/x.i -MD", &["d/x.i", "d/x.d"]),
        ("-fsyntax-only x.c -c", &[]),
        ("-fsyntax-only -S x.c -MD -o d/y.o", &["d/y.d"]),
        (
            "-c x.c -g -gsplit-dwarf -fstack-usage --coverage -o d/x.c.o",
            &["d/x.c.o", "d/x.c.dwo", "d/x.c.su", "d/x.c.gcno"],
        ),
        ("-c x.c --coverage -ftest-coverage", &["x.o", "x.gcno"]),
    ] {
        for family in FAMILIES {
            assert_eq!(written(family, line), *expected, "{line}");
        }
    }
    for (family, line, expected) in [
        (CompilerFamily::Gcc, "-c x.c -fcallgraph-info=su,da -Wa,-ahl=l/x.lst", &["x.o", "x.ci", "l/x.lst"][..]),
        (CompilerFamily::Gcc, "-c x.c --coverage -fprofile-note=n/x", &["x.o", "x.gcno", "n/x"]),
        (CompilerFamily::Clang, "-c x.c -serialize-diagnostics d/x.dia", &["x.o", "d/x.dia"]),
        (CompilerFamily::Clang, "-c x.c -emit-llvm", &["x.bc"]),
        (CompilerFamily::Clang, "-S x.c -emit-llvm -fsave-optimization-record", &["x.ll", "x.opt.yaml"]),
    ] {
        assert_eq!(written(family, line), expected, "{line}");
    }
    let kind = |line| distributed(CompilerFamily::Gcc, line).depfile.map(|depfile| depfile.kind);
    assert_eq!(kind("-c x.c"), None);
    assert_eq!(kind("-c x.c -MMD"), Some(DepKind::User));
    assert_eq!(kind("-c x.c -MD -MMD"), Some(DepKind::All));
}

#[test]
fn what_a_request_holds() {
    let line = "-DA=1 -D B -isystem s -Ii -iquote q -I i2 -idirafterz -include a.h -imacros m.h -x c++ x.c -c \
                -Wp,-MD,w.d,-DW -o x.o --sysroot=/r -Wall";
    let request = distributed(CompilerFamily::Gcc, line);
    assert_eq!(request.language, Language::Cxx);
    assert_eq!(request.argv, words(line));
    assert_eq!(request.explicit_inputs, [PathBuf::from("a.h"), PathBuf::from("m.h")]);
    let search: Vec<_> =
        request.search_directories.iter().map(|found| (found.kind, found.path.to_str().unwrap())).collect();
    assert_eq!(
        search,
        [
            (SearchKind::System, "s"),
            (SearchKind::Include, "i"),
            (SearchKind::Quote, "q"),
            (SearchKind::Include, "i2"),
            (SearchKind::After, "z"),
            (SearchKind::Sysroot, "/r"),
        ]
    );
    assert_eq!(
        request.include_arguments,
        words(
            "-DA=1 -D B -isystem s -Ii -iquote q -I i2 -idirafterz -include a.h -imacros m.h -Wp,-DW --sysroot=/r \
             -Wall -x c++"
        )
    );
    let spellings = ["-c x.c -MD -MFq -MTt -MP -oy", "-c x.c -MD -MF q -MT t -MP -o y"];
    let keys = spellings.map(|line| distributed(CompilerFamily::Gcc, line).key_arguments);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[1], words(spellings[1]));
}

#[test]
fn the_driver_decides_what_c_is() {
    let argv = words("-c x.c");
    let invocation = Invocation {
        family: CompilerFamily::Gcc,
        driver: DriverLanguage::Cxx,
        argv: &argv,
        env: &[],
        cwd: Path::new("/w"),
        stderr_is_terminal: false,
        columns: None,
        locale: None,
        variables: &[],
    };
    let Decision::Distribute(request) = decide(&invocation, &no_files) else { panic!() };
    assert_eq!(request.language, Language::Cxx);
    assert_eq!(request.include_arguments, ["-x", "c++"]);
}

#[test]
fn two_processors_never_mix() {
    let on = |processor: &str, line: &str| {
        let argv = words(line);
        let invocation = Invocation {
            family: CompilerFamily::Gcc,
            driver: DriverLanguage::C,
            argv: &argv,
            env: &[],
            cwd: Path::new("/w"),
            stderr_is_terminal: false,
            columns: None,
            locale: None,
            variables: &[],
        };
        match decide_on(&invocation, &no_files, &|_| Some(vec![format!("-march={processor}")])) {
            Decision::Distribute(request) => (request.argv, request.key_arguments, request.here_only.is_some()),
            Decision::Local(reason) => panic!("{reason}"),
        }
    };
    for (line, here_only) in [("-c x.c -march=native -O2", false), ("-c x.c -march=native -g", true)] {
        let (one, other) = (on("znver3", line), on("skylake", line));
        assert!(one.0 != other.0 && one.1 != other.1, "{line}");
        assert_eq!((one.2, other.2), (here_only, here_only), "{line}");
    }
}

#[test]
fn a_logical_directory_is_told() {
    let logical = |pwd: &str| match run(CompilerFamily::Gcc, "-c x.c -g", &[("PWD", pwd)]) {
        Decision::Distribute(request) => request.logical_directory,
        Decision::Local(reason) => panic!("{reason}"),
    };
    assert_eq!(logical("/home/a/p"), None);
    assert_eq!(logical("relative"), None);
    assert_eq!(logical("/link/p"), Some(PathBuf::from("/link/p")));
    assert_eq!(logical("/home/a/./p").as_deref().and_then(Path::to_str), Some("/home/a/./p"));
}

#[test]
fn response_files_are_replaced_and_terminals_told() {
    let argv = words("@args x.c");
    let env = [("TERM".to_owned(), "xterm".to_owned()), ("GCC_COLORS".to_owned(), "error=01".to_owned())];
    let invocation = Invocation {
        family: CompilerFamily::Gcc,
        driver: DriverLanguage::C,
        argv: &argv,
        env: &env,
        cwd: Path::new("/w"),
        stderr_is_terminal: true,
        columns: Some(80),
        locale: None,
        variables: &[],
    };
    let read = |path: &Path| {
        assert_eq!(path, Path::new("/w/args"));
        Ok(b"-c '-DX=a b'".to_vec())
    };
    let Decision::Distribute(request) = decide(&invocation, &read) else { panic!() };
    assert_eq!(request.argv, ["-c", "-DX=a b", "x.c"]);
    assert_eq!(request.key_arguments, request.argv);
    assert_eq!((request.env.len(), request.stderr_rule), (0, StderrRule::OnlyIfEmpty));
    let there = request.on_terminal().unwrap();
    assert_eq!((there.stderr_is_terminal, there.stderr_rule), (true, StderrRule::Exact));
    assert_eq!(there.env.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["COLUMNS", "GCC_COLORS", "TERM"]);
    assert_eq!(there.on_terminal(), None);
}

fn argument() -> impl Strategy<Value = String> {
    let row = (0..ROWS.len(), "[ -~ü]{0,6}").prop_map(|(at, rest)| format!("{}{rest}", ROWS[at].name));
    let known = (0..ROWS.len()).prop_map(|at| ROWS[at].name.to_owned());
    let plain = proptest::sample::select(vec!["x.c", "-c", "-o", "x.o", "-MD", "@f", "-", "", "x", "-x", "c"]);
    prop_oneof![row, known, plain.prop_map(str::to_owned), any::<String>(), "-[fmgW][a-z=,-]{0,12}"]
}

proptest! {
    #[test]
    fn never_panics_and_never_contradicts_itself(
        argv in proptest::collection::vec(argument(), 0..12),
        env in proptest::collection::vec((any::<String>(), any::<String>()), 0..4),
        content in any::<Vec<u8>>(),
        clang in any::<bool>(),
        terminal in any::<bool>(),
    ) {
        let family = if clang { CompilerFamily::Clang } else { CompilerFamily::Gcc };
        let invocation = Invocation {
            family,
            driver: DriverLanguage::C,
            argv: &argv,
            env: &env,
            cwd: Path::new("/w"),
            stderr_is_terminal: terminal,
            columns: Some(80),
            locale: None,
            variables: &[],
        };
        if let Decision::Distribute(request) = decide(&invocation, &|_| Ok(content.clone())) {
            let paths: Vec<_> = request.outputs.iter().map(|output| &output.path).collect();
            prop_assert!(paths.contains(&&request.object) || request.argv.iter().any(|argument| argument == "-fsyntax-only"));
            prop_assert!(!paths.contains(&&request.source));
            prop_assert!(!request.include_arguments.iter().any(|argument| argument == "-c" || argument == "-MD"));
        }
    }
}

#[test]
fn systems_that_look_includes_up_by_other_rules() {
    for (line, expected) in [
        ("-c x.c --target=x86_64-pc-windows-msvc", "traditional"),
        ("-c x.c -target arm64-apple-darwin", "traditional"),
        ("-c x.c -fms-compatibility", "traditional"),
        ("-c x.c --target=aarch64-linux-gnu", "distributed"),
    ] {
        assert_eq!(code(CompilerFamily::Clang, line), expected, "{line}");
    }
}

#[test]
fn preprocessed_text_has_no_dependency_file() {
    for family in FAMILIES {
        assert_eq!(written(family, "-c x.i -MD"), ["x.o"]);
        assert_eq!(written(family, "-c x.c -MD"), ["x.o", "x.d"]);
    }
}
