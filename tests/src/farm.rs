//! A farm of real processes: a coordinator, agents and one client, each with a folder of its own; on loopback ports, or each in a
//! network namespace.
//!
//! Everything ends with the [`Farm`]: processes are killed, the folder goes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, plain};
use crate::network::Network;
use crate::programs;
use crate::view::View;

/// A process of the farm is up within this time, on a busy machine too.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// What differs from farm to farm.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many agents.
    pub n_agents: usize,
    /// Slots of each.
    pub n_slots: usize,
    /// `local_slots` of the client.
    pub local_slots: usize,
    /// `racing` of the client.
    pub racing: &'static str,
    /// Settings file of all agents.
    pub agent_settings: &'static str,
}

impl Default for Options {
    /// Two agents with two slots, no local slots, no racing: what figures of offload are measured with.
    fn default() -> Self {
        Self { n_agents: 2, n_slots: 2, local_slots: 0, racing: "off", agent_settings: "" }
    }
}

/// A running process of the farm.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it was started as.
    pub name: String,
    log: PathBuf,
}

impl Process {
    fn start(mut command: Command, name: &str, folder: &Path) -> io::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Sends a signal; nothing where the process is gone.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid(), signal);
    }

    /// Kills it at once and waits for it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells it to end and waits for that; whether it did in time.
    pub fn end(&mut self, patience: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        let started = Instant::now();
        while !self.has_ended() {
            if started.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident size in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        self.kill();
    }
}

/// A coordinator, agents, and a client's folders.
#[derive(Debug)]
pub struct Farm {
    /// The client that most tests are about. Leaves first.
    pub laptop: Client,
    /// The coordinator; `None` while it is down.
    pub coordinator: Option<Process>,
    /// The agents; `None` where one is down.
    pub agents: Vec<Option<Process>>,
    /// How it was set up.
    pub options: Options,
    /// Settings of agents that are not dedicated, by number; they count at the agent's next start.
    pub agent_settings: BTreeMap<usize, String>,
    coordinator_address: String,
    coordinator_folder: PathBuf,
    programs: PathBuf,
    network: Option<Network>,
    folder: TempDir,
}

impl Farm {
    /// Starts a farm on loopback ports, joins a client, and waits until the client sees all agents.
    ///
    /// # Panics
    ///
    /// With the logs of all processes, when something does not come up.
    pub fn up(options: Options) -> Self {
        Self::start(options, None)
    }

    /// The same with every member in a network namespace of its own; `None` where this user may not make them.
    ///
    /// # Panics
    ///
    /// As [`up`](Self::up) does.
    pub fn up_in_namespaces(options: Options) -> Option<Self> {
        let mut network = Network::make()?;
        network.join("laptop");
        network.join("coordinator");
        for n in 0..options.n_agents {
            network.join(&format!("desk{n}"));
        }
        Some(Self::start(options, Some(network)))
    }

    fn start(options: Options, network: Option<Network>) -> Self {
        let programs = programs::folder();
        let folder = tempfile::Builder::new().prefix("bbfarm").tempdir().unwrap_or_else(|error| panic!("{error}"));
        let mut farm = Self {
            laptop: Client {
                folder: folder.path().join("client"),
                programs: programs.clone(),
                local_slots: options.local_slots,
                racing: options.racing,
                space: network.as_ref().map(|network| network.space("laptop")),
                view: None,
            },
            coordinator: None,
            agents: Vec::new(),
            coordinator_address: String::new(),
            coordinator_folder: folder.path().join("coordinator"),
            options,
            agent_settings: BTreeMap::new(),
            programs,
            network,
            folder,
        };
        farm.coordinator_address = farm.any_port("coordinator");
        make_folder(&farm.laptop.folder);
        farm.start_coordinator();
        for n in 0..farm.options.n_agents {
            farm.add_agent(n);
        }
        farm.join(&farm.laptop, "laptop");
        farm.wait_for_agents(farm.options.n_agents);
        farm
    }

    fn add_agent(&mut self, n: usize) {
        let (name, ticket) = (format!("desk{n}"), self.invite("agent"));
        let mut join = self.member(&name, "buildbee-agent");
        join.args(["join", &ticket, "--name", &name]).arg("--state-dir").arg(self.path(&name));
        self.must_run(&mut join);
        self.agents.push(None);
        self.start_agent(n);
    }

    /// A further client with folders and a daemon of its own.
    pub fn second_client(&self, name: &str) -> Client {
        self.client_seeing(name, None)
    }

    /// The same in a view of its own.
    pub fn client_seeing(&self, name: &str, view: Option<View>) -> Client {
        let client = Client {
            folder: self.path(name),
            programs: self.programs.clone(),
            local_slots: self.options.local_slots,
            racing: self.options.racing,
            space: self.laptop.space.clone(),
            view,
        };
        make_folder(&client.folder);
        self.join(&client, name);
        self.wait_for_agents_of(&client, self.options.n_agents);
        client
    }

    fn join(&self, client: &Client, name: &str) {
        let ticket = self.invite("client");
        self.must_run(client.command("buildbee").args(["join", &ticket, "--name", name]));
    }

    /// A path in the farm's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The network, where the members have namespaces.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// One of the programs, with nothing set.
    pub fn program(&self, name: &str) -> Command {
        plain(self.programs.join(name))
    }

    /// One of the programs as `member` runs it.
    fn member(&self, member: &str, program: &str) -> Command {
        match &self.network {
            None => self.program(program),
            Some(network) => {
                let mut command = plain("ip");
                command.args(["netns", "exec", &network.space(member)]).arg(self.programs.join(program));
                command
            }
        }
    }

    /// Where `member` listens before it has a port.
    fn any_port(&self, member: &str) -> String {
        let host = self.network.as_ref().map_or("127.0.0.1".to_owned(), |network| network.address(member));
        format!("{host}:0")
    }

    /// A command as the client runs it: `buildbee` is found in `PATH` and speaks to the farm's client daemon.
    pub fn client(&self, program: impl AsRef<OsStr>) -> Command {
        self.laptop.command(program)
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn must_run(&self, command: &mut Command) -> Output {
        let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(
            output.status.success(),
            "{command:?}: {}\n{}{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
        output
    }

    /// Where the coordinator listens.
    pub fn coordinator_address(&self) -> String {
        self.coordinator_address.clone()
    }

    /// A ticket for one newcomer.
    pub fn invite(&self, role: &str) -> String {
        let mut invite = self.member("coordinator", "buildbee-coordinator");
        invite
            .args(["invite", "--role", role, "--address", &self.coordinator_address])
            .arg("--state-dir")
            .arg(&self.coordinator_folder);
        String::from_utf8_lossy(&self.must_run(&mut invite).stdout).trim().to_owned()
    }

    /// Starts the coordinator, at the address it had before.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn start_coordinator(&mut self) {
        let ready = self.path("coordinator.ready");
        let _ = fs::remove_file(&ready);
        let mut serve = self.member("coordinator", "buildbee-coordinator");
        serve.args(["serve", "--no-mdns", "--status", "127.0.0.1:0", "--listen", &self.coordinator_address]);
        serve.arg("--state-dir").arg(&self.coordinator_folder).arg("--ready-file").arg(&ready);
        let process =
            Process::start(serve, "coordinator", self.folder.path()).unwrap_or_else(|error| panic!("{error}"));
        self.coordinator = Some(process);
        let document = self.wait_for_file(&ready);
        if let Some(address) = document["addresses"][0].as_str() {
            address.clone_into(&mut self.coordinator_address);
        }
    }

    /// From now on the coordinator is the one in `folder`, on another port. It is not started.
    pub fn move_coordinator(&mut self, folder: &Path) {
        self.coordinator = None;
        folder.clone_into(&mut self.coordinator_folder);
        self.coordinator_address = self.any_port("coordinator");
    }

    /// The coordinator's command line, for its folder.
    pub fn coordinator_command(&self, words: &[&str]) -> Command {
        let mut command = self.member("coordinator", "buildbee-coordinator");
        command.args(words).arg("--state-dir").arg(&self.coordinator_folder);
        command
    }

    /// Starts (or starts again) an agent.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn start_agent(&mut self, n: usize) {
        self.start_agent_with(n, &[]);
    }

    /// The same with further arguments; what it wrote into its ready file.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn start_agent_with(&mut self, n: usize, arguments: &[&str]) -> Value {
        self.agents[n] = None;
        let name = format!("desk{n}");
        let ready = self.path(&format!("{name}.ready"));
        let _ = fs::remove_file(&ready);
        let mut serve = self.member(&name, "buildbee-agent");
        serve.args(["serve", "--no-mdns", "--listen", &self.any_port(&name)]);
        let of_its_own = self.agent_settings.get(&n);
        if of_its_own.is_none() {
            serve.args(["--mode", "dedicated"]);
        }
        serve.args(["--slots", &self.options.n_slots.to_string()]).args(arguments);
        serve.arg("--state-dir").arg(self.path(&name)).arg("--ready-file").arg(&ready);
        let settings = self.path(&format!("{name}.toml"));
        let text = of_its_own.map_or(self.options.agent_settings, String::as_str);
        fs::write(&settings, text).unwrap_or_else(|error| panic!("{}: {error}", settings.display()));
        serve.arg("--config").arg(settings);
        // A line for each action, which tests count.
        serve.env("BUILDBEE_LOG", "info,libp2p_swarm=warn,buildbee_agent::executor::logged=debug");
        let process = Process::start(serve, &name, self.folder.path()).unwrap_or_else(|error| panic!("{error}"));
        self.agents[n] = Some(process);
        self.wait_for_file(&ready)
    }

    /// Waits until the client is connected to `n` agents and the coordinator.
    pub fn wait_for_agents(&self, n: usize) {
        self.wait_for_agents_of(&self.laptop, n);
    }

    fn wait_for_agents_of(&self, client: &Client, n: usize) {
        self.wait("agents", || {
            let status = client.json(&["status"]);
            let agents = status["farm"]["agents"].as_array().cloned().unwrap_or_default();
            agents.iter().filter(|agent| agent["connected"] == true && agent["slots"].as_u64() > Some(0)).count() == n
        });
    }

    /// Waits until `done`.
    ///
    /// # Panics
    ///
    /// With all logs, when it does not come in half a minute.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < START_DEADLINE, "{what} did not come:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for_file(&self, path: &Path) -> Value {
        let mut document = Value::Null;
        self.wait(&path.display().to_string(), || {
            let text = fs::read_to_string(path).unwrap_or_default();
            document = serde_json::from_str(&text).unwrap_or(Value::Null);
            !document.is_null()
        });
        document
    }

    /// A document of the client's command line.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.must_run(self.client("buildbee").args(words).arg("--json"));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// `stats`, as (cached, remote, local).
    pub fn counts(&self) -> (u64, u64, u64) {
        self.laptop.counts()
    }

    /// Process id of the client's daemon.
    pub fn daemon_pid(&self) -> Pid {
        self.laptop.daemon_pid()
    }

    /// What agent `n` has said, in whatever process, without colours.
    pub fn log_of(&self, n: usize) -> String {
        let log = fs::read_to_string(self.path(&format!("desk{n}.log"))).unwrap_or_default();
        let mut parts = log.split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
    }

    /// What every process has said.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for process in self.coordinator.iter().chain(self.agents.iter().flatten()) {
            // Writing to a String cannot fail.
            let _ = writeln!(all, "--- {}\n{}", process.name, process.log());
        }
        let _ = write!(all, "--- daemon\n{}", self.laptop.log());
        all
    }
}

fn make_folder(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let made = fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)));
    made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
