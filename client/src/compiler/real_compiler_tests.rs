//! Requests against real compilers: a request's arguments leave exactly the files that it names, with the bytes that the user's own
//! arguments leave, and print what those print, on a terminal too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

use super::decide::decide;
use super::outputs::Output;
use super::request::{CompileRequest, CompilerFamily, Decision, DriverLanguage, Invocation, StderrRule};

const SOURCE: &str = "#include \"a.h\"\n#include <b.h>\nint unused(void) { int x = A; return __LINE__; }\n";

/// Lines that both compilers take.
const BOTH: &[&str] = &[
    "-c x.c",
    "-c x.c -o x.o",
    "-cx.c -c",
    "-O2 -g -Wall -Wextra -c x.c -o out/x.o",
    "-O3 -g3 -ggdb -c -oout/x.o x.c",
    "-c sub/y.c",
    "-c sub/y.z.c -MD",
    "-c x.c -MD",
    "-c x.c -MMD -MP -o out/x.y.o",
    "-c x.c -MD -MF out/x.d -MT target -MQ a$b -o out/x.o",
    "-c x.c -MDfoo -MMD",
    "-c x.c -MD -o out/x",
    "-c x.c -MMD -o out/x.",
    "-c x.c -Wp,-MMD,out/.x.o.d -o out/x.o",
    "-c x.c -Wp,-MD,out/w.d",
    "-c x.c -Wp,-D_FORTIFY_SOURCE=2 -O2",
    "-c x.c -Wp,-UZ,-DZ=1",
    "-c -x c x.c",
    "-c -x c++ x.c -std=c++17 -fno-exceptions -fno-rtti",
    "-c -x c++ -x none x.c",
    "-c x.cc -std=gnu++20 -fvisibility=hidden -fvisibility-inlines-hidden",
    "-c x.cc -D X=1 -DY -U Y -UZ -include a.h",
    "-c x.c -imacros a.h -isystem inc -iquote sub -idirafter sub",
    "-c x.c -isysteminc -iquotesub -idiraftersub -includea.h",
    "-c x.c -std=c11 -pedantic -Wno-unused-variable",
    "-c x.c -ansi -w",
    "-c x.c -O0 -fPIC -fno-common -ffunction-sections -fdata-sections",
    "-c x.c -Os -fno-strict-aliasing -fno-omit-frame-pointer -fwrapv",
    "-c x.c -O2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -D_FORTIFY_SOURCE=2",
    "-c x.c -O2 -ffast-math -funroll-loops -ftree-vectorize",
    "-c x.c -fpic -pthread -pipe",
    "-c x.c -fPIE -pie -static -shared -s -rdynamic -nostdlib",
    "-c x.c -march=x86-64 -mtune=generic -msse4.2 -mavx2 -mno-avx512f",
    "-c x.c -m64 -mcmodel=large -mno-red-zone -mfpmath=sse",
    "-c x.c -g -fdebug-prefix-map=/a=/b -ffile-prefix-map=/c=/d -fmacro-prefix-map=/e=/f",
    "-c x.c -gdwarf-4 -gz -g1",
    "-c x.c -g0",
    "-c x.c -fsanitize=address,undefined -fno-sanitize-recover=all",
    "-c x.c -fopenmp",
    "-c x.c -fverbose-asm -pg",
    "-c x.c -finstrument-functions -fno-builtin-memcpy -fno-builtin",
    "-c x.c -Wa,--noexecstack -Wl,-z,now",
    "-c x.c -lm -Lnowhere",
    "-c x.c -Werror=implicit-function-declaration -Wformat=2 -Wframe-larger-than=4096",
    "-c x.c -fdiagnostics-color=always -Wall",
    "-c x.c -fno-diagnostics-color -fdiagnostics-show-option -Wall",
    "-c x.c -fmessage-length=60 -Wall",
    "-c x.c -frandom-seed=x -flto",
    "-c x.c -fno-lto -frecord-gcc-switches",
    "-c x.c -H",
    "-c x.c -nostdinc -undef -trigraphs",
    "-c x.cc -nostdinc++",
    "-c x.i",
    "-c x.ii -O1",
    "-c -x cpp-output x.c",
    "@args x.c",
    "-c @sub/more -O1",
    "-c broken.c",
    "-c x.c -ferror-limit=1 -fmax-errors=1",
    "-c missing.c",
    "-c x.c -no-canonical-prefixes -fuse-ld=lld",
    "--param ggc-min-expand=10 --param=ggc-min-heapsize=4096 -c x.c",
    "-c x.c -o out/./x.o -MD -MF out/../out/x.dep",
    "-c x.c -ftls-model=local-exec -fvisibility=protected -fno-plt -fno-semantic-interposition",
    "-c x.c --sysroot=/",
    "-c b.S",
    "-c b.S -MD -g -o out/b.o",
    "-c a.s -g",
    "-c -x assembler-with-cpp a.s -DX=1",
    "-c x.c -Xassembler --noexecstack",
    "-c x.c -E2 -w",
    "-c x.c -g -gsplit-dwarf -fstack-usage -ftest-coverage -frandom-seed=1",
    "-c x.c -gsplit-dwarf -o out/x.c.o",
    "-c x.c -gsplit-dwarf -o out/x",
    "-c sub/y.z.c -fprofile-arcs -ftest-coverage -fstack-usage -o out/q. -frandom-seed=1",
    "-c x.c --coverage -flto -frandom-seed=1",
    "-c x.c -g -gsplit-dwarf -gno-split-dwarf",
    "-S x.c",
    "-S -c x.c -MD -fstack-usage --coverage -frandom-seed=1",
    "-S x.c -o out/x.o -g",
    "-S x.c -flto -frandom-seed=1",
    "-fsyntax-only x.c -Wall",
    "-fsyntax-only -c x.c -MD -o out/x.o -fstack-usage --coverage -g -gsplit-dwarf -frandom-seed=1",
    "-fsyntax-only x.cc -MMD -MF out/x.dep",
    "-c x.c -fprofile-generate -frandom-seed=1",
    "-c x.c -fprofile-use -O2",
    "-c x.c -fprofile-use=out -O2",
    "-c x.c -fprofile-dir=/a --coverage -frandom-seed=1",
];

const GCC: &[&str] = &[
    "-c x.c -Wp,-MMD,out/.x.d,-DZ=1",
    "-c x.c -Wp,-MD,out/.x.d,-MP,-MT,t -o out/x.o",
    "-c x.c -fno-tree-vectorize -fno-ipa-sra -fanalyzer -falign-functions=32",
    "-c x.c -fdiagnostics-urls=always -fdiagnostics-color=always -Wall",
    "-c x.c -fdiagnostics-plain-output -fdiagnostics-format=json -Wall",
    "-c x.c -fconserve-stack -fno-allow-store-data-races -mindirect-branch=thunk-extern -mskip-rax-setup",
    "-c x.c -A machine=x -Apred=y",
    "-c x.cc -std=c++20 -fconcepts -fcoroutines -ftemplate-depth-100",
    "-c x.c -fcallgraph-info",
    "-c x.c -fcallgraph-info=su,da -o out/x.o",
    "-c x.c -Wa,-ahln=out/x.lst -g",
    "-c x.c -Wa,-aln,--noexecstack",
    "-S x.c -Wa,-aln=out/x.lst",
    "-c x.c --coverage -frandom-seed=1 -fprofile-note=out/n -fprofile-abs-path",
    "-c x.c -fbranch-probabilities",
];

const CLANG: &[&str] = &[
    "-c x.c -MDx.d",
    "-c x.c -fcolor-diagnostics -Wall -Weverything",
    "-c x.c --target=aarch64-linux-gnu -ffreestanding",
    "-c x.c -target armv7-linux-gnueabihf -mthumb -mfloat-abi=hard",
    "-c x.c -flto=thin",
    "-c x.c -Qunused-arguments -lm -fintegrated-as -gline-tables-only",
    "-c x.cc -stdlib=libstdc++ -fsized-deallocation",
    "-c x.c -fcomplete-member-pointers -mllvm",
    "-c x.c -g -fdebug-compilation-dir=/x",
    "-c x.c -serialize-diagnostics out/x.dia -Wall",
    "-c x.c --serialize-diagnostics out/x.dia",
    "-c x.c -emit-llvm",
    "-S x.c -emit-llvm -MD",
    "-c x.c -O2 -fsave-optimization-record -o out/x.o",
    "-c x.c -g -gsplit-dwarf=single",
    "-c x.c -g -gsplit-dwarf=split",
    "-c x.c -fprofile-instr-generate -fcoverage-mapping",
    "-c x.c -fsanitize-ignorelist=out/none",
    "-c x.c -fxray-instrument -fxray-attr-list=list",
];

fn set_up(folder: &Path) {
    drop(fs::remove_dir_all(folder));
    for name in ["sub", "out", "inc"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let deep = format!("int main(void) {{{}int zz = 1; }}\n", " ".repeat(150));
    for (name, content) in [
        ("x.c", SOURCE),
        ("x.cc", SOURCE),
        ("sub/y.c", "int y;\n"),
        ("sub/y.z.c", "int y;\n"),
        ("x.i", "int i;\n"),
        ("a.s", ".globl f\nf: ret\n"),
        ("b.S", "#include \"a.h\"\n.globl f\nf: .long A\n"),
        ("x.ii", "int i;\n"),
        ("deep.c", &deep),
        ("broken.c", "int a = ;\nint b = ;\n"),
        ("a.h", "#define A 1\n"),
        ("inc/b.h", "extern int b;\n"),
        ("args", "-c '-DQ=\"a b\"' -DR\\ =1 -w\n"),
        ("sub/more", "@args x.c"),
        ("list", "[always]\nfun:f\n"),
    ] {
        fs::write(folder.join(name), content).unwrap();
    }
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn program(family: CompilerFamily) -> &'static str {
    match family {
        CompilerFamily::Gcc => "gcc",
        CompilerFamily::Clang => "clang",
    }
}

/// With all of a request's environment and nothing else but where programs are.
fn command(family: CompilerFamily, folder: &Path, argv: &[String], env: &[(String, String)]) -> Command {
    let mut command = Command::new(program(family));
    command.args(argv).current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin").envs(env.iter().cloned());
    command.stdin(Stdio::null());
    command
}

fn environment(folder: &Path) -> Vec<(String, String)> {
    let include = folder.join("inc").display().to_string();
    vec![("CPATH".to_owned(), include), ("LC_ALL".to_owned(), "C.UTF-8".to_owned())]
}

fn request(
    family: CompilerFamily,
    folder: &Path,
    argv: &[String],
    env: &[(String, String)],
    columns: Option<u32>,
) -> Result<CompileRequest, String> {
    let invocation = Invocation {
        family,
        driver: DriverLanguage::C,
        argv,
        env,
        cwd: folder,
        stderr_is_terminal: columns.is_some(),
        columns,
        locale: None,
        variables: &[],
    };
    match decide(&invocation, &|path| fs::read(path)) {
        Decision::Distribute(request) => Ok(*request),
        Decision::Local(reason) => Err(reason.to_string()),
    }
}

fn check(family: CompilerFamily, line: &str) -> Result<(), String> {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().canonicalize().unwrap().join("p");
    let argv = words(line);
    let env = environment(&folder);

    set_up(&folder);
    let before = files(&folder);
    let original = command(family, &folder, &argv, &env).output().unwrap();
    let left = files(&folder);

    set_up(&folder);
    let request = request(family, &folder, &argv, &env, None)?;
    let ours = command(family, &folder, &request.argv, &request.env).output().unwrap();
    let label = format!("{family:?} {line}\n{}", String::from_utf8_lossy(&ours.stderr));
    assert_eq!(ours, original, "{label}");
    assert!(left == files(&folder), "same files: {label}");

    let written: Vec<_> = left.keys().filter(|path| !before.contains_key(*path)).cloned().collect();
    if original.status.success() {
        let absolute = |output: &Output| super::places::absolute(&folder, &output.path);
        let named: Vec<_> = request.outputs.iter().map(absolute).collect();
        assert!(written.iter().all(|path| named.contains(path)), "{label}: {written:?} {named:?}");
        let always: Vec<_> = request.outputs.iter().filter(|output| output.always).map(absolute).collect();
        assert!(always.iter().all(|path| written.contains(path)), "{label}: {written:?} {always:?}");
    } else {
        assert_eq!(written, Vec::<PathBuf>::new(), "{label}");
    }
    check_questions(family, &folder, &request, original.status.success(), &label);
    Ok(())
}

/// The arguments for questions do name the inputs, and write nothing.
fn check_questions(family: CompilerFamily, folder: &Path, request: &CompileRequest, succeeds: bool, label: &str) {
    let before = files(folder);
    let mut argv = request.include_arguments.clone();
    argv.extend(["-M".to_owned(), request.source.display().to_string()]);
    let answer = command(family, folder, &argv, &request.env).output().unwrap();
    if succeeds && !request.language.is_preprocessed() {
        assert!(answer.status.success(), "{label}\n{}", String::from_utf8_lossy(&answer.stderr));
        let inputs = super::depfile::prerequisites(super::depfile::parse(&answer.stdout).unwrap());
        assert!(inputs.contains(&request.source), "{label}\n{inputs:?}");
    }
    assert!(before == files(folder), "a question writes nothing: {label}");
}

/// Lines of the lists that are there to be refused, each with a word of its reason.
const REFUSED: &[(&str, &str)] = &[
    ("-cx.c -c", "compiles nothing"),
    ("-c x.c -MDfoo -MMD", "not known"),
    ("-c x.c -MDx.d", "not known"),
    ("-c x.c -E2 -w", "not known"),
    ("-c x.c -fcomplete-member-pointers -mllvm", "lacks"),
];

fn check_all(family: CompilerFamily, lines: &[&str]) {
    let mut wrong = Vec::new();
    for line in lines {
        let refused = REFUSED.iter().find(|(refused, _)| refused == line).map(|(_, word)| *word);
        match (check(family, line), refused) {
            (Ok(()), None) => {}
            (Err(reason), Some(word)) if reason.contains(word) => {}
            (outcome, _) => wrong.push(format!("{line}: {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{family:?}\n{}", wrong.join("\n"));
}

#[test]
fn gcc_writes_what_requests_say() {
    check_all(CompilerFamily::Gcc, BOTH);
    check_all(CompilerFamily::Gcc, GCC);
}

#[test]
fn clang_writes_what_requests_say() {
    check_all(CompilerFamily::Clang, BOTH);
    check_all(CompilerFamily::Clang, CLANG);
}

/// What a command prints on stderr when that is a terminal. With a width, standard input is that terminal too.
fn on_terminal(mut command: Command, columns: Option<u16>) -> Vec<u8> {
    let size = Winsize { ws_row: 24, ws_col: columns.unwrap_or(0), ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).unwrap();
    let mut raw = tcgetattr(&pair.slave).unwrap();
    raw.output_flags.remove(OutputFlags::OPOST);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &raw).unwrap();
    let stdin = columns.map_or_else(Stdio::null, |_| Stdio::from(pair.slave.try_clone().unwrap()));
    let mut child = command.stdin(stdin).stderr(pair.slave).spawn().unwrap();
    // The parent's copies of the terminal end with the command, so that reading does.
    drop(command);
    let mut printed = Vec::new();
    // Linux ends a terminal with EIO.
    drop(File::from(pair.master).read_to_end(&mut printed));
    child.wait().unwrap();
    printed
}

#[test]
fn terminals_print_the_same_or_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().canonicalize().unwrap().join("p");
    let mut n_accepted = 0;
    let mut n_refused = 0;
    let lines = [
        "-c x.c -Wall",
        "-c x.c -Wall -g",
        "-c deep.c -Wall",
        "-c broken.c",
        "-c sub/y.c -g",
        "-c x.c -Wall -fdiagnostics-color=never",
        "-c x.c -Wall -fdiagnostics-color=auto -fmessage-length=50",
        "-c x.c -Wall -frecord-gcc-switches",
    ];
    let terminals: [&[(&str, &str)]; 7] = [
        &[],
        &[("TERM", "dumb")],
        &[("TERM", "xterm")],
        &[("TERM", "xterm"), ("COLUMNS", "60"), ("GCC_COLORS", "error=01;32")],
        &[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")],
        &[("TERM", "linux"), ("GCC_COLORS", "")],
        &[("TERM", "vt100"), ("COLORTERM", "gnome-terminal")],
    ];
    for family in [CompilerFamily::Gcc, CompilerFamily::Clang] {
        for line in lines {
            for terminal in terminals {
                let mut env = environment(&folder);
                env.extend(terminal.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
                set_up(&folder);
                let local = on_terminal(command(family, &folder, &words(line), &env), Some(80));
                let left = files(&folder);
                set_up(&folder);
                let request = request(family, &folder, &words(line), &env, Some(80)).unwrap();
                let mut printed = command(family, &folder, &request.argv, &request.env).output().unwrap().stderr;
                let label = format!("{family:?} {line} {terminal:?} {:?}", request.argv);
                assert!(left == files(&folder), "same files: {label}");
                if !request.accepts_stderr(&printed) {
                    assert_ne!(request.stderr_rule, StderrRule::Exact);
                    let Some(there) = request.on_terminal() else {
                        n_refused += 1;
                        continue;
                    };
                    set_up(&folder);
                    printed = on_terminal(command(family, &folder, &there.argv, &there.env), None);
                    assert!(left == files(&folder), "same files on a terminal: {label}");
                }
                n_accepted += 1;
                let texts = [&local, &printed].map(|text| String::from_utf8_lossy(text).into_owned());
                assert_eq!(texts[0], texts[1], "{label}");
            }
        }
    }
    assert!(n_accepted > 90 && n_refused > 3, "{n_accepted} accepted, {n_refused} refused");
}
