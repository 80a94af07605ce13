//! What the run of a script was seen to use, by the recorder's log. Blocks.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use buildbee_proto::observed::{Observed, View, observe};
use buildbee_proto::path::RelPath;
use buildbee_proto::record::{Kind, records};
use memchr::memmem;

use super::super::crates::read_set::Seen;
use super::super::crates::seen::{above, is_scratch};
use super::plan::{ScriptPlan, is_passed};
use super::unsound::Unsound;

/// Folders that the system fills by itself.
const SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What of them a program may read without its result changing from run to run: what it is itself, what the machine has, nothing, and chance
/// (which nobody can see anyway).
const STEADY: [&str; 20] = [
    "/dev/fd",
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/shm",
    "/dev/stderr",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/self",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
];

/// gcc's compilers make a number of the time, which they use where nothing else tells two of their own names apart.
const ASK_BY_HABIT: (&str, [&str; 3]) = ("gettimeofday", ["cc1", "cc1plus", "lto1"]);

/// The name that every program refers to that can walk the environment: no other name ends so.
const ENVIRONMENT: &[u8] = b"environ\0";

/// Libraries of the C library's own, and of compilers': the first defines that name, the others look for their own variables.
const BASIC_LIBRARIES: [&str; 7] = ["ld-linux", "libc.", "libdl.", "libgcc_s.", "libm.", "libpthread.", "librt."];

impl ScriptPlan {
    /// From the log of its run, made by the library `recorder`.
    pub fn seen(&self, log: &[u8], recorder: &Path) -> Result<Seen, Unsound> {
        let passed = Passed::of(self, recorder);
        check(log, &passed)?;
        let ignored = |path: &RelPath| passed.over(&path.to_absolute());
        let link = |path: &RelPath| {
            fs::read_link(path.to_absolute()).ok().and_then(|target| target.into_os_string().into_string().ok())
        };
        let observed = observe(log, View { ignored: &ignored, link: &link }).map_err(Unsound::Unknown)?;
        if observed.network {
            return Err(Unsound::Network);
        }
        let mut seen = self.counting(&observed)?;
        let around = Around::of(self);
        seen.above |= records(log).filter_map(Result::ok).any(|(_, path)| around.is_led_to(path));
        self.add_programs(log, &mut seen);
        Ok(seen)
    }

    /// Whether it could have read any variable: it may walk the environment itself, or has started programs, which mostly can.
    pub fn could_walk(&self, log: &[u8], seen: &Seen) -> bool {
        let mut n_started = 0;
        for (kind, _) in records(log).filter_map(Result::ok) {
            match kind {
                Kind::Starting => n_started += 1,
                Kind::NotStarted => n_started -= 1,
                Kind::Walker => return true,
                _ => {}
            }
        }
        let refers = |path: &Path| fs::read(path).map_or(true, |text| memmem::find(&text, ENVIRONMENT).is_some());
        let is_library = |path: &&PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.contains(".so") && !BASIC_LIBRARIES.iter().any(|basic| name.starts_with(basic))
        };
        n_started > 0 || refers(&self.call.program) || seen.files.iter().filter(is_library).any(|path| refers(path))
    }

    fn counting(&self, observed: &Observed) -> Result<Seen, Unsound> {
        let mut seen = Seen::default();
        let above = above(&self.roots);
        let around = Around::of(self);
        let mut looked_above = |path: &Path| seen.above |= around.holds(path);
        for path in observed.files.iter().chain(&observed.seen).map(RelPath::to_absolute) {
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() => {
                    looked_above(&path);
                    seen.files.insert(path);
                }
                Ok(meta) if meta.is_dir() && !above.contains(path.as_path()) => {
                    looked_above(&path);
                    seen.there.insert(path);
                }
                Ok(meta) if meta.is_dir() => {}
                // A pipe, or a device: nobody knows what came out of it.
                Ok(_) => return Err(Unsound::System(path)),
                Err(_) => return Err(Unsound::Gone(path)),
            }
        }
        for path in observed.links.iter().map(RelPath::to_absolute) {
            if let Ok(target) = fs::read_link(&path) {
                looked_above(&path);
                seen.links.insert((path, target));
            }
        }
        for path in observed.absent.iter().map(RelPath::to_absolute) {
            looked_above(&path);
            seen.absent.insert(path);
        }
        seen.listed = observed.listed.iter().map(RelPath::to_absolute).collect();
        seen.above |= seen.listed.iter().any(|path| above.contains(path.as_path()) || around.holds(path));
        seen.env = observed.env.iter().filter(|name| !is_passed(name)).cloned().collect();
        Ok(seen)
    }

    /// Programs that were started: the log names the file that a name led to, and what counts is that it still leads there. A name without a
    /// slash was looked for in the folders of `PATH`, by the C library itself, which nobody sees.
    fn add_programs(&self, log: &[u8], seen: &mut Seen) {
        // What the wrapper itself starts, in a script that tries the compiler, is the compiler.
        let compiler = self.call.env.iter().find(|(name, _)| name == "RUSTC").map(|(_, value)| value.as_bytes());
        let names: BTreeSet<&[u8]> = records(log)
            .filter_map(Result::ok)
            .filter(|(kind, _)| *kind == Kind::Starting)
            .map(|(_, name)| name)
            .collect();
        let is_program =
            |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        for name in names.into_iter().chain(compiler) {
            let path = Path::new(OsStr::from_bytes(name));
            if path.is_absolute() {
                seen.files.extend(is_program(path).then(|| path.to_owned()));
            } else if !name.is_empty() && !name.contains(&b'/') && !name.iter().any(u8::is_ascii_whitespace) {
                for folder in std::env::split_paths(self.call.search()).filter(|folder| folder.is_absolute()) {
                    let candidate = folder.join(path);
                    if is_program(&candidate) {
                        seen.files.insert(candidate);
                        break;
                    }
                    seen.absent.extend(fs::symlink_metadata(&candidate).is_err().then_some(candidate));
                }
            }
        }
    }
}

/// Refuses what no read set can hold.
fn check(log: &[u8], passed: &Passed<'_>) -> Result<(), Unsound> {
    for record in records(log) {
        let (kind, content) = record.map_err(Unsound::Unknown)?;
        let path = Path::new(OsStr::from_bytes(content));
        match kind {
            Kind::Clock if !is_habit(content) => {
                return Err(Unsound::Clock(String::from_utf8_lossy(content).into_owned()));
            }
            Kind::Made | Kind::Removed | Kind::Taken if !is_systems(path) && !passed.may_change(path) => {
                return Err(Unsound::Wrote(path.to_owned()));
            }
            Kind::Read | Kind::Listed | Kind::Link if is_systems(path) && !is_steady(path) => {
                return Err(Unsound::System(path.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What stands around the folders that move from checkout to checkout: found from them, it is something else in each.
struct Around<'a> {
    /// Workspace and target folder, unless results hold real paths.
    moved: Vec<&'a Path>,
    above: BTreeSet<&'a Path>,
    /// Folders that the environment names, so that they are found from anywhere.
    anchors: Vec<PathBuf>,
}

impl<'a> Around<'a> {
    fn of(plan: &'a ScriptPlan) -> Self {
        let variable = |name: &str| {
            let value = plan.call.env.iter().find(|(known, _)| known == name);
            value.map(|(_, value)| PathBuf::from(value)).filter(|folder| folder.is_absolute())
        };
        let below_home = |name: &str| variable("HOME").map(|home| home.join(name));
        let homes = [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")];
        let homes = homes.into_iter().filter_map(|(name, below)| variable(name).or_else(|| below_home(below)));
        let programs = std::env::split_paths(plan.call.search()).filter(|folder| folder.is_absolute());
        Self {
            moved: plan.roots.iter().filter(|(_, real, place)| real != place).map(|(_, real, _)| real).collect(),
            above: above(&plan.roots),
            anchors: homes.chain(programs).collect(),
        }
    }

    fn is_moved(&self, path: &Path) -> bool {
        self.moved.iter().any(|folder| path.starts_with(folder))
    }

    /// Whether a path, in its simplest form, may have been found by going up.
    fn holds(&self, path: &Path) -> bool {
        let top = Path::new("/");
        let is_above = |folder: &&Path| *folder != top && path.starts_with(folder);
        let is_beside = || path.parent() == Some(top) && self.moved.iter().any(|folder| folder.parent() == Some(top));
        !self.is_moved(path)
            && !self.above.contains(path)
            && (self.above.iter().any(is_above) || is_beside())
            && !self.anchors.iter().any(|folder| path.starts_with(folder))
    }

    /// Whether a path as spelled leads from one of the folders out of all of them.
    fn is_led_to(&self, spelled: &[u8]) -> bool {
        let spelled = Path::new(OsStr::from_bytes(spelled));
        if !spelled.components().any(|part| part == Component::ParentDir) || !self.is_moved(spelled) {
            return false;
        }
        let mut simple = PathBuf::new();
        for part in spelled.components() {
            match part {
                Component::ParentDir => drop(simple.pop()),
                part => simple.push(part),
            }
        }
        !self.is_moved(&simple)
    }
}

/// `content` as in [`Kind::Clock`].
fn is_habit(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    let Some((function, program)) = text.split_once(' ') else { return false };
    let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
    function == ASK_BY_HABIT.0 && ASK_BY_HABIT.1.contains(&name)
}

fn is_systems(path: &Path) -> bool {
    SYSTEM.iter().any(|folder| path.starts_with(folder)) && !path.starts_with("/dev/shm")
}

/// Of the system's: other spellings than the plain one are not.
fn is_steady(path: &Path) -> bool {
    let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    let mut parts = path.strip_prefix("/proc").into_iter().flat_map(Path::iter);
    // Its own processes'.
    let is_process = parts.next().is_some_and(|part| part.as_bytes().iter().all(u8::is_ascii_digit));
    is_plain && (is_process || STEADY.iter().any(|steady| path.starts_with(steady)))
}

/// Paths that say nothing of what a result depends on.
struct Passed<'a> {
    plan: &'a ScriptPlan,
    /// `OUT_DIR` with symlinks resolved.
    out_dir: PathBuf,
    temporary: PathBuf,
    recorder: &'a Path,
}

impl<'a> Passed<'a> {
    fn of(plan: &'a ScriptPlan, recorder: &'a Path) -> Self {
        let out_dir = fs::canonicalize(&plan.out_dir).unwrap_or_else(|_| plan.out_dir.clone());
        Self { out_dir, temporary: plan.temporary(), recorder, plan }
    }

    /// Whether a path in its simplest form is the run's own.
    fn over(&self, path: &Path) -> bool {
        path == self.recorder
            || path == self.plan.call.program
            || path.starts_with(&self.plan.out_dir)
            || path.starts_with(&self.out_dir)
            || is_scratch(path, &self.temporary)
    }

    /// Whether a run may change what is at this path, in any spelling.
    fn may_change(&self, path: &Path) -> bool {
        let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        match fs::canonicalize(folder) {
            Ok(folder) => {
                let real = folder.join(name);
                (real.starts_with(&self.out_dir) && real != self.out_dir) || is_scratch(&real, &self.temporary)
            }
            // Gone since, with a folder of the run's own.
            Err(_) => is_plain && path != self.plan.out_dir && self.over(path),
        }
    }
}

impl ScriptPlan {
    /// Where the wrapper makes folders for temporary files.
    pub fn temporary(&self) -> PathBuf {
        let named = self.call.env.iter().find(|(name, _)| name == "TMPDIR").map(|(_, value)| PathBuf::from(value));
        named.filter(|folder| folder.is_absolute()).unwrap_or_else(|| PathBuf::from("/tmp"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_steady_or_not() {
        for path in ["/proc/self/maps", "/proc/12/status", "/proc/meminfo", "/dev/null", "/sys/fs/cgroup/cpu.max"] {
            assert!(is_systems(Path::new(path)) && is_steady(Path::new(path)), "{path}");
        }
        for path in ["/proc/uptime", "/proc/loadavg", "/sys/class/net", "/proc/self/../uptime", "/proc", "/dev/sda"] {
            assert!(is_systems(Path::new(path)) && !is_steady(Path::new(path)), "{path}");
        }
        assert!(!is_systems(Path::new("/dev/shm/x")) && !is_systems(Path::new("/process")));
    }

    #[test]
    fn what_is_found_by_going_up() {
        let moved = vec![Path::new("/home/a/w/app"), Path::new("/home/a/w/app/target")];
        let above = ["/home/a/w", "/home/a", "/home", "/"].map(Path::new).into();
        let around = Around { moved, above, anchors: vec!["/home/a/.cargo".into()] };
        for path in ["/home/a/w/x", "/home/a/w/other/x", "/home/a/.gitconfig", "/home/b"] {
            assert!(around.holds(Path::new(path)), "{path}");
        }
        for path in ["/home/a/w/app/x", "/home/a/w", "/home/a/.cargo/x", "/usr/include/x.h", "/x", "/"] {
            assert!(!around.holds(Path::new(path)), "{path}");
        }
        for (path, led) in [
            ("/home/a/w/app/../x", true),
            ("/home/a/w/app/sub/../../../../../opt/x", true),
            ("/home/a/w/app/sub/../x", false),
            ("/home/a/w/app/target/x/../../x", false),
            ("/usr/lib/../x", false),
        ] {
            assert_eq!(around.is_led_to(path.as_bytes()), led, "{path}");
        }
        let around = Around { moved: vec![Path::new("/app")], above: [Path::new("/")].into(), anchors: Vec::new() };
        assert!(around.holds(Path::new("/x")) && !around.holds(Path::new("/usr/x")));
    }

    #[test]
    fn compilers_ask_for_the_time_by_habit() {
        assert!(is_habit(b"gettimeofday /usr/lib/gcc/x86_64-linux-gnu/12/cc1"));
        for asked in ["time /usr/lib/gcc/x/12/cc1", "gettimeofday /bin/date", "clock_gettime /t/build-script", "time"] {
            assert!(!is_habit(asked.as_bytes()), "{asked}");
        }
    }
}
