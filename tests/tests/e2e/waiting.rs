//! What agents learn of clients, and what clients hold against agents: nothing of the environment, no grudge for a user's mistake, and
//! no wait for agents that are busy.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::seen::see;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::side_by_side::{CACHED, REMOTE, same_and_counted};

/// A compile whose compiler proper has been started at an agent and does not get on.
struct Held {
    wrapper: Child,
    compiler: Pid,
}

impl Held {
    /// Of the file that [`write_heavy`] wrote; `variables` are the caller's.
    fn start(farm: &Farm, folder: &Path, name: &str, variables: &[(&str, &str)]) -> Self {
        let marker = format!("HELD_{}_{name}", std::process::id());
        let mut compile = farm.client("buildbee");
        compile.args(["gcc", "-O2", "-c", "heavy.c", "-D", &marker, "-o", &format!("{name}.o")]).current_dir(folder);
        compile.envs(variables.iter().copied());
        let wrapper = compile.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut found = None;
        farm.wait("a compile at an agent", || {
            found = compiler_with(&marker);
            found.is_some()
        });
        let compiler = found.unwrap();
        kill(compiler, Signal::SIGSTOP).unwrap();
        Self { wrapper, compiler }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.wrapper.kill();
        let _ = self.wrapper.wait();
        let _ = kill(self.compiler, Signal::SIGKILL);
    }
}

/// Keeps a compiler busy until it can be held.
fn write_heavy(folder: &Path) {
    let functions = (0..6000).map(|n| format!("int f{n}(int x) {{ while (x * {n}.5 > 1) x /= 3; return x; }}\n"));
    fs::write(folder.join("heavy.c"), functions.collect::<String>()).unwrap();
}

/// The compiler proper that was started with `word` on its command line.
fn compiler_with(word: &str) -> Option<Pid> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        let proper = words[0].ends_with(b"/cc1") && words.contains(&word.as_bytes());
        proper.then(|| Pid::from_raw(pid))
    });
    numbers.last()
}

#[test]
fn the_environment_stays_at_home() {
    let farm = Farm::up(Options::default());
    let folder = farm.path("project");
    fs::create_dir(&folder).unwrap();
    write_heavy(&folder);
    let variables = [("CANARY", "sings"), ("USER", "somebody")];
    let held = Held::start(&farm, &folder, "seen", &variables);
    let environment = fs::read(format!("/proc/{}/environ", held.compiler)).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(
        environment.contains("COLLECT_GCC=") && environment.contains("LC_ALL="),
        "not the action's environment: {environment}"
    );
    for private in ["CANARY", "sings", "BUILDBEE_SOCKET", "BUILDBEE_STATE_DIR", "USER=", "somebody"] {
        assert!(!environment.contains(private), "{private} was seen by the agent: {environment}");
    }
}

#[test]
fn a_users_mistakes_are_not_held_against_agents() {
    let farm = Farm::up(Options::default());
    let folder = farm.path("project");
    fs::create_dir(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    for n in 0..12 {
        write("bad.c", &format!("int bad{n} = missing{n};\n"));
        farm.laptop.zero();
        let seen = see(farm.client("buildbee").args(["gcc", "-c", "bad.c"]).current_dir(&folder), &folder);
        assert!(seen.code == Some(1) && seen.stderr.contains(&format!("missing{n}")), "{seen:?}");
        assert_eq!(farm.json(&["stats"])["reasons"]["compile-failed"], 1, "{}", farm.logs());
    }
    for n in 0..6 {
        write("good.c", &format!("int good{n} = {n};\n"));
        same_and_counted(&farm, &folder, "$CC -g -c good.c", REMOTE);
        same_and_counted(&farm, &folder, "$CC -g -c good.c", CACHED);
    }
}

#[test]
fn nobody_waits_for_busy_agents_while_a_local_slot_is_idle() {
    let mut farm = Farm::up(Options { n_slots: 1, ..Options::default() });
    farm.options.local_slots = 1;
    let neighbour = farm.second_client("neighbour");
    let folder = farm.path("project");
    fs::create_dir(&folder).unwrap();
    write_heavy(&folder);
    fs::write(folder.join("light.c"), "int x;\n").unwrap();
    let mut held = ["one", "two"].map(|name| Held::start(&farm, &folder, name, &[]));
    // It ends although neither of the two does: that is what is to be shown, on a machine as busy as this may be.
    let seen = see(neighbour.command("buildbee").args(["gcc", "-c", "light.c"]).current_dir(&folder), &folder);
    assert_eq!((seen.code, neighbour.counts()), (Some(0), (0, 0, 1)), "{}", neighbour.json(&["explain"]));
    for busy in &mut held {
        assert_eq!(busy.wrapper.try_wait().unwrap(), None, "the agents were not busy");
    }
}

#[test]
fn a_daemon_that_has_just_started_knows_its_agents() {
    let farm = Farm::up(Options::default());
    let folder = farm.path("project");
    fs::create_dir(&folder).unwrap();
    // A machine as busy as this may be can make a start slow; without the wait none of these would ever be remote.
    let remote = (0..5).any(|n| {
        farm.laptop.leave();
        fs::write(folder.join("first.c"), format!("int first{n};\n")).unwrap();
        let seen = see(farm.client("buildbee").args(["gcc", "-c", "first.c"]).current_dir(&folder), &folder);
        assert_eq!(seen.code, Some(0), "{seen:?}");
        farm.counts() == REMOTE
    });
    assert!(remote, "{}", farm.logs());
}
