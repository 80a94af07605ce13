//! What a farm must not leave or gather: processes, mounts, files, temporary folders, memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use buildbee_tests::processes;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::builders::temporary;
use super::world::World;

/// What actions leave is gone this long after the last build, on a busy machine.
const IDLE_DEADLINE: Duration = Duration::from_secs(15);
/// Resident bytes that a process may have on top of what it had before the faults: caches in memory, which have bounds, and what the allocator
/// keeps.
const MAX_GROWTH_BYTES: u64 = 128 << 20;
/// The same for open files: connections, packs, streams that are kept.
const MAX_MORE_FILES: usize = 40;
/// Mounts of an agent's own.
const MAX_MORE_MOUNTS: usize = 4;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    resident_bytes: u64,
    n_files: usize,
    n_mounts: usize,
}

/// Of each process of the farm, by name.
pub(super) type Holdings = BTreeMap<String, Held>;

fn held(pid: Pid) -> Held {
    let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = text("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    let n_files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    Held { resident_bytes: kib * 1024, n_files, n_mounts: text("mountinfo").lines().count() }
}

/// What all hold now.
pub(super) fn holdings(world: &World) -> Holdings {
    let farm = &world.farm;
    let processes = farm.coordinator.iter().chain(farm.agents.iter().flatten());
    let mut all: Holdings = processes.map(|process| (process.name.clone(), held(process.pid()))).collect();
    for (n, client) in world.clients.iter().enumerate() {
        if let Some(pid) = client.running_daemon() {
            all.insert(format!("daemon{n}"), held(pid));
        }
    }
    all
}

/// Compares, and shows both.
pub(super) fn compare(before: &Holdings, after: &Holdings) -> (String, Vec<String>) {
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for (name, now) in after {
        let Some(first) = before.get(name) else { continue };
        let mib = |bytes: u64| bytes >> 20;
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "  {name:12} {:4} -> {:4} MiB, {:3} -> {:3} files, {:3} -> {:3} mounts",
            mib(first.resident_bytes),
            mib(now.resident_bytes),
            first.n_files,
            now.n_files,
            first.n_mounts,
            now.n_mounts
        );
        if now.resident_bytes > first.resident_bytes + MAX_GROWTH_BYTES
            || now.n_files > first.n_files + MAX_MORE_FILES
            || now.n_mounts > first.n_mounts + MAX_MORE_MOUNTS
        {
            wrong.push(format!("{name} has gathered too much: {first:?}, now {now:?}"));
        }
    }
    (table, wrong)
}

/// Waits until nothing of any action is left: no compiler, no folder of an action, no file that is being written.
pub(super) fn idle(world: &World) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let left = of_actions(world);
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > IDLE_DEADLINE {
            return Err(format!("left of actions: {left:#?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn of_actions(world: &World) -> Vec<String> {
    let mut left = Vec::new();
    for agent in world.farm.agents.iter().flatten() {
        for pid in processes::tree(agent.pid()) {
            let name = processes::name(pid);
            if ["cc1", "cc1plus", "as", "rustc", "gcc", "g++", "collect2", "ld"].contains(&name.as_str()) {
                left.push(format!("{}: {pid} {name}", agent.name));
            }
        }
        let desk = world.farm.path(&agent.name);
        for folder in ["work", "store/tmp"] {
            left.extend(entries(&desk.join(folder), &[]));
        }
    }
    for folder in &world.in_memory {
        left.extend(entries(folder, &["lock"]));
    }
    for client in &world.clients {
        left.extend(entries(&temporary(client), &[]));
        left.extend(entries(&client.folder.join("cache/tmp"), &[]));
    }
    left
}

fn entries(folder: &Path, known: &[&str]) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let unknown = entries.flatten().filter(|entry| !known.iter().any(|known| entry.file_name() == *known));
    unknown.map(|entry| entry.path().display().to_string()).collect()
}

/// What panicked, and what the logs say of it.
pub(super) fn panics(world: &World) -> Vec<String> {
    let mut logs = vec![world.farm.path("coordinator.log")];
    logs.extend((0..world.farm.options.n_agents).map(|n| world.farm.path(&format!("desk{n}.log"))));
    logs.extend(world.clients.iter().map(|client| client.folder.join("state/daemon.log")));
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    logs.iter()
        .flat_map(|path| {
            let text = read(path);
            let lines: Vec<&str> = text.lines().collect();
            let at = lines.iter().enumerate().filter(|(_, line)| line.contains("panicked at")).map(|(at, _)| at);
            at.map(|at| format!("{}: {}", path.display(), lines[at..lines.len().min(at + 2)].join(" ")))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Processes below this one, which orphans come to. Called when all that was started has been waited for.
pub(super) fn orphans() -> Vec<String> {
    let started = Instant::now();
    loop {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        let all = processes::tree(Pid::this());
        let left: Vec<String> = all[1..].iter().map(|pid| format!("{pid} {}", processes::name(*pid))).collect();
        if left.is_empty() || started.elapsed() > IDLE_DEADLINE {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Mounts of this namespace that name one of these.
pub(super) fn mounts(of: &[String]) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    all.lines().filter(|line| of.iter().any(|name| line.contains(name.as_str()))).map(str::to_owned).collect()
}
