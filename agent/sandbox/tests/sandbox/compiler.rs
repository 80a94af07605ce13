//! A real compiler, and what a command writes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use buildbee_sandbox::attempt::Exit;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use crate::place::{PROJECT, Place, launcher, run};
use crate::programs::{GCC, link, toolchain};

const SOURCE: &str = "#include \"t.h\"\nint answer(void) { return ANSWER; }\n";

#[tokio::test]
async fn gcc_compiles_to_the_same_bytes() {
    let place = Place::new();
    fs::write(place.input("t.c"), SOURCE).unwrap();
    fs::write(place.input("t.h"), "#define ANSWER 42\n").unwrap();
    let mut spec = place.spec(&[GCC, "-O2", "-c", "t.c", "-o", "build/out/t.o"]);
    spec.make_directories = vec![format!("{PROJECT}/build/out").try_into().unwrap()];
    let completed = run(&launcher().await, spec).await.unwrap();
    assert_eq!(completed.exit, Exit::Code(0), "{}", String::from_utf8_lossy(&completed.stderr));
    assert!(completed.usage.cpu.as_nanos() > 0 && completed.usage.peak_memory_bytes > 1 << 20);

    let reference = place.path().join("reference.o");
    let sources = place.input("");
    let mut command = Command::new(GCC);
    command.args(["-O2", "-c", "t.c", "-o"]).arg(&reference).current_dir(sources);
    assert!(command.status().unwrap().success());
    assert_eq!(fs::read(place.output("build/out/t.o")).unwrap(), fs::read(reference).unwrap());
}

/// What gcc prints with standard error on a terminal of its own.
fn on_a_terminal(folder: &Path, argv: &[&str], env: &[(String, String)]) -> Vec<u8> {
    let ends = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&ends.slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&ends.slave, SetArg::TCSANOW, &settings).unwrap();
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).env_clear().envs(env.iter().cloned()).current_dir(folder);
    command.stdin(Stdio::null()).stderr(ends.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut printed = Vec::new();
    // It ends with an error: nobody has the other end open.
    let _ = std::fs::File::from(ends.master).read_to_end(&mut printed);
    assert!(child.wait().unwrap().success());
    printed
}

#[tokio::test]
async fn a_terminal_shows_what_the_users_would() {
    let place = Place::new();
    fs::write(place.input("t.c"), format!("int f(int a{}) {{ int unused; return 1; }}\n", "b".repeat(90))).unwrap();
    let argv = [GCC, "-Wall", "-g", "-c", "t.c", "-o", "t.o"];
    let mut spec = place.spec(&argv);
    spec.env.extend([("TERM", "xterm-256color"), ("COLUMNS", "50")].map(|(name, value)| (name.into(), value.into())));
    spec.stderr_is_terminal = true;
    let local = on_a_terminal(&place.input(""), &argv, &spec.env);
    assert!(local.windows(3).any(|part| part == b"\x1b]8"), "no links: {}", String::from_utf8_lossy(&local));
    let completed = run(&launcher().await, spec).await.unwrap();
    assert_eq!(completed.exit, Exit::Code(0));
    assert_eq!(String::from_utf8_lossy(&completed.stderr), String::from_utf8_lossy(&local));
}

#[tokio::test]
async fn a_compile_error_is_the_programs_own() {
    let place = Place::new();
    fs::write(place.input("t.c"), "int answer(void) { return }\n").unwrap();
    let completed = run(&launcher().await, place.spec(&[GCC, "-c", "t.c"])).await.unwrap();
    assert_eq!(completed.exit, Exit::Code(1));
    assert!(String::from_utf8_lossy(&completed.stderr).starts_with("t.c: In function"));
    assert!(!place.output("t.o").exists());
}

#[tokio::test]
async fn lower_layers_stay_as_they_are() {
    let place = Place::new();
    fs::write(place.input("changed"), "before").unwrap();
    fs::write(place.input("removed"), "before").unwrap();
    fs::write(place.input("appended"), "before").unwrap();
    let script =
        "echo after > changed && rm removed && echo more >> appended && mkdir d && mv d e && chmod 700 /bin/true";
    place.text(script).await;
    for name in ["changed", "removed", "appended"] {
        assert_eq!(fs::read_to_string(place.input(name)).unwrap(), "before");
    }
    assert_eq!(fs::read_to_string(place.output("changed")).unwrap(), "after\n");
    assert_eq!(fs::read_to_string(place.output("appended")).unwrap(), "beforemore\n");
    assert!(place.output("e").is_dir());
    assert!(!place.input("e").exists());
    assert_ne!(fs::metadata(toolchain().path.join("bin/true")).unwrap().mode() & 0o077, 0);
}

#[tokio::test]
async fn modes_are_those_without_a_umask() {
    let place = Place::new();
    assert_eq!(place.text("touch file && mkdir folder && umask").await, "0000");
    assert_eq!(fs::metadata(place.output("file")).unwrap().permissions().mode() & 0o7777, 0o666);
    assert_eq!(fs::metadata(place.output("folder")).unwrap().permissions().mode() & 0o7777, 0o777);
}

#[tokio::test]
async fn paths_with_separators_spaces_and_quotes() {
    let _layer = toolchain();
    for name in ["with space", "co:lon", "com,ma", r"back\slash", r"all: ,\'ü"] {
        let place = Place::named(name);
        fs::write(place.input("in"), "content").unwrap();
        assert_eq!(place.text("cat in > out && cat out").await, "content", "{name}");
        assert_eq!(fs::read_to_string(place.output("out")).unwrap(), "content", "{name}");
    }
}

#[tokio::test]
async fn links_in_the_inputs_lead_inside() {
    let place = Place::new();
    link("/etc", &place.input("link"));
    let mut spec = place.shell("cat link/passwd; echo x > link/new");
    spec.make_directories = vec![format!("{PROJECT}/link/made").try_into().unwrap()];
    let completed = run(&launcher().await, spec).await.unwrap();
    assert_eq!(completed.stdout, b"");
    let upper = place.path().join("scratch/upper");
    assert!(upper.join("etc/made").is_dir() && upper.join("etc/new").exists());
    assert!(!Path::new("/etc/made").exists() && !Path::new("/etc/new").exists());
}
