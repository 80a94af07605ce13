//! What is believed of rustc, compared with the rustc that builds this.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::decide::{Machine, RustInvocation, decide};
use super::option_table::{CODEGEN, MAIN, SubOption};
use super::outputs::FileNames;
use super::request::{RustDecision, RustDriver, RustRequest};
use super::roots::PathSetting;
use super::unstable_table::UNSTABLE;

fn rustc(folder: &Path, arguments: &[String]) -> Output {
    Command::new("rustc").args(arguments).current_dir(folder).env("RUSTC_BOOTSTRAP", "1").output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let output = rustc(Path::new("/"), &arguments);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_option_of_this_compiler_is_in_the_table() {
    let mut missing = Vec::new();
    for line in printed(&["--help", "-v"]).lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        let words = line.split([' ', ',', '<', '[']).take_while(|word| word.is_empty() || word.starts_with('-'));
        for word in words.filter(|word| !word.is_empty()) {
            let known = match word.strip_prefix("--") {
                Some(name) => MAIN.iter().any(|option| option.long == Some(name)),
                None => MAIN.iter().any(|option| option.short == word.chars().nth(1)),
            };
            if !known {
                missing.push(word.to_owned());
            }
        }
    }
    for (letter, table) in [("-C", &CODEGEN[..]), ("-Z", &UNSTABLE[..])] {
        let help = printed(&[letter, "help"]);
        let lines = help.lines().filter_map(|line| line.strip_prefix(&format!("    {letter} ")));
        let names: Vec<&str> = lines.filter_map(|line| line.split_once("=val")).map(|(name, _)| name.trim()).collect();
        assert!(names.len() > 40, "{help}");
        let known = |name: &&str| table.iter().any(|option: &SubOption| option.name == *name);
        missing.extend(names.into_iter().filter(|name| !known(name)).map(|name| format!("{letter}{name}")));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn targets_call_their_files_as_believed() {
    let specifications = printed(&["-Zunstable-options", "--print=all-target-specs-json"]);
    let specifications: serde_json::Value = serde_json::from_str(&specifications).unwrap();
    let mut n_known = 0;
    for (triple, specification) in specifications.as_object().unwrap() {
        if let Some(names) = FileNames::of_triple(triple) {
            assert_eq!(Some(names), FileNames::of_specification(specification.to_string().as_bytes()), "{triple}");
            n_known += 1;
        }
    }
    assert!(n_known > 200, "{n_known}");
}

fn request(folder: &Path, argv: &[String]) -> Option<RustRequest> {
    let invocation = RustInvocation {
        driver: RustDriver::Rustc,
        argv,
        env: &[],
        cwd: folder,
        sysroot: None,
        paths: PathSetting::Portable,
        stderr_is_terminal: false,
    };
    let machine = Machine { read: &|path| fs::read(path), exists: &|path| path.exists(), processor: &|| None };
    match decide(&invocation, &machine) {
        RustDecision::Compile(request) => Some(*request),
        RustDecision::Local(_) => None,
    }
}

fn files_below(folder: &Path, found: &mut BTreeSet<String>, base: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found, base);
        } else {
            found.insert(path.strip_prefix(base).unwrap().display().to_string());
        }
    }
}

const PROGRAM: &str =
    "fn main() { println!(\"{}\", x::four()); }\nmod x { #[inline(never)] pub fn four() -> u8 { 4 } }\n";
const LIBRARY: &str = "pub fn four() -> u8 { 4 }\n#[test] fn is_four() { assert_eq!(four(), 4); }\n";
const MACRO: &str = "extern crate proc_macro;\n#[proc_macro] pub fn same(text: proc_macro::TokenStream) -> proc_macro::TokenStream { text }\n";

/// Compiles by this command in a folder of its own: the files there are those that were foretold.
fn check(words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, text) in [("main.rs", PROGRAM), ("lib.rs", LIBRARY), ("mac.rs", MACRO)] {
        fs::write(folder.join(name), text).unwrap();
    }
    fs::create_dir_all(folder.join("out/deep")).unwrap();
    let argv: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let request = request(folder, &argv).unwrap_or_else(|| panic!("{words} is a compile"));
    let mut before = BTreeSet::new();
    files_below(folder, &mut before, folder);
    let output = rustc(folder, &[request.added_arguments, argv].concat());
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    let mut after = BTreeSet::new();
    files_below(folder, &mut after, folder);
    let written: BTreeSet<String> = after.difference(&before).cloned().collect();
    let names = |always: bool| -> BTreeSet<String> {
        let outputs = request.outputs.iter().filter(|output| output.always || !always);
        outputs.map(|output| output.path.display().to_string()).collect()
    };
    assert!(names(true).is_subset(&written), "{words}: {written:?} lacks some of {:?}", names(true));
    assert!(written.is_subset(&names(false)), "{words}: {written:?} is more than {:?}", names(false));
}

#[test]
fn libraries_are_called_as_foretold() {
    for words in [
        "--crate-name y --crate-type lib lib.rs --out-dir out --emit=dep-info,metadata,link -Cextra-filename=-0123",
        "--crate-name y --crate-type rlib --crate-type=lib lib.rs",
        "--crate-name y --crate-type lib lib.rs --emit=dep-info,metadata --out-dir out -C extra-filename=.1",
        "--crate-name y --crate-type lib lib.rs -o out/deep/strange.name",
        "--crate-name y --crate-type lib lib.rs -o out/odd.name --emit=link,dep-info",
        "--crate-name y --crate-type lib lib.rs -o out/odd.name --emit=metadata,dep-info -Cextra-filename=-2",
        "--crate-name y --crate-type lib lib.rs --emit=dep-info=out/a.d --emit=link=b.rlib,metadata=c.rmeta",
        "--crate-name y --crate-type lib lib.rs --emit=dep-info=out/a.d,link -o z.rlib",
        "--crate-name y --crate-type lib lib.rs --emit=asm,llvm-ir,llvm-bc,obj,mir --out-dir out",
        "--crate-name y --crate-type lib lib.rs --emit=obj -o out/deep/y.o -Ccodegen-units=1",
        "--crate-name y --crate-type staticlib --crate-type lib lib.rs --out-dir out -g",
        "--crate-name y --crate-type lib lib.rs -g -Csplit-debuginfo=packed",
        "--crate-name y --crate-type lib lib.rs -Csplit-debuginfo=unpacked",
    ] {
        check(words);
    }
}

#[test]
fn linked_files_are_called_as_foretold() {
    for words in [
        "--crate-name y --crate-type bin main.rs --out-dir out --emit=dep-info,link -Cextra-filename=-0123",
        "--crate-name y --crate-type bin main.rs --emit=metadata,dep-info --out-dir out -Cextra-filename=-1",
        "--crate-name y --crate-type bin main.rs --emit=metadata,link",
        "--crate-name y --crate-type bin main.rs -o out/deep/program.x86",
        "--crate-name y --crate-type bin main.rs -g -Csplit-debuginfo=packed --out-dir out",
        "--crate-name y --crate-type bin main.rs -Csplit-debuginfo=packed -Cextra-filename=-1",
        "--crate-name y --crate-type cdylib lib.rs --emit=link=out/one.so",
        "--crate-name y --crate-type dylib lib.rs -Cprefer-dynamic -g -Csplit-debuginfo=packed",
        "--crate-name y --crate-type proc-macro mac.rs --emit=dep-info,metadata,link --extern proc_macro --out-dir out",
        "--crate-name y --test lib.rs --emit=dep-info,link --out-dir out -Cextra-filename=-0123",
        "--crate-name y --test --crate-type lib lib.rs --emit=dep-info,metadata --out-dir out",
        "--crate-name y main.rs -Copt-level=1",
    ] {
        check(words);
    }
}
