//! The farm of a fault run: does what the schedule says.

use std::collections::BTreeSet;
use std::fs::{self, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildbee_tests::client::Client;
use buildbee_tests::disk::SmallDisk;
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::faults::{Deed, Fault, Step};
use buildbee_tests::processes::{self, Known};
use fastrand::Rng;
use nix::sys::signal::{Signal, kill};

/// What an agent ran is gone this long after it was killed, on a busy machine.
const GONE_DEADLINE: Duration = Duration::from_secs(10);
/// An agent that is told to end has ended then.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// Room for two toolchains and some results.
const AGENT_DISK: &str = "1500m";
const CLIENT_DISK: &str = "256m";
/// Bytes flipped at a time.
const MAX_FLIPS: usize = 24;
/// Programs that compile for others.
const COMPILERS: [&str; 5] = ["cc1", "cc1plus", "as", "rustc", "collect2"];

/// All of it.
pub(super) struct World {
    pub(super) farm: Farm,
    pub(super) clients: Vec<Arc<Client>>,
    /// Of the first client, of the last agent.
    disks: Option<[SmallDisk; 2]>,
    /// What killed agents ran.
    killed: Vec<Vec<Known>>,
    /// Folders in memory that agents have had.
    pub(super) in_memory: BTreeSet<PathBuf>,
}

impl World {
    /// A farm with the first `n_owners` agents on desktops, in network namespaces and with small disks where that can be had and is wanted.
    pub(super) fn up(options: Options, n_owners: usize, all: bool) -> Self {
        let farm = if all { Farm::up_in_namespaces(options.clone()) } else { None };
        let mut farm = farm.unwrap_or_else(|| Farm::up(options));
        let n_agents = farm.options.n_agents;
        for n in 0..n_owners.min(n_agents) {
            let root = farm.path(&format!("root{n}"));
            fs::create_dir_all(root.join("dev/pts")).unwrap();
            let settings = format!(
                "mode = \"idle\"\nclaim_after = \"100ms\"\nidle_after = \"2s\"\nsystem_root = \"{}\"\n",
                root.display()
            );
            farm.agent_settings.insert(n, settings);
            farm.start_agent(n);
        }
        let names: &[&str] = if all { &["cpp", "rust"] } else { &["cpp"] };
        let clients: Vec<_> = names.iter().map(|name| Arc::new(farm.second_client(name))).collect();
        let disks = if all { small_disks(&mut farm, n_agents - 1, &clients[0]) } else { None };
        farm.wait_for_agents(n_agents);
        let killed = vec![Vec::new(); n_agents];
        let mut world = Self { farm, clients, disks, killed, in_memory: BTreeSet::new() };
        world.note_memory();
        world
    }

    pub(super) fn has_small_disks(&self) -> bool {
        self.disks.is_some()
    }

    /// Does it, and says what is wrong with how the farm took it.
    pub(super) fn apply(&mut self, deed: &Deed) -> Result<(), String> {
        match deed.fault {
            Fault::AgentKilled | Fault::AgentLost | Fault::AgentSpoiled | Fault::AgentStopped => {
                return self.take_agent_down(deed);
            }
            Fault::AgentFrozen | Fault::AgentSuspended => self.freeze_agent(deed),
            Fault::OwnerBack | Fault::KeyPressed => self.owner(deed),
            Fault::SandboxKilled | Fault::CompilerKilled => self.kill_below(deed),
            Fault::StoreFlipped => {
                flip(&[self.desk(deed.n).join("store")], &mut Rng::with_seed(deed.seed), true);
            }
            Fault::CacheFlipped => self.flip_cache(deed),
            Fault::DiskFull => self.disk(1, deed.step)?,
            Fault::CacheFull => self.disk(0, deed.step)?,
            Fault::CoordinatorKilled => match deed.step {
                Step::Begin => drop(self.farm.coordinator.take()),
                Step::End => self.farm.start_coordinator(),
            },
            Fault::CoordinatorFrozen => {
                if let Some(coordinator) = &self.farm.coordinator {
                    coordinator.signal(stop_or_go(deed.step));
                }
            }
            Fault::DaemonKilled | Fault::DaemonFrozen => self.daemon(deed),
            Fault::AgentCut => self.set_link(&format!("desk{}", deed.n), deed.step),
            Fault::CoordinatorCut => self.set_link("coordinator", deed.step),
            Fault::ClientsCut => self.set_link("laptop", deed.step),
            Fault::ClientsApart => {
                if let Some(network) = self.farm.network() {
                    network.set_apart("laptop", "coordinator", deed.step == Step::Begin);
                }
            }
        }
        Ok(())
    }

    /// Nothing ends that was not ended.
    pub(super) fn all_there(&mut self) -> Result<(), String> {
        let processes = self.farm.coordinator.iter_mut().chain(self.farm.agents.iter_mut().flatten());
        let ended: Vec<_> = processes.filter_map(|process| process.has_ended().then(|| process.name.clone())).collect();
        if ended.is_empty() { Ok(()) } else { Err(format!("ended by themselves: {ended:?}")) }
    }

    fn desk(&self, n: usize) -> PathBuf {
        self.farm.path(&format!("desk{n}"))
    }

    fn take_agent_down(&mut self, deed: &Deed) -> Result<(), String> {
        let n = deed.n;
        if deed.step == Step::Begin {
            let Some(mut agent) = self.farm.agents[n].take() else { return Ok(()) };
            self.killed[n] = processes::tree(agent.pid()).into_iter().filter_map(Known::of).collect();
            if deed.fault == Fault::AgentStopped && !agent.end(STOP_DEADLINE) {
                return Err(format!("desk{n} did not end when it was told to"));
            }
            return Ok(());
        }
        let left = still_there(&self.killed[n]);
        if !left.is_empty() {
            return Err(format!("desk{n} was taken down, and these live on: {left:?}"));
        }
        let folders = [self.desk(n).join("store"), self.desk(n).join("toolchains")];
        match deed.fault {
            Fault::AgentLost => folders.iter().for_each(|folder| drop(fs::remove_dir_all(folder))),
            Fault::AgentSpoiled => flip(&folders, &mut Rng::with_seed(deed.seed), false),
            _ => {}
        }
        self.farm.start_agent(n);
        self.note_memory();
        Ok(())
    }

    /// Each agent holds a lock in its folder in memory.
    fn note_memory(&mut self) {
        for agent in self.farm.agents.iter().flatten() {
            let Ok(open) = fs::read_dir(format!("/proc/{}/fd", agent.pid())) else { continue };
            let files = open.flatten().filter_map(|link| fs::read_link(link.path()).ok());
            let ours = files.filter(|path| path.starts_with("/dev/shm") && path.ends_with("lock"));
            self.in_memory.extend(ours.filter_map(|path| path.parent().map(Path::to_owned)));
        }
    }

    fn freeze_agent(&self, deed: &Deed) {
        let Some(agent) = &self.farm.agents[deed.n] else { return };
        let signal = stop_or_go(deed.step);
        if deed.fault == Fault::AgentFrozen {
            return agent.signal(signal);
        }
        for pid in processes::tree(agent.pid()) {
            let _ = kill(pid, signal);
        }
    }

    fn owner(&self, deed: &Deed) {
        let file = self.desk(deed.n).join("owner-present");
        match (deed.fault, deed.step, &self.farm.agents[deed.n]) {
            (Fault::KeyPressed, _, Some(agent)) => agent.signal(Signal::SIGUSR1),
            (_, Step::Begin, _) => fs::write(file, "").unwrap(),
            (_, Step::End, _) => fs::remove_file(file).unwrap(),
        }
    }

    fn kill_below(&self, deed: &Deed) {
        let Some(agent) = &self.farm.agents[deed.n] else { return };
        let is_meant = |name: &str| match deed.fault {
            Fault::SandboxKilled => name.starts_with("buildbee-sandb") || name == "bwrap",
            _ => COMPILERS.contains(&name),
        };
        let below: Vec<_> =
            processes::tree(agent.pid()).into_iter().filter(|pid| is_meant(&processes::name(*pid))).collect();
        if let Some(pid) = Rng::with_seed(deed.seed).choice(&below) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }

    fn disk(&self, n: usize, step: Step) -> Result<(), String> {
        let Some(disk) = self.disks.as_ref().map(|disks| &disks[n]) else { return Ok(()) };
        match step {
            Step::Begin => disk.fill(),
            Step::End => disk.free().map_err(|error| format!("the filler: {error}"))?,
        }
        Ok(())
    }

    fn daemon(&self, deed: &Deed) {
        let signal = if deed.fault == Fault::DaemonKilled { Signal::SIGKILL } else { stop_or_go(deed.step) };
        if let Some(pid) = self.clients[deed.n].running_daemon() {
            let _ = kill(pid, signal);
        }
    }

    /// While a daemon uses it, or after the end of one, before the next.
    fn flip_cache(&self, deed: &Deed) {
        let (client, mut rng) = (&self.clients[deed.n], Rng::with_seed(deed.seed));
        let in_use = rng.bool();
        if !in_use && let Some(daemon) = client.running_daemon() {
            let known = Known::of(daemon);
            let _ = kill(daemon, Signal::SIGKILL);
            still_there(known.as_slice());
        }
        flip(&[client.folder.join("cache")], &mut rng, in_use);
    }

    fn set_link(&self, member: &str, step: Step) {
        if let Some(network) = self.farm.network() {
            network.set_link(member, step == Step::End);
        }
    }

    /// Takes the disks away, which the farm's folder can't go with.
    pub(super) fn unmount(&mut self) {
        self.disks = None;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn stop_or_go(step: Step) -> Signal {
    if step == Step::Begin { Signal::SIGSTOP } else { Signal::SIGCONT }
}

/// Those that do not end within the time that they have for it.
pub(super) fn still_there(known: &[Known]) -> Vec<String> {
    let started = Instant::now();
    loop {
        let left: Vec<String> = known.iter().filter(|known| known.is_there()).map(Known::to_string).collect();
        if left.is_empty() || started.elapsed() > GONE_DEADLINE {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Puts the agent's folder and the client's cache on disks of their own, before anything was built. Both start anew.
fn small_disks(farm: &mut Farm, n: usize, client: &Client) -> Option<[SmallDisk; 2]> {
    let cache = client.folder.join("cache");
    client.leave();
    fs::create_dir_all(&cache).unwrap();
    let of_client = SmallDisk::mount_at(&cache, CLIENT_DISK)?;
    farm.agents[n].take();
    let (place, aside) = (farm.path(&format!("desk{n}")), farm.path("aside"));
    fs::rename(&place, &aside).unwrap();
    fs::create_dir(&place).unwrap();
    let of_agent = SmallDisk::mount_at(&place, AGENT_DISK)?;
    for entry in fs::read_dir(&aside).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), place.join(entry.file_name())).unwrap();
    }
    farm.start_agent(n);
    Some([of_client, of_agent])
}

/// Flips bits in files of these folders: as another program would that writes to them while they are in use, else as a disk does, so that
/// nothing but the content shows it. What is in use stays as it is where it is linked into places in which programs run: such a machine
/// computes wrongly, and nobody can tell.
fn flip(folders: &[PathBuf], rng: &mut Rng, in_use: bool) {
    let (mut files, mut todo) = (Vec::new(), folders.to_vec());
    while let Some(folder) = todo.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.is_file()
                && meta.len() > 0
                && entry.file_name() != "format"
                && (meta.nlink() == 1 || !in_use)
            {
                files.push(entry.path());
            }
        }
    }
    files.sort_unstable();
    for _ in 0..rng.usize(1..=MAX_FLIPS) {
        if let Some(file) = rng.choice(&files) {
            // It may have gone meanwhile, or be nobody's to write.
            let _ = flip_in(file, rng, !in_use);
        }
    }
}

fn flip_in(path: &Path, rng: &mut Rng, secretly: bool) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let meta = file.metadata()?;
    let at = rng.u64(..meta.len().max(1));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ (1 << rng.u32(..8))], at)?;
    if secretly {
        file.set_times(FileTimes::new().set_modified(meta.modified()?).set_accessed(meta.accessed()?))?;
    }
    Ok(())
}
