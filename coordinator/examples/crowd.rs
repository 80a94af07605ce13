//! What a coordinator costs with ten thousand agents and a thousand clients: a process with codec, scheduler and its task, and no sockets; calls come
//! through a pipe from another one that plays everybody.
//!
//! Prints memory and processor time of that process, and how long answers took, queue included; then how long decisions take, without a queue.
//! `cargo run --release -p buildbee-coordinator --example crowd [AGENTS CLIENTS SECONDS]`; run by tests/bench/coordinator.

#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::error::Error;
use std::io::{BufReader, BufWriter, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buildbee_coordinator::offer::sanitise;
use buildbee_coordinator::roster_log::RosterLog;
use buildbee_coordinator::scheduler::actor;
use buildbee_coordinator::scheduler::core::{Core, Effect, Event};
use buildbee_coordinator::scheduler::handle::SchedulerHandle;
use buildbee_proto::codec::{FRAME_HEADER_BYTES, body_length, from_body, to_frame};
use buildbee_proto::control::{
    AgentState, Class, ClientState, ControlAnswer, ControlCall, ControlReply, ControlRequest, Offer,
};
use buildbee_proto::digest::Digest;
use buildbee_proto::lease::{SlotReport, SlotToken};
use buildbee_proto::listing::Listing;
use buildbee_proto::membership::{Roster, Signed};
use buildbee_proto::peer::{PeerId, Role, Signature};
use buildbee_proto::roster_news::RosterNews;
use buildbee_proto::toolchain::ToolchainId;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Slots of each agent, and for how long everybody is there before it counts.
const N_SLOTS: u64 = 8;
const WARM_UP: Duration = Duration::from_secs(12);
const DECIDED: Duration = Duration::from_secs(42);
/// How often an agent lends more or less, a client has another wish, a machine starts anew, somebody joins the farm; in seconds.
const LENDS_ANEW_S: u64 = 300;
const WISHES_ANEW_S: u64 = 20;
const STARTS_ANEW_S: u64 = 3_600;
const JOINS_S: u64 = 5;
const N_TOOLCHAINS: u64 = 40;
/// Calls that are answered at a time: what is on its way to sockets is not to be measured here.
const MAX_ANSWERING: usize = 64;

/// What a message is, behind the number of the party that it is of.
const CALL: u8 = 0;
const GONE: u8 = 1;
const JOINED: u8 = 2;
const MEASURE: u8 = 3;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u32| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    if arguments.first().is_some_and(|word| word == "--serve") {
        return serve(number(1, 0), number(2, 0));
    }
    let (n_agents, n_clients) = (number(0, 10_000), number(1, 1_000));
    drive(n_agents, n_clients, Duration::from_secs(number(2, 30).into()))?;
    decide(n_agents, n_clients)
}

fn peer(n: u32) -> PeerId {
    PeerId(Digest::of(&n.to_le_bytes()).hash)
}

// The coordinator's process.

fn line_of_status(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// User and system time, of 100 ticks a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Durations in steps of 5 µs.
#[derive(Debug)]
struct Histogram(Vec<u32>);

impl Histogram {
    const STEP_US: usize = 5;

    fn note(&mut self, took: Duration) {
        let at = usize::try_from(took.as_micros()).unwrap_or(usize::MAX) / Self::STEP_US;
        let at = at.min(self.0.len() - 1);
        self.0[at] += 1;
    }

    fn at_permille(&self, permille: u64) -> String {
        let all: u64 = self.0.iter().map(|n| u64::from(*n)).sum();
        let mut left = all * permille / 1_000;
        for (at, n) in self.0.iter().enumerate() {
            if left <= u64::from(*n) {
                return format!("{} µs", (at + 1) * Self::STEP_US);
            }
            left -= u64::from(*n);
        }
        "?".to_owned()
    }

    fn line(&self) -> String {
        let n: u32 = self.0.iter().sum();
        let [half, most, nearly_all] = [500, 990, 999].map(|permille| self.at_permille(permille));
        format!("{n} calls, median {half}, p99 {most}, p99.9 {nearly_all}")
    }
}

struct Served {
    scheduler: SchedulerHandle,
    roster: Arc<Signed<Roster>>,
    log: RosterLog,
    clients: Histogram,
    agents: Histogram,
    since: (Instant, Duration),
    n_out_bytes: u64,
}

fn roster(version: u64, members: Vec<(PeerId, Role)>) -> Arc<Signed<Roster>> {
    let value = Roster { farm: PeerId([7; 32]), version, members, revoked: vec![] };
    Arc::new(Signed { value, signature: Signature([7; 64]), warrant: None })
}

type Arrived = (u32, u8, Vec<u8>);

fn read(mut input: impl Read) -> Option<Arrived> {
    let mut head = [0; 5 + FRAME_HEADER_BYTES];
    input.read_exact(&mut head).ok()?;
    let [a, b, c, d, kind, frame @ ..] = head;
    let mut body = vec![0; body_length::<ControlRequest>(frame).ok()?];
    input.read_exact(&mut body).ok()?;
    Some((u32::from_le_bytes([a, b, c, d]), kind, body))
}

fn serve(n_agents: u32, n_clients: u32) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (arrive, arrived) = mpsc::channel::<Arrived>(256);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(1 << 16, std::io::stdin().lock());
        while let Some(one) = read(&mut input) {
            if arrive.blocking_send(one).is_err() {
                return;
            }
        }
    });
    let (leave, mut leaving) = mpsc::channel::<(u32, Vec<u8>)>(MAX_ANSWERING);
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut output = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        while let Some((party, frame)) = leaving.blocking_recv() {
            output.write_all(&party.to_le_bytes())?;
            output.write_all(&frame)?;
            if leaving.is_empty() {
                output.flush()?;
            }
        }
        output.flush()
    });
    let mut members: Vec<(PeerId, Role)> = (0..n_agents).map(|n| (peer(n), Role::Agent)).collect();
    members.extend((n_agents..n_agents + n_clients).map(|n| (peer(n), Role::Client)));
    members.sort_unstable();
    runtime.block_on(take_calls(arrived, leave, members));
    Ok(())
}

async fn take_calls(
    mut arrived: mpsc::Receiver<Arrived>,
    leave: mpsc::Sender<(u32, Vec<u8>)>,
    mut members: Vec<(PeerId, Role)>,
) {
    let (actor, scheduler) = actor::new();
    tokio::spawn(actor.run(CancellationToken::new()));
    let empty = || Histogram(vec![0; 40_000]);
    let served = Arc::new(Mutex::new(Served {
        scheduler: scheduler.clone(),
        roster: roster(1, members.clone()),
        log: RosterLog::default(),
        clients: empty(),
        agents: empty(),
        since: (Instant::now(), Duration::ZERO),
        n_out_bytes: 0,
    }));
    let answering = Arc::new(Semaphore::new(MAX_ANSWERING));
    while let Some((party, kind, body)) = arrived.recv().await {
        match kind {
            CALL => {
                let Ok(permit) = Arc::clone(&answering).acquire_owned().await else { return };
                let (served, leave) = (Arc::clone(&served), leave.clone());
                tokio::spawn(async move {
                    if let Some(frame) = answer(&served, party, &body).await {
                        // An error means that the other side has had enough.
                        let _ = leave.send((party, frame)).await;
                    }
                    drop(permit);
                });
            }
            GONE => drop(scheduler.gone(peer(party)).await),
            JOINED => {
                let newcomer = (peer(party), Role::Client);
                let at = members.partition_point(|member| *member < newcomer);
                members.insert(at, newcomer);
                if let Ok(mut served) = served.lock() {
                    served.roster = roster(served.roster.value.version + 1, members.clone());
                }
            }
            _ => report(&served, &scheduler).await,
        }
    }
}

async fn answer(served: &Mutex<Served>, party: u32, body: &[u8]) -> Option<Vec<u8>> {
    let request = from_body::<ControlRequest>(body).ok()?;
    let caller = peer(party);
    let scheduler = served.lock().ok()?.scheduler.clone();
    let news = |held: u64| {
        let mut served = served.lock().ok()?;
        let roster = Arc::clone(&served.roster);
        served.log.news(&roster, held)
    };
    let began = Instant::now();
    let (answer, is_client) = match request.body {
        ControlCall::Agent(state) => {
            let roster = news(state.roster_version);
            let state = AgentState { offer: sanitise(state.offer, caller, None), ..state };
            let mut desired = scheduler.agent(caller, state).await.ok()?;
            desired.roster = roster;
            (ControlAnswer::Agent(desired), false)
        }
        ControlCall::Client(state) => {
            let roster = news(state.roster_version);
            let mut desired = scheduler.client(caller, state).await.ok()?;
            desired.roster = roster;
            (ControlAnswer::Client(desired), true)
        }
    };
    let took = began.elapsed();
    let frame = to_frame(&ControlReply { id: request.id, body: answer }).ok()?;
    let mut served = served.lock().ok()?;
    served.n_out_bytes += frame.len() as u64;
    if is_client {
        served.clients.note(took);
    } else {
        served.agents.note(took);
    }
    Some(frame)
}

/// Of the time since it was last asked for.
#[expect(clippy::print_stderr, reason = "standard output carries the answers")]
async fn report(served: &Mutex<Served>, scheduler: &SchedulerHandle) {
    let Ok(counts) = scheduler.counts().await else { return };
    let Ok(mut served) = served.lock() else { return };
    let (began, before) = served.since;
    let (lasted, used) = (began.elapsed(), processor_time().saturating_sub(before));
    let share = 100.0 * used.as_secs_f64() / lasted.as_secs_f64();
    let kib = served.n_out_bytes / 1024 / lasted.as_secs().max(1);
    eprintln!("  {counts:?}");
    eprintln!("  resident {} (at most {})", line_of_status("VmRSS"), line_of_status("VmHWM"));
    eprintln!("  {share:.1} % of a core over {} s, {kib} KiB/s answered", lasted.as_secs());
    eprintln!("  answers to clients, queue included: {}", served.clients.line());
    eprintln!("  answers to agents, queue included: {}", served.agents.line());
    served.clients.0.fill(0);
    served.agents.0.fill(0);
    served.n_out_bytes = 0;
    served.since = (Instant::now(), processor_time());
}

// Everybody else.

/// Numbers that follow from each other: a run is like any other run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % n.max(1)
    }

    fn below_u32(&mut self, n: u64) -> u32 {
        u32::try_from(self.below(n)).unwrap_or(u32::MAX)
    }
}

enum Party {
    Agent { state: AgentState, next_counter: u64 },
    Client(ClientState),
}

fn toolchains(draw: &mut Draw, n: usize) -> Vec<ToolchainId> {
    let one = |draw: &mut Draw| ToolchainId(Digest::of(&draw.below(N_TOOLCHAINS).to_le_bytes()));
    let mut toolchains: Vec<ToolchainId> = (0..n).map(|_| one(draw)).collect();
    toolchains.sort_unstable();
    toolchains.dedup();
    toolchains
}

fn slots(agent: PeerId, boot_id: u64, counters: std::ops::Range<u64>) -> Vec<SlotReport> {
    let token = |counter| SlotToken { agent, boot_id, counter };
    counters
        .map(|counter| SlotReport { token: token(counter), dealt_to: None, expires_in_ms: 0, busy: false })
        .collect()
}

impl Party {
    fn agent(n: u32, draw: &mut Draw) -> Self {
        let offer = Offer {
            name: format!("desk-{n}.example.com"),
            host: "x86_64-linux".to_owned(),
            n_cores: 16,
            memory_bytes: 32 << 30,
            toolchains: toolchains(draw, 5),
            addresses: vec![format!("10.{}.{}.{}:7471", n >> 16, (n >> 8) & 255, n & 255)],
            ..Offer::default()
        };
        let slots = slots(peer(n), 1, 0..N_SLOTS);
        Self::Agent { state: AgentState { offer, slots, roster_version: 1, listing: 0 }, next_counter: N_SLOTS }
    }

    fn client(draw: &mut Draw) -> Self {
        let class = if draw.below(4) == 0 { Class::Batch } else { Class::Interactive };
        let (toolchains, held) = (toolchains(draw, 2), vec![]);
        Self::Client(ClientState { n_wanted: 0, toolchains, held, roster_version: 1, class, listing: 0 })
    }

    /// What changes by itself from one call to the next. Whether it starts anew.
    fn live(&mut self, n: u32, draw: &mut Draw) -> bool {
        let heartbeats = |seconds: u64| seconds / 2;
        match self {
            Self::Agent { state, next_counter } => {
                state.offer.load_percent = draw.below_u32(100);
                state.offer.memory_free_bytes = draw.below(32 << 30);
                for slot in &mut state.slots {
                    slot.busy = slot.dealt_to.is_some() && draw.below(3) != 0;
                }
                if draw.below(heartbeats(STARTS_ANEW_S)) == 0 {
                    state.slots = slots(peer(n), draw.below(u64::MAX), 0..N_SLOTS);
                    state.listing = 0;
                    *next_counter = N_SLOTS;
                    return true;
                }
                if draw.below(heartbeats(LENDS_ANEW_S)) == 0 {
                    let n_lent = draw.below(N_SLOTS + 1);
                    let boot_id = state.slots.first().map_or(1, |slot| slot.token.boot_id);
                    state.slots = slots(peer(n), boot_id, *next_counter..*next_counter + n_lent);
                    *next_counter += n_lent;
                }
            }
            Self::Client(state) => {
                if draw.below(heartbeats(WISHES_ANEW_S)) == 0 {
                    state.n_wanted = if draw.below(3) == 0 { 0 } else { draw.below_u32(200) };
                }
            }
        }
        false
    }

    fn call(&self) -> ControlCall {
        match self {
            Self::Agent { state, .. } => ControlCall::Agent(state.clone()),
            Self::Client(state) => ControlCall::Client(state.clone()),
        }
    }

    /// Takes an answer over. When to call next.
    fn hear(&mut self, answer: ControlAnswer) -> Outcome<Duration> {
        let next = match (self, answer) {
            (Self::Agent { state, next_counter }, ControlAnswer::Agent(desired)) => {
                for slot in &mut state.slots {
                    let dealt = desired.dealt.iter().find(|(token, _)| *token == slot.token).map(|(_, client)| *client);
                    if slot.dealt_to.is_some() && dealt.is_none() {
                        slot.token.counter = *next_counter;
                        *next_counter += 1;
                    }
                    slot.dealt_to = dealt;
                    slot.expires_in_ms = if dealt.is_some() { desired.deal_for_ms } else { 0 };
                }
                learn(&mut state.listing, desired.peers)?;
                turn(&mut state.roster_version, desired.roster);
                desired.next_call_ms
            }
            (Self::Client(state), ControlAnswer::Client(desired)) => {
                state.held = desired.leases.iter().map(|lease| lease.token).collect();
                learn(&mut state.listing, desired.agents)?;
                turn(&mut state.roster_version, desired.roster);
                desired.next_call_ms
            }
            _ => return Err("an answer to something else".into()),
        };
        Ok(Duration::from_millis(next.into()))
    }
}

fn learn(number: &mut u64, listing: Option<Listing>) -> Outcome<()> {
    let Some(listing) = listing else { return Ok(()) };
    if listing.after != 0 && listing.after != *number {
        return Err("a listing goes on from another".into());
    }
    *number = listing.number;
    Ok(())
}

fn turn(version: &mut u64, news: Option<RosterNews>) {
    match news {
        Some(RosterNews::Change(change)) => *version = change.to,
        Some(RosterNews::Whole(_)) => *version += 1,
        None => {}
    }
}

/// This thread's processor time: what else the machine does is not in it.
fn thread_time() -> Outcome<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Processor time that each step of the scheduler takes, one after the other in virtual time, decoding and encoding aside.
fn decide(n_agents: u32, n_clients: u32) -> Outcome<()> {
    let mut draw = Draw(2);
    let mut parties: Vec<Party> = (0..n_agents).map(|n| Party::agent(n, &mut draw)).collect();
    parties.extend((0..n_clients).map(|_| Party::client(&mut draw)));
    let mut due: BinaryHeap<(Reverse<Duration>, u32)> =
        (0..n_agents + n_clients).map(|n| (Reverse(Duration::from_millis(draw.below(4_000))), n)).collect();
    let mut core = Core::new();
    let (mut clients, mut agents) = (Histogram(vec![0; 40_000]), Histogram(vec![0; 40_000]));
    while let Some((Reverse(now), n)) = due.pop().filter(|(Reverse(now), _)| *now < DECIDED) {
        let party = &mut parties[n as usize];
        if party.live(n, &mut draw) {
            core.step(now, Event::Gone { peer: peer(n) });
        }
        let (event, times) = match party.call() {
            ControlCall::Agent(state) => (Event::AgentSync { peer: peer(n), state }, &mut agents),
            ControlCall::Client(state) => (Event::ClientSync { peer: peer(n), state }, &mut clients),
        };
        let began = thread_time()?;
        let effects = core.step(now, event);
        if now > WARM_UP {
            times.note(thread_time()?.saturating_sub(began));
        }
        for effect in effects {
            let answer = match effect {
                Effect::ReplyAgent { desired, .. } => ControlAnswer::Agent(desired),
                Effect::ReplyClient { desired, .. } => ControlAnswer::Client(desired),
            };
            due.push((Reverse(now + party.hear(answer)?), n));
        }
    }
    println!("decisions alone, processor time, {} s of virtual time:", DECIDED.saturating_sub(WARM_UP).as_secs());
    println!("  for clients: {}\n  for agents: {}", clients.line(), agents.line());
    Ok(())
}

fn coordinator(n_agents: u32, n_clients: u32) -> Outcome<Child> {
    Ok(Command::new(std::env::current_exe()?)
        .args(["--serve".to_owned(), n_agents.to_string(), n_clients.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?)
}

/// Hands on what the coordinator answers.
fn listen(mut input: impl Read, heard: &std::sync::mpsc::SyncSender<(u32, ControlReply)>) -> Option<()> {
    let mut head = [0; 4 + FRAME_HEADER_BYTES];
    loop {
        input.read_exact(&mut head).ok()?;
        let [a, b, c, d, frame @ ..] = head;
        let mut body = vec![0; body_length::<ControlReply>(frame).ok()?];
        input.read_exact(&mut body).ok()?;
        heard.send((u32::from_le_bytes([a, b, c, d]), from_body(&body).ok()?)).ok()?;
    }
}

fn drive(n_agents: u32, n_clients: u32, measured: Duration) -> Outcome<()> {
    println!("{n_agents} agents, {n_clients} clients");
    let mut child = coordinator(n_agents, n_clients)?;
    let mut output = BufWriter::with_capacity(1 << 16, child.stdin.take().ok_or("no pipe")?);
    let input = BufReader::with_capacity(1 << 16, child.stdout.take().ok_or("no pipe")?);
    let (heard, hear) = std::sync::mpsc::sync_channel(1 << 14);
    std::thread::spawn(move || listen(input, &heard));
    let mut draw = Draw(1);
    let mut parties: Vec<Party> = (0..n_agents).map(|n| Party::agent(n, &mut draw)).collect();
    parties.extend((0..n_clients).map(|_| Party::client(&mut draw)));
    let n_parties = n_agents + n_clients;
    let start = Instant::now();
    let mut due: BinaryHeap<(Reverse<Duration>, u32)> =
        (0..n_parties).map(|n| (Reverse(Duration::from_millis(draw.below(4_000))), n)).collect();
    let (mut n_joined, mut is_measured) = (0, false);
    let empty = [0; FRAME_HEADER_BYTES];
    loop {
        std::thread::sleep(Duration::from_micros(500));
        let now = start.elapsed();
        while let Ok((party, reply)) = hear.try_recv() {
            due.push((Reverse(now + parties[party as usize].hear(reply.body)?), party));
        }
        while let Some((_, n)) = due.peek().copied().filter(|(Reverse(at), _)| *at <= now) {
            due.pop();
            let party = &mut parties[n as usize];
            if party.live(n, &mut draw) {
                send(&mut output, n, GONE, &empty)?;
            }
            send(&mut output, n, CALL, &to_frame(&ControlRequest { id: 1, body: party.call() })?)?;
        }
        if now.as_secs() / JOINS_S > n_joined {
            n_joined += 1;
            send(&mut output, n_parties + u32::try_from(n_joined)?, JOINED, &empty)?;
        }
        let is_over = now >= WARM_UP + measured;
        if is_over || (!is_measured && now >= WARM_UP) {
            is_measured = true;
            println!("{}", if is_over { "then:" } else { "while they come:" });
            send(&mut output, 0, MEASURE, &empty)?;
        }
        output.flush()?;
        if is_over {
            break;
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn send(output: &mut impl Write, party: u32, kind: u8, frame: &[u8]) -> std::io::Result<()> {
    output.write_all(&party.to_le_bytes())?;
    output.write_all(&[kind])?;
    output.write_all(frame)
}
