//! Every row of the table of options, one by one.

use std::path::Path;

use super::arg_table::{Attached, Class, ROWS, Row, When, lookup};
use super::decide::decide;
use super::outputs::Stage;
use super::request::{CompilerFamily, Decision, DriverLanguage, Invocation};
use crate::reason::Kind;

/// A value that the option takes.
fn value(row: &Row) -> &'static str {
    match row.class {
        Class::Language => "c",
        Class::Assembler => "--noexecstack",
        Class::Frontend => "-mrelax-all",
        Class::Preprocessor => "-DX",
        Class::Color(_) | Class::Urls(_) => "never",
        Class::MessageLength => "80",
        Class::Output => "out.o",
        Class::NamedOutput(_) => "out.x",
        Class::DepFile => "out.d",
        Class::Mode(_) => "",
        _ => "value",
    }
}

/// The spellings of a row's option.
fn spellings(row: &Row) -> Vec<Vec<String>> {
    let name = row.name.to_owned();
    let joined = vec![format!("{}{}", row.name, value(row))];
    let separate = vec![name.clone(), value(row).to_owned()];
    match row.attached {
        Attached::None => vec![vec![name]],
        Attached::Joined => vec![joined],
        Attached::Separate => vec![separate],
        Attached::JoinedOrSeparate => vec![joined, separate],
    }
}

fn families(row: &Row) -> Vec<CompilerFamily> {
    row.family.map_or(vec![CompilerFamily::Gcc, CompilerFamily::Clang], |family| vec![family])
}

fn decision(family: CompilerFamily, argv: &[String]) -> Result<super::request::CompileRequest, &'static str> {
    let invocation = Invocation {
        family,
        driver: DriverLanguage::C,
        argv,
        env: &[],
        cwd: Path::new("/w"),
        stderr_is_terminal: false,
        columns: None,
        locale: None,
        variables: &[],
    };
    match decide(&invocation, &|_| Err(std::io::ErrorKind::NotFound.into())) {
        Decision::Distribute(request) => Ok(*request),
        Decision::Local(reason) => Err(reason.code()),
    }
}

#[test]
fn every_row_does_what_it_says() {
    for row in ROWS {
        for family in families(row) {
            for mut argv in spellings(row) {
                let label = format!("{family:?} {argv:?}");
                let about_dependencies = matches!(row.class, Class::DepFile | Class::DepDetail);
                argv.extend(about_dependencies.then(|| "-MD".to_owned()));
                argv.extend(["-c".to_owned(), "x.c".to_owned()]);
                let decided = decision(family, &argv);
                match row.class {
                    Class::Mode(kind) | Class::Local(kind) => assert_eq!(decided, Err(kind.texts().0), "{label}"),
                    _ => {
                        let request = decided.unwrap_or_else(|code| panic!("{label}: {code}"));
                        assert_eq!(request.argv, argv, "{label}");
                        check_effect(row, &request, &label);
                    }
                }
            }
        }
    }
}

fn check_effect(row: &Row, request: &super::request::CompileRequest, label: &str) {
    let told = |arguments: &[String]| arguments.iter().any(|argument| argument.starts_with(row.name));
    let writes = |name: &str| request.outputs.iter().any(|output| output.path == Path::new(name) && !output.always);
    match row.class {
        Class::Output => assert_eq!(request.object, Path::new("out.o"), "{label}"),
        Class::DepFile => assert_eq!(request.outputs[1].path, Path::new("out.d"), "{label}"),
        Class::Stage(stage) => assert_eq!(request.outputs.is_empty(), stage == Stage::Check, "{label}"),
        Class::EmitLlvm => assert_eq!(request.object, Path::new("x.bc"), "{label}"),
        Class::Side(file) => assert!(writes(&format!("x{}", file.suffix())), "{label}"),
        Class::NamedOutput(_) => assert!(writes("out.x"), "{label}"),
        Class::ReadFile => assert_eq!(request.named_inputs[0].path, Path::new("value"), "{label}"),
        Class::ProfileUse => assert!(!request.named_inputs.is_empty(), "{label}"),
        Class::DepMode(kind) => assert_eq!(request.depfile.as_ref().map(|found| found.kind), Some(kind), "{label}"),
        Class::IncludeFile => assert_eq!(request.explicit_inputs, [Path::new("value")], "{label}"),
        Class::Search(kind) => assert_eq!(request.search_directories[0].kind, kind, "{label}"),
        Class::DepDetail | Class::Language | Class::ProfileFolder => {}
        _ => assert!(told(&request.include_arguments), "{label}"),
    }
    assert!(told(&request.key_arguments), "{label}");
}

#[test]
fn rows_are_not_hidden_by_others() {
    for row in ROWS {
        for family in families(row) {
            for spelling in spellings(row) {
                let found = lookup(&spelling[0], family).unwrap_or_else(|| panic!("{spelling:?}"));
                assert_eq!((found.name_bytes, found.class), (row.name.len(), row.class), "{spelling:?}");
            }
        }
    }
}

#[test]
fn no_row_twice() {
    for (at, row) in ROWS.iter().enumerate() {
        let twice = ROWS[at + 1..].iter().any(|other| {
            other.name == row.name && (other.family == row.family || other.family.is_none() || row.family.is_none())
        });
        assert!(!twice, "{}", row.name);
    }
}

#[test]
fn a_row_wins_over_a_word() {
    let class = |argument, family| lookup(argument, family).map(|found| found.class);
    assert_eq!(class("-fdiagnostics-color", CompilerFamily::Gcc), Some(Class::Color(When::Always)));
    assert_eq!(class("-fcolor-diagnostics", CompilerFamily::Gcc), None);
    assert_eq!(class("-funroll-loops", CompilerFamily::Gcc), Some(Class::PassThrough));
    assert_eq!(class("-mavx2", CompilerFamily::Clang), Some(Class::PassThrough));
}
