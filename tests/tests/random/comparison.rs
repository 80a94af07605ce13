//! Runs each drawn command line in four ways, and makes a command line that fails as short as it goes.

use std::collections::HashMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use buildbee_tests::client::{Client, plain};
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::seen::{Seen, see};

use crate::corpus;
use crate::draw::{Draw, Drawing};

/// Enough for a fault that one in twenty command lines shows, and done within a minute.
const DRAWS: u64 = 60;

/// Who compiles, and where.
struct Bench {
    farm: Farm,
    /// A user whose machine has joined no farm.
    alone: Client,
    folder: PathBuf,
    /// What is known of the options that compilers take.
    tastes: HashMap<String, bool>,
}

/// What one way saw of another's.
struct Difference {
    way: &'static str,
    text: String,
}

impl Bench {
    fn new() -> Self {
        let farm = Farm::up(Options::default());
        let folder = farm.path("work");
        let alone = Client {
            folder: farm.path("alone"),
            programs: farm.laptop.programs.clone(),
            local_slots: 2,
            racing: "off",
            space: None,
            view: None,
        };
        fs::DirBuilder::new().mode(0o700).create(&alone.folder).unwrap();
        Self { farm, alone, folder, tastes: HashMap::new() }
    }

    /// Whether `compiler` compiles something with `option`.
    fn accepts(&mut self, compiler: &'static str, option: &[String]) -> bool {
        let folder = &self.folder;
        let key = format!("{compiler} {option:?}");
        *self.tastes.entry(key).or_insert_with(|| {
            corpus::restore(folder);
            let source = if compiler.ends_with("++") { "c.cc" } else { "plain.c" };
            let mut taste = plain(compiler);
            taste.args(option).args(["-c", source]).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
            taste.status().unwrap().success()
        })
    }

    fn run(&self, mut shell: Command, draw: &Draw, wrapper: &[&str]) -> Seen {
        corpus::restore(&self.folder);
        shell
            .args(["-c", "umask \"$0\"; exec \"$@\"", draw.umask])
            .args(wrapper)
            .arg(draw.compiler)
            .args(draw.arguments());
        shell.envs(draw.environment.iter().copied()).current_dir(&self.folder);
        see(&mut shell, &self.folder)
    }

    fn plainly(&self, draw: &Draw) -> Seen {
        self.run(plain("sh"), draw, &[])
    }

    /// The first way that differs from a plain run. `None` also where the compiler does not repeat itself.
    fn difference(&self, draw: &Draw) -> Option<Difference> {
        let expected = self.plainly(draw);
        let ways = [
            ("cold", &self.alone),
            ("cached", &self.alone),
            ("remote", &self.farm.laptop),
            ("cached remote", &self.farm.laptop),
        ];
        for (way, client) in ways {
            let found = self.run(client.command("sh"), draw, &["buildbee"]);
            if found != expected {
                let again = self.plainly(draw);
                if again != expected {
                    return None;
                }
                let explained = client.json(&["explain"])["actions"][0].to_string();
                return Some(Difference { way, text: format!("{}\n{explained}", told_apart(&expected, &found)) });
            }
        }
        None
    }

    /// Leaves options out while the difference stays.
    fn shrink(&self, mut draw: Draw, mut difference: Difference) -> (Draw, Difference) {
        let mut at = 0;
        while at < draw.options.len() {
            let mut shorter = draw.clone();
            shorter.options.remove(at);
            // What is in the caches by now may hide a difference of the first run.
            shorter.options.push(vec![format!("-DSHRUNK_{}_{at}", draw.options.len())]);
            let found = self.difference(&shorter);
            shorter.options.pop();
            match found {
                Some(found) => (draw, difference) = (shorter, found),
                None => at += 1,
            }
        }
        (draw, difference)
    }
}

fn told_apart(expected: &Seen, found: &Seen) -> String {
    let mut text =
        format!("status {:?} instead of {:?}\n", (found.code, found.signal), (expected.code, expected.signal));
    for (name, expected, found) in
        [("stdout", &expected.stdout, &found.stdout), ("stderr", &expected.stderr, &found.stderr)]
    {
        if expected != found {
            let _ = writeln!(text, "{name} was\n{found}\ninstead of\n{expected}");
        }
    }
    let names = expected.files.keys().chain(found.files.keys().filter(|name| !expected.files.contains_key(*name)));
    for name in names.filter(|name| expected.files.get(*name) != found.files.get(*name)) {
        let about =
            |seen: &Seen| seen.files.get(name).map(|(bytes, mode)| format!("{} bytes, mode {mode:o}", bytes.len()));
        let _ = writeln!(text, "{name}: {:?} instead of {:?}", about(found), about(expected));
    }
    text
}

fn number(variable: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how a run is repeated")]
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn drawn_command_lines_do_the_same_in_all_ways() {
    let seed = number("BUILDBEE_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let n_draws = number("BUILDBEE_TEST_DRAWS").unwrap_or(DRAWS);
    eprintln!("BUILDBEE_TEST_SEED={seed} BUILDBEE_TEST_DRAWS={n_draws}");
    let mut bench = Bench::new();
    let mut drawing = Drawing::new(seed);
    let mut failures = Vec::new();
    for n in 0..n_draws {
        let draw = drawing.next(|compiler, option| bench.accepts(compiler, option));
        if let Some(difference) = bench.difference(&draw) {
            let (draw, Difference { way, text }) = bench.shrink(draw, difference);
            eprintln!("draw {n}, {way}: {draw}\n{text}");
            failures.push(format!("{way}: {draw}"));
        }
    }
    let counts = (bench.alone.counts(), bench.farm.counts());
    eprintln!("(cached, remote, local): alone {:?}, over the farm {:?}", counts.0, counts.1);
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}\n{}", bench.farm.logs());
    // Not everything ran here: then nothing would have been compared.
    assert!(counts.0.0 * 4 > n_draws && counts.1.1 * 8 > n_draws, "{counts:?}");
}
