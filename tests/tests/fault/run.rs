//! Random faults while real builds run in a loop: every build is green, every object that of a plain build, and nothing is left or gathered.
//!
//! `make fault-run` runs it for long, with a seed that it prints; `SEED=` takes one. A seed fixes which faults come when, not how processes
//! take turns. The short one is part of `make test`. `BUILDBEE_FAULT_SEED`, `_MINUTES`, `_ACTIONS` and `_SOURCES` are what the long one goes by.

mod builders;
mod leftovers;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use buildbee_tests::cargo;
use buildbee_tests::farm::Options;
use buildbee_tests::faults::{Deed, Schedule, Scope, Step};
use fastrand::Rng;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;

use crate::build::say;
use builders::{Builder, Cpp, Round, Rust};
use world::World;

const DEFAULT_MINUTES: f64 = 20.0;
const DEFAULT_ACTIONS: usize = 2000;
/// Files of each language where there are no real projects.
const N_FILES: usize = 4;
/// Ways to offload, one of which a seed has.
const RACING: [&str; 3] = ["off", "tail", "eager"];

/// How a run is.
struct Plan {
    seed: u64,
    longest: Duration,
    n_actions: usize,
    sources: Option<PathBuf>,
    options: Options,
    n_owners: usize,
    /// Whether all that this machine has for it is used: namespaces, disks, C++ and Rust.
    all: bool,
    longest_pause: Duration,
    longest_fault: Duration,
}

/// What the threads of a run tell each other.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    n_actions: AtomicUsize,
    trouble: Mutex<Vec<String>>,
}

impl Shared {
    fn failed(&self, what: String) {
        self.stop.store(true, Ordering::Relaxed);
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

#[test]
fn a_short_one() {
    run(&Plan {
        seed: 6,
        longest: Duration::from_millis(1500),
        n_actions: usize::MAX,
        sources: None,
        options: Options { n_agents: 2, n_slots: 1, local_slots: 1, racing: "tail", ..Options::default() },
        n_owners: 0,
        all: false,
        longest_pause: Duration::from_millis(250),
        longest_fault: Duration::from_secs(1),
    });
}

/// `make fault-run`.
#[test]
#[ignore = "takes as long as it is told to"]
fn a_long_one() {
    let seed = setting("SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..1_000_000));
    let minutes = setting("MINUTES").and_then(|minutes| minutes.parse().ok()).unwrap_or(DEFAULT_MINUTES);
    let mut rng = Rng::with_seed(seed);
    let racing = RACING[rng.usize(..RACING.len())];
    run(&Plan {
        seed,
        longest: Duration::from_secs_f64(60.0 * minutes),
        n_actions: setting("ACTIONS").and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_ACTIONS),
        sources: setting("SOURCES").map(PathBuf::from),
        options: Options { n_agents: 4, n_slots: 2, local_slots: rng.usize(..3), racing, ..Options::default() },
        n_owners: 2,
        all: true,
        longest_pause: Duration::from_secs(3),
        longest_fault: Duration::from_secs(9),
    });
}

#[expect(clippy::disallowed_methods, reason = "what a long run is told")]
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("BUILDBEE_FAULT_{name}")).ok().filter(|value| !value.is_empty())
}

fn run(plan: &Plan) {
    // Whom daemons and killed agents leave behind comes to this process, and is seen at the end.
    set_child_subreaper(true).unwrap();
    say(&format!("SEED={} ({:?})", plan.seed, plan.options));
    let started = Instant::now();
    let mut world = World::up(plan.options.clone(), plan.n_owners, plan.all);
    let farm_folder = world.farm.path("");
    let sources = plan.sources.as_deref();
    let mut builders: Vec<Box<dyn Builder>> =
        vec![Box::new(Cpp::new(&world.farm, world.clients[0].clone(), sources, (N_FILES, plan.all)))];
    if plan.all && cargo::is_here() {
        builders.push(Box::new(Rust::new(&world.farm, world.clients[1].clone())));
    }
    for builder in &mut builders {
        builder.build(Round::New, &mut Rng::new()).unwrap();
    }
    say(&format!("up and warm after {:?}", started.elapsed()));
    let before = leftovers::holdings(&world);
    let mut wrong = under_fire(plan, &mut world, &mut builders);
    if wrong.is_empty() {
        world.farm.wait_for_agents(plan.options.n_agents);
        wrong.extend(builders.iter_mut().filter_map(|builder| {
            let built = builder.build(if plan.all { Round::OnAgents } else { Round::New }, &mut Rng::new());
            built.err().map(|error| format!("{} after all was mended: {error}", builder.name()))
        }));
        wrong.extend(leftovers::idle(&world).err());
        let (table, gathered) = leftovers::compare(&before, &leftovers::holdings(&world));
        say(&table);
        wrong.extend(gathered);
    }
    wrong.extend(leftovers::panics(&world));
    drop(builders);
    for client in &world.clients {
        say(&format!("{}: {}", client.folder.display(), client.json(&["stats"])));
    }
    if !wrong.is_empty() {
        keep(&world, plan.seed);
    }
    say(&format!("looked through after {:?}", started.elapsed()));
    wrong.extend(take_down(world));
    say(&format!("down after {:?}", started.elapsed()));
    if farm_folder.exists() {
        wrong.push(format!("{} is still there", farm_folder.display()));
    }
    assert!(wrong.is_empty(), "SEED={}\n{}", plan.seed, wrong.join("\n"));
}

/// Builds and faults, until the time is over or something is wrong; then all is mended.
fn under_fire(plan: &Plan, world: &mut World, builders: &mut [Box<dyn Builder>]) -> Vec<String> {
    let scope = Scope {
        n_agents: plan.options.n_agents,
        n_clients: builders.len(),
        n_owners: plan.n_owners,
        has_links: world.farm.network().is_some(),
        has_small_disks: world.has_small_disks(),
        longest_pause: plan.longest_pause,
        longest_fault: plan.longest_fault,
    };
    let shared = Shared::default();
    let mut schedule = Schedule::new(plan.seed, scope);
    thread::scope(|threads| {
        for (n, builder) in builders.iter_mut().enumerate() {
            let (shared, seed) = (&shared, plan.seed.wrapping_add(n as u64));
            threads.spawn(move || build_task(builder.as_mut(), shared, seed));
        }
        let started = Instant::now();
        let over = |at: Duration| {
            at >= plan.longest
                || shared.stop.load(Ordering::Relaxed)
                || shared.n_actions.load(Ordering::Relaxed) >= plan.n_actions
        };
        while !over(started.elapsed()) {
            let Some(deed) = schedule.next() else { break };
            while started.elapsed() < deed.at && !over(started.elapsed()) {
                thread::sleep(Duration::from_millis(10));
            }
            tell(started, &deed);
            let done = world.apply(&deed).and_then(|()| world.all_there());
            done.unwrap_or_else(|what| shared.failed(format!("{deed:?}: {what}")));
        }
        for deed in schedule.mend() {
            tell(started, &deed);
            world.apply(&deed).unwrap_or_else(|what| shared.failed(format!("{deed:?}: {what}")));
        }
        shared.stop.store(true, Ordering::Relaxed);
        say(&format!("{:?}: {} actions", started.elapsed(), shared.n_actions.load(Ordering::Relaxed)));
    });
    shared.trouble.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn tell(started: Instant, deed: &Deed) {
    let step = if deed.step == Step::Begin { "" } else { " is over" };
    say(&format!("{:7.2} {:?} {}{step}", started.elapsed().as_secs_f64(), deed.fault, deed.n));
}

fn build_task(builder: &mut dyn Builder, shared: &Shared, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    while !shared.stop.load(Ordering::Relaxed) {
        let (round, started) = (Round::draw(&mut rng), Instant::now());
        // A bug of the run must not hide what else is wrong.
        let built = catch_unwind(AssertUnwindSafe(|| builder.build(round, &mut rng)));
        match built.unwrap_or_else(|_| Err("a panic, see above".to_owned())) {
            Ok(built) => {
                shared.n_actions.fetch_add(built.n_actions, Ordering::Relaxed);
                let slowest = built.slowest.map_or_else(String::new, |slowest| format!(", slowest {slowest:.1} s"));
                let (name, took) = (builder.name(), started.elapsed().as_secs_f64());
                say(&format!("        {name} {round:?}: {} actions in {took:.1} s{slowest}", built.n_actions));
                built.why_slow.iter().for_each(|why| say(&format!("        {why}")));
            }
            Err(what) => {
                let what = format!("{} {round:?}: {what}", builder.name());
                say(&what);
                shared.failed(what);
            }
        }
    }
}

/// The whole farm's folder but stores and toolchains, for whoever looks for the cause.
fn keep(world: &World, seed: u64) {
    let to = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fault-run-{seed}"));
    let _ = std::fs::create_dir_all(&to);
    let script = "cp -- *.log \"$1\"; for d in cpp rust; do cp $d/state/daemon.log \"$1/$d.log\"; done; \
                  rm -rf \"$1\"/*-project; cp -r *-project \"$1\"";
    let mut copy = buildbee_tests::client::plain("sh");
    let _ = copy.args(["-c", script, "sh"]).arg(&to).current_dir(world.farm.path("")).status();
    say(&format!("logs and projects are in {}", to.display()));
}

/// Tells everything to end, and looks what stays.
fn take_down(mut world: World) -> Vec<String> {
    const PATIENCE: Duration = Duration::from_secs(15);
    let mut wrong = Vec::new();
    for client in world.clients.iter().map(AsRef::as_ref).chain([&world.farm.laptop]) {
        client.leave();
    }
    // All at once: each takes its time.
    for process in world.farm.agents.iter().flatten().chain(&world.farm.coordinator) {
        process.signal(Signal::SIGTERM);
    }
    for mut process in world.farm.agents.iter_mut().filter_map(Option::take).chain(world.farm.coordinator.take()) {
        if !process.end(PATIENCE) {
            wrong.push(format!("{} does not end when it is told to", process.name));
        }
    }
    world.unmount();
    let mut names = vec![world.farm.path("").display().to_string()];
    names.extend(world.farm.network().map(|network| network.prefix().to_owned()));
    let in_memory = world.in_memory.clone();
    drop(world);
    wrong.extend(leftovers::orphans().into_iter().map(|left| format!("a process is left: {left}")));
    wrong.extend(leftovers::mounts(&names).into_iter().map(|left| format!("a mount is left: {left}")));
    let folders = in_memory.into_iter().filter(|folder| folder.exists());
    wrong.extend(folders.map(|folder| format!("a folder in memory is left: {}", folder.display())));
    wrong
}
