//! A compiler out of a Nix store whose closure no agent has, on agents that have no `/nix/store`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use buildbee_tests::client::{Client, plain};
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::network::skipped;
use buildbee_tests::project::write_c;

/// Sources of the project.
const N_FILES: usize = 8;

/// A store in a folder of our own, with the wrapper that the project is built with, and another.
struct Store {
    folder: tempfile::TempDir,
    wrapper: String,
    bumped: String,
}

impl Store {
    /// Built by `nix-build` without a network; `None`, with a line on stderr, where that is not possible.
    fn build() -> Option<Self> {
        if let Some(tool) = ["nix-build", "patchelf", "bwrap"].iter().find(|tool| !is_there(tool)) {
            skipped(&format!("there is no {tool} here"));
            return None;
        }
        let folder = tempfile::Builder::new().prefix("bbnix").tempdir().unwrap();
        let mut build = plain("nix-build");
        build.arg("--store").arg(folder.path()).args(["--no-out-link", "-A", "wrapper", "-A", "bumped"]);
        for (name, value) in [
            ("sandbox", "true"),
            ("substitute", "false"),
            ("build-users-group", ""),
            ("sandbox-paths", "/usr /bin /lib /lib64 /var/lib/dpkg/info"),
        ] {
            build.args(["--option", name, value]);
        }
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/nix_store/toolchain.nix"));
        let built = build.env("HOME", folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&built.stdout).into_owned();
        let paths: Vec<&str> = said.lines().collect();
        let [wrapper, bumped] = paths.as_slice() else {
            skipped(&format!("nix-build can't make a closure here: {}", String::from_utf8_lossy(&built.stderr)));
            return None;
        };
        Some(Self { wrapper: (*wrapper).to_owned(), bumped: (*bumped).to_owned(), folder })
    }

    /// A shell in which the store stands at `/nix`, and all else is as it is here.
    fn shell(&self, client: &Client, script: &Path) -> Command {
        let mut shell = client.command("bwrap");
        for entry in fs::read_dir("/").unwrap().flatten() {
            let path = entry.path();
            match fs::read_link(&path) {
                Ok(target) => shell.arg("--symlink").arg(target).arg(&path),
                Err(_) if path == Path::new("/nix") => &mut shell,
                Err(_) => shell.arg("--dev-bind").arg(&path).arg(&path),
            };
        }
        shell.arg("--bind").arg(self.folder.path().join("nix")).arg("/nix").arg("sh").arg(script);
        shell.env("CC", &self.wrapper).env("BUMPED", &self.bumped).env("BUILDBEE", "strict");
        shell
    }
}

/// Nix itself, with everything of its own in `folder`, and no other cache than what is given.
fn nix_command(program: &str, folder: &Path) -> Command {
    let mut command = plain(program);
    command.env("HOME", folder).env("NIX_CONF_DIR", folder).args(["--option", "build-users-group", ""]);
    command
}

fn is_there(tool: &str) -> bool {
    plain("sh").args(["-c", &format!("command -v {tool} >/dev/null")]).status().is_ok_and(|status| status.success())
}

const SCRIPT: &str = r#"
set -eu
sent() { awk '/eth0/ { print $10 }' /proc/net/dev; }
object() { buildbee "$1" -O2 -Iinclude -c file$2.c -o $3; }
buildbee stop >/dev/null 2>&1 || true
for try in $(seq 100); do
  n=$(buildbee status --json | grep -o '"connected": *true' | wc -l)
  [ $n -lt 2 ] || break; sleep 0.1
done
nix-store -qR "$CC" | sort > closure
make -s CC="$CC/bin/cc" >plain.out 2>&1; mkdir plain; mv *.o *.d plain
buildbee stats --zero >/dev/null
sent > sent.0; object $CC/bin/cc 0 first.o; sent > sent.1
make -s -j4 CC="buildbee $CC/bin/cc" >farm.out 2>&1; sent > sent.2
buildbee stats --json > stats.farm
ln -s $CC profile
object $PWD/profile/bin/cc 0 first.o; buildbee stats --json > stats.profile
sent > sent.3; object $BUMPED/bin/cc 0 bumped.o; sent > sent.4
NIX_LIST=1 object $CC/bin/cc 1 listed.o 2> listed
export NIX_CFLAGS_COMPILE='-DOWN1=77 -w'
object $CC/bin/cc 1 flags.o; $CC/bin/cc -O2 -Iinclude -c file1.c -o flags.plain.o
buildbee stats --json > stats.end
buildbee stop >/dev/null
"#;

#[test]
fn a_nix_compiler_runs_where_there_is_no_store() {
    let Some(store) = Store::build() else { return };
    let farm = Farm::up_in_namespaces(Options::default()).unwrap_or_else(|| Farm::up(Options::default()));
    let project = farm.path("project");
    write_c(&project, N_FILES).unwrap();
    let script = farm.path("script");
    fs::write(&script, SCRIPT).unwrap();
    farm.must_run(store.shell(&farm.laptop, &script).current_dir(&project));
    let read = |name: &str| fs::read(project.join(name)).unwrap();
    for n in 0..N_FILES {
        for ending in ["o", "d"] {
            let name = format!("file{n}.{ending}");
            assert!(read(&name) == read(&format!("plain/{name}")), "{name} differs\n{}", farm.logs());
        }
    }
    assert!(read("flags.o") == read("flags.plain.o") && read("first.o") == read("bumped.o"));
    let stats = |name: &str| serde_json::from_slice::<serde_json::Value>(&read(name)).unwrap();
    let (made, led, end) = (stats("stats.farm"), stats("stats.profile"), stats("stats.end"));
    assert_eq!(made["remote"], N_FILES + 1, "{made}");
    assert_eq!(made["agents"].as_object().map(serde_json::Map::len), Some(2), "{made}");
    assert_eq!((&led["remote"], &led["cached"]), (&made["remote"], &1.into()), "by another name: {led}");
    assert_eq!((&end["remote"], &end["local"]), (&(N_FILES + 4).into(), &0.into()), "{end}");
    let closure: Vec<String> = String::from_utf8(read("closure")).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(closure.len(), 6, "{closure:?}");
    let listed = String::from_utf8(read("listed")).unwrap();
    let shown = listed.lines().find(|line| line.starts_with("/nix/store/")).unwrap_or_default();
    assert_eq!(shown.split(' ').collect::<Vec<_>>(), closure, "what the sandbox shows");
    if farm.network().is_some() {
        let sent = |n: u32| -> u64 { String::from_utf8(read(&format!("sent.{n}"))).unwrap().trim().parse().unwrap() };
        let (first, second, bump) = (sent(1) - sent(0), sent(2) - sent(1), sent(4) - sent(3));
        let all = format!("first {first}, second {second}, bump {bump}");
        println!("bytes that left the client: {all}");
        // The closure has 55 MB, some 15 packed.
        assert!(first > 5 << 20 && second < 2 << 20, "the second agent gets it from the first: {all}");
        assert!((512 << 10..900 << 10).contains(&bump), "one path alone travels: {all}");
    }
}

/// The status line of the answer to `GET path`.
fn status(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn agents_are_each_others_binary_caches() {
    // Nix keeps its own notes there, whatever store it is told to use.
    let notes = Path::new("/nix/var/nix");
    if notes.exists() && nix::unistd::access(notes, nix::unistd::AccessFlags::W_OK).is_err() {
        return skipped("this user may not use this machine's Nix");
    }
    let Some(store) = Store::build() else { return };
    let mut farm = Farm::up(Options::default());
    let at = |name: &str| farm.path(name);
    let (own, key, folder) = (store.folder.path(), at("key"), at("nix"));
    fs::create_dir(&folder).unwrap();
    for name in ["office-1", "other-1"] {
        let (secret, public) = (at(&format!("{name}.secret")), at(&format!("{name}.public")));
        let words = ["--generate-binary-cache-key", name];
        farm.must_run(nix_command("nix-store", &folder).args(words).arg(&secret).arg(&public));
    }
    let mut sign = nix_command("nix", &folder);
    sign.args(["--extra-experimental-features", "nix-command", "store", "sign", "-r", "--store"]).arg(own);
    farm.must_run(sign.arg("-k").arg(at("office-1.secret")).arg(&store.wrapper));
    let trusted = |name: &str| fs::read_to_string(farm.path(&format!("{name}.public"))).unwrap().trim().to_owned();
    let (office, other) = (trusted("office-1"), trusted("other-1"));

    farm.start_agent_with(0, &["--nix-root", own.to_str().unwrap()]);
    let empty = key.to_str().unwrap().to_owned();
    let ready = farm.start_agent_with(1, &["--nix-root", &empty, "--nix-cache", "127.0.0.1:0"]);
    let address = ready["nix_cache"].as_str().unwrap().to_owned();
    let hash = |path: &str| path["/nix/store/".len()..][..32].to_owned();
    let description = format!("/{}.narinfo", hash(&store.wrapper));
    farm.wait("the other agent's store", || status(&address, &description).contains("200"));
    assert!(status(&address, "/nix-cache-info").contains("200"));
    for gone in ["/0000000000000000000000000000000x.narinfo", "/x", &format!("/{}.narinfo", hash(&store.bumped))] {
        assert!(status(&address, gone).contains("404"), "{gone}, which nobody has or nobody has signed");
    }

    let realise = |into: &str, key: &str| {
        let mut nix = nix_command("nix-store", &folder);
        nix.arg("--store").arg(farm.path(into)).args(["--option", "substituters", &format!("http://{address}")]);
        nix.args(["--option", "trusted-public-keys", key, "-r", &store.wrapper]).output().unwrap()
    };
    let refused = realise("refused", &other);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("not signed by any"), "{said}");
    let brought = realise("brought", &office);
    assert!(brought.status.success(), "{}\n{}", String::from_utf8_lossy(&brought.stderr), farm.logs());
    let closure =
        farm.must_run(nix_command("nix-store", &folder).arg("--store").arg(own).args(["-qR", &store.wrapper]));
    let closure = String::from_utf8(closure.stdout).unwrap();
    assert_eq!(closure.lines().count(), 6);
    for path in closure.lines() {
        let packed = |root: &Path| {
            let place = root.join(path.trim_start_matches('/'));
            farm.must_run(nix_command("nix-store", &folder).arg("--dump").arg(place)).stdout
        };
        assert!(packed(own) == packed(&farm.path("brought")), "{path} differs");
    }
}
