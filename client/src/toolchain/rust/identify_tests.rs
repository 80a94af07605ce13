//! Captures the compiler that compiles these tests, and the linker of this machine.

use super::*;

#[path = "link_tests.rs"]
mod link;

/// The compiler that compiles these tests.
fn rustc() -> PathBuf {
    Path::new(env!("CARGO")).with_file_name("rustc")
}

fn caller(program: &Path) -> Caller<'_> {
    Caller { program, cwd: Path::new("/"), home: None, rustup_home: None, rustup_toolchain: None, target: None }
}

fn links(arguments: &[String]) -> LinkQuestion<'_> {
    LinkQuestion { linker: None, cwd: Path::new("/"), arguments, search: OsStr::new("/usr/bin:/bin") }
}

#[tokio::test]
async fn a_compiler_is_captured_once_and_named_by_content() {
    let (program, toolchains) = (rustc(), RustToolchains::new(FileHashes::default()));
    let first = toolchains.identify(caller(&program)).await.unwrap();
    assert_eq!(first.place, Path::new("/buildbee.d/rust/bin/rustc"));
    assert!(first.arguments.is_empty() && first.version.starts_with("1.") && first.host.contains("linux"), "{first:?}");
    for question in ["-vV", "--version", "-V"] {
        let said = first.says(&[question.to_owned()], &[]).unwrap();
        assert_eq!(said, capture::ask(&program, question).unwrap());
        let changed = [("RUSTC_OVERRIDE_VERSION_STRING".to_owned(), "1.0".to_owned())];
        assert_eq!(first.says(&[question.to_owned()], &changed), None);
    }
    assert_eq!(first.says(&["-vV".to_owned(), "src/lib.rs".to_owned()], &[]), None);
    let second = toolchains.recall(&Caller { cwd: Path::new("/usr"), ..caller(&program) }).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let parts = toolchains.linker(&first, links(&[])).await.unwrap();
    assert_ne!(parts.parts.id, first.parts.id);
    assert!(Arc::ptr_eq(&parts, &toolchains.recall_linker(&first, &links(&[])).unwrap()));
    assert!(first.n_looks() <= 120 && parts.n_looks() <= 120, "{} and {}", first.n_looks(), parts.n_looks());
}
