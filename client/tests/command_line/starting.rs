//! The daemon comes when it is needed, alone, and holds on to nothing of the build.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::home::Home;

#[test]
fn many_compiles_at_once_start_one_daemon() {
    let home = Home::new();
    let compiles: Vec<_> = (0..6)
        .map(|number| home.command(&["gcc", "-c", "x.c", "-o", &format!("x{number}.o")]).spawn().unwrap())
        .collect();
    for mut compile in compiles {
        assert!(compile.wait().unwrap().success());
    }
    let pid = home.daemon_pid();
    assert_eq!(home.daemon_pid(), pid);
    let daemons = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("environ")).ok().map(|environ| (entry.path(), environ)))
        .filter(|(_, environ)| {
            let ours = format!("XDG_RUNTIME_DIR={}", home.path("").display());
            String::from_utf8_lossy(environ).contains(ours.trim_end_matches('/'))
        })
        .filter(|(path, _)| std::fs::read(path.join("cmdline")).is_ok_and(|line| line.ends_with(b"--detached\0")))
        .count();
    assert_eq!(daemons, 1);
}

#[test]
fn whoever_waits_for_the_builds_output_does_not_wait_for_the_daemon() {
    let home = Home::new();
    let start = Instant::now();
    // Descriptor 7 is a leaked pipe, as make's jobserver is.
    let mut shell = std::process::Command::new("/bin/sh");
    let wrapper = home.command(&["gcc", "-c", "x.c"]);
    shell.args(["-c", "exec 7>&1; exec \"$0\" \"$@\""]).arg(wrapper.get_program()).args(wrapper.get_args());
    shell.env_clear().envs(wrapper.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut build = shell.current_dir(home.path("")).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    build.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(build.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(20));
    let pid = home.daemon_pid();
    let session = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = session.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[3], pid.to_string(), "leads a session of its own");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::path::Path::new("/"));
}

#[test]
fn a_daemon_that_cannot_start_is_explained() {
    let home = Home::new();
    // A file where the daemon's folder should be.
    std::fs::write(home.path("blocked"), "").unwrap();
    let output = home.command(&["status"]).env("BUILDBEE_STATE_DIR", home.path("blocked")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: there is no daemon: ") && said.contains("blocked"), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
    let compile = home.command(&["gcc", "-c", "x.c"]).env("BUILDBEE_STATE_DIR", home.path("blocked")).output().unwrap();
    assert!(compile.status.success() && compile.stderr.is_empty());
    let foreground = home.command(&["daemon"]).env("BUILDBEE_STATE_DIR", home.path("blocked")).output().unwrap();
    let said = String::from_utf8(foreground.stderr).unwrap();
    assert!(said.starts_with("error: ") && said.contains("blocked") && said.contains("hint: "), "{said}");
}

#[test]
fn a_second_daemon_leaves_at_once() {
    let home = Home::new();
    let pid = home.daemon_pid();
    let (code, said) = home.complains(&["daemon"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("running already"), "{said}");
    assert!(home.run(&["daemon", "--background"]).status.success(), "there is one, which is what was wanted");
    assert_eq!(home.daemon_pid(), pid);
}
