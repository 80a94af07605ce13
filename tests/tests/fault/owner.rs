//! The owner of a lending desktop comes back while it compiles for others: by a file, by a key in a terminal, by a signal, by a pause.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use buildbee_tests::client::plain;
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::processes;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use crate::build::{Build, options, say, slow_source};

/// When the desktop has to be its owner's.
const AT_ONCE: Duration = Duration::from_millis(250);
/// For how long the processor time is counted from then on, while what ran is still there.
const COUNTED: Duration = Duration::from_secs(1);
/// What may be used then on a machine busy with other tests; on a quiet one, 2 % of a core is wanted.
const MOST_USED: f64 = 0.3;
/// When all processes are gone on a busy machine; on a quiet one, 2.5 s after the return are wanted.
const GONE_DEADLINE: Duration = Duration::from_secs(10);
/// The kernel notes reads from terminals to this time.
const TERMINAL_GRAIN: Duration = Duration::from_secs(9);
/// Functions of a source that is compiled for some seconds.
const N_FUNCTIONS: usize = 80;

/// The first desktop is lent while its owner is away, and sees no more of the system than what `root` holds.
fn with_owner(options: Options) -> Farm {
    let mut farm = Farm::up(options);
    let root = farm.path("root");
    fs::create_dir_all(root.join("dev/pts")).unwrap();
    let root = root.display();
    let settings = format!("mode = \"idle\"\nclaim_after = \"100ms\"\nidle_after = \"3s\"\nsystem_root = \"{root}\"\n");
    farm.agent_settings.insert(0, settings);
    farm.agents[0].take();
    farm.start_agent(0);
    farm.wait_for_agents(farm.options.n_agents);
    farm
}

fn agent(farm: &Farm) -> Pid {
    farm.agents[0].as_ref().unwrap().pid()
}

/// Compilers of the first desktop.
fn compilers(farm: &Farm) -> Vec<Pid> {
    processes::tree(agent(farm)).into_iter().filter(|pid| processes::name(*pid) == "cc1").collect()
}

/// The owner comes back when the first desktop compiles, which is then theirs.
fn interrupt(farm: &Farm, come_back: impl FnOnce()) {
    farm.wait("a compiler on the first desktop", || !compilers(farm).is_empty());
    let returned = Instant::now();
    come_back();
    std::thread::sleep(AT_ONCE.saturating_sub(returned.elapsed()));
    let (before, since) = (processes::cpu(agent(farm)), Instant::now());
    let n_held = compilers(farm).len();
    std::thread::sleep(COUNTED);
    let used = (processes::cpu(agent(farm)).saturating_sub(before)).as_secs_f64() / since.elapsed().as_secs_f64();
    while !compilers(farm).is_empty() {
        assert!(returned.elapsed() < GONE_DEADLINE, "its compilers are still there\n{}", farm.logs());
        std::thread::sleep(Duration::from_millis(5));
    }
    let gone = returned.elapsed().as_secs_f64();
    say(&format!("{n_held} compilers were held, {:.1} % of a core used, gone after {gone:.2} s", 100.0 * used));
    assert!(used < MOST_USED, "{used} of a core\n{}", farm.logs());
}

/// A terminal that the first desktop looks at, and somebody's shell in it.
struct Terminal {
    keyboard: File,
    since: Instant,
}

impl Terminal {
    fn open(farm: &Farm) -> Self {
        let pty = openpty(None, None).unwrap();
        let name = fs::read_link(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).unwrap();
        symlink(&name, farm.path("root/dev/pts").join(name.file_name().unwrap())).unwrap();
        let mut settings = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
        let mut shell = File::from(pty.slave);
        // It ends with the keyboard.
        std::thread::spawn(move || while shell.read_exact(&mut [0]).is_ok() {});
        Self { keyboard: File::from(pty.master), since: Instant::now() }
    }

    /// The first key after a while.
    fn press(&mut self) {
        std::thread::sleep(TERMINAL_GRAIN.saturating_sub(self.since.elapsed()));
        self.keyboard.write_all(b"x").unwrap();
    }
}

/// One compile that takes some seconds, each time a new one with the same object.
struct Compile {
    folder: PathBuf,
    expected: Vec<u8>,
}

impl Compile {
    fn new(farm: &Farm) -> Self {
        let folder = farm.path("project");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("slow.c"), slow_source(0, N_FUNCTIONS)).unwrap();
        fs::write(folder.join("shared.h"), "#define SCALE 3\n").unwrap();
        let mut compile = plain("gcc");
        farm.must_run(compile.args(["-O2", "-c", "slow.c", "-o", "slow.o"]).current_dir(&folder));
        let expected = fs::read(folder.join("slow.o")).unwrap();
        Self { folder, expected }
    }

    fn start(&self, farm: &Farm, name: &str) -> Child {
        let mut compile = farm.client("buildbee");
        compile
            .args(["gcc", "-O2", "-c", "slow.c", "-o", &format!("{name}.o"), &format!("-D{name}")])
            .current_dir(&self.folder);
        compile.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    }

    fn finish(&self, running: Child, name: &str) {
        let Output { status, stdout, stderr } = running.wait_with_output().unwrap();
        assert!(
            status.success() && stdout.is_empty() && stderr.is_empty(),
            "{status} {}",
            String::from_utf8_lossy(&stderr)
        );
        assert!(fs::read(self.folder.join(format!("{name}.o"))).unwrap() == self.expected, "{name} is another object");
    }
}

fn agent_says(farm: &Farm, words: &[&str]) -> String {
    let mut command = farm.program("buildbee-agent");
    command.args(words).arg("--state-dir").arg(farm.path("desk0"));
    String::from_utf8(farm.must_run(&mut command).stdout).unwrap()
}

fn n_handed_back(farm: &Farm) -> u64 {
    farm.json(&["stats"])["reasons"]["agent-handed-back"].as_u64().unwrap_or(0)
}

#[test]
fn an_owner_who_comes_back_has_the_desktop_at_once() {
    let farm = with_owner(Options { n_agents: 1, n_slots: 1, local_slots: 1, racing: "off", ..Options::default() });
    let mut terminal = Terminal::open(&farm);
    let compile = Compile::new(&farm);
    let file = farm.path("desk0/owner-present");

    let running = compile.start(&farm, "visit");
    farm.wait("a compiler", || !compilers(&farm).is_empty());
    fs::write(&file, "").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    fs::remove_file(&file).unwrap();
    compile.finish(running, "visit");
    assert_eq!(n_handed_back(&farm), 0, "a short visit holds work, and lets it go on");
    assert!(agent_says(&farm, &["history", "--actions"]).contains("gcc visit.o"), "{}", farm.logs());
    farm.wait_for_agents(1);

    let running = compile.start(&farm, "file");
    interrupt(&farm, || fs::write(&file, "").unwrap());
    let status = agent_says(&farm, &["status"]);
    assert!(status.contains("lends 0 of 1 slots (mode idle)") && status.contains("the file"), "{status}");
    compile.finish(running, "file");
    fs::remove_file(&file).unwrap();
    farm.wait_for_agents(1);

    let running = compile.start(&farm, "key");
    interrupt(&farm, || terminal.press());
    compile.finish(running, "key");
    assert!(n_handed_back(&farm) >= 2);
    farm.wait_for_agents(1);

    assert!(agent_says(&farm, &["pause"]).contains("until `buildbee-agent resume`"));
    farm.wait_for_agents(0);
    agent_says(&farm, &["resume"]);
    farm.wait_for_agents(1);
    // A key that was pressed somewhere.
    kill(agent(&farm), Signal::SIGUSR1).unwrap();
    farm.wait_for_agents(0);
}

/// For figures: `--run-ignored all --no-capture`.
#[test]
#[ignore = "the one above shows the same of one compile, in less time"]
fn a_build_goes_on_when_an_owner_comes_back() {
    for racing in ["off", "tail"] {
        let build = Build::new(with_owner(Options { racing, ..options() }));
        let mut terminal = Terminal::open(&build.farm);
        std::thread::sleep(TERMINAL_GRAIN);
        let running = build.start();
        interrupt(&build.farm, || terminal.press());
        build.finish(running);
        build.stats();
    }
}
