//! ccache over the farm: through HTTP, and through its protocol for storage helpers; two machines share what one has compiled.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use buildbee_tests::client::Client;
use buildbee_tests::farm::{Farm, Options};
use buildbee_tests::network::skipped;
use buildbee_tests::programs;

const N_FILES: usize = 4;
/// More than travels in one piece.
const LARGE: usize = 6 << 20;
/// Nothing here takes that long; a busy machine is given it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two clients on two machines, where this user may make such; else two on this one.
fn two_clients(farm: &mut Farm) -> Client {
    let mut second = farm.second_client("second");
    if let Some(network) = farm.network() {
        second.leave();
        second.space = Some(network.space("desk1"));
    }
    second
}

fn farm() -> Farm {
    let options = || Options { n_agents: 2, ..Options::default() };
    Farm::up_in_namespaces(options()).unwrap_or_else(|| Farm::up(options()))
}

/// Has the daemon of `client` answer over HTTP. Where.
fn serve_http(farm: &Farm, client: &Client) -> String {
    client.leave();
    let mut address = String::new();
    farm.wait("the cache over HTTP", || {
        let status =
            client.command("buildbee").env("BUILDBEE_HTTP_CACHE", "127.0.0.1:0").args(["status", "--json"]).output();
        let status: serde_json::Value = serde_json::from_slice(&status.unwrap().stdout).unwrap_or_default();
        let n_connected = status["farm"]["agents"]
            .as_array()
            .map_or(0, |agents| agents.iter().filter(|agent| agent["connected"] == true).count());
        status["entries"]["http"].as_str().unwrap_or_default().clone_into(&mut address);
        n_connected == farm.options.n_agents && !address.is_empty()
    });
    address
}

fn write_sources(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for n in 0..N_FILES {
        let table = (0..200 * n).map(|k| k.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!(
            "#include <stdio.h>\nint f{n}(void) {{ static int t[] = {{ {n}, {table} }}; return printf(\"%d\", t[0]); }}\n"
        );
        fs::write(folder.join(format!("f{n}.c")), text).unwrap();
    }
}

/// Compiles all with ccache; the objects, and what ccache counted.
fn compile(client: &Client, folder: &Path, remote: &str) -> (Vec<Vec<u8>>, BTreeMap<String, u64>) {
    let ccache = |program: &[&str]| {
        let mut command = client.command("ccache");
        command.args(program).current_dir(folder).env("CCACHE_DIR", client.folder.join("ccache"));
        command.env("CCACHE_REMOTE_STORAGE", remote).env("CCACHE_CONFIGPATH", "/dev/null");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let objects = (0..N_FILES).map(|n| {
        let (source, object) = (format!("f{n}.c"), format!("f{n}.o"));
        let _ = fs::remove_file(folder.join(&object));
        ccache(&["gcc", "-O2", "-c", &source, "-o", &object]);
        fs::read(folder.join(object)).unwrap()
    });
    let objects = objects.collect();
    let counted = ccache(&["--print-stats"]);
    let counted = counted.lines().filter_map(|line| {
        let (name, count) = line.split_once('\t')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    (objects, counted.collect())
}

#[test]
fn two_machines_share_what_ccache_compiles() {
    let has_ccache = Command::new("ccache").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_ccache {
        return skipped("ccache is not installed");
    }
    let mut farm = farm();
    let second = two_clients(&mut farm);
    let project = farm.path("project");
    write_sources(&project);
    let (here, there) = (serve_http(&farm, &farm.laptop), serve_http(&farm, &second));
    let (first_objects, counted) = compile(&farm.laptop, &project, &format!("http://{here}/project"));
    assert_eq!(counted["cache_miss"], N_FILES as u64, "{counted:?}");
    let (objects, counted) = compile(&second, &project, &format!("http://{there}/project"));
    assert_eq!(
        (counted["cache_miss"], counted["direct_cache_hit"]),
        (0, N_FILES as u64),
        "{counted:?}\n{}",
        second.log()
    );
    assert!(objects == first_objects, "other bytes");
    let plain = farm.client("gcc").args(["-O2", "-c", "f1.c", "-o", "plain.o"]).current_dir(&project).status().unwrap();
    assert!(plain.success() && fs::read(project.join("plain.o")).unwrap() == objects[1]);
    let entries = &second.json(&["status"])["entries"];
    assert!(entries["found_at_peers"].as_u64() >= Some(N_FILES as u64), "{entries}");
    requests(&farm, &second, &here, &there);
}

/// What a request comes to: its status, and its body.
fn ask(client: &Client, address: &str, request: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let answer = exchange(client, address, request, body);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{head}")), answer[end + 4..].to_vec())
}

/// From the client's own machine: loopback is each one's own.
fn exchange(client: &Client, address: &str, request: &str, body: &[u8]) -> Vec<u8> {
    let request = if request.contains("Host:") { request.to_owned() } else { format!("{request}\r\nHost: {address}") };
    let head = format!("{request}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let whole = [head.as_bytes(), body].concat();
    match client.space.as_deref() {
        None => {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Who is refused early is not heard to the end.
            let _ = stream.write_all(&whole);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        }
        Some(space) => {
            assert!(!space.is_empty());
            let (host, port) = address.rsplit_once(':').unwrap();
            let script = format!("exec 3<>/dev/tcp/{host}/{port} 4<&0; cat <&4 >&3 & cat <&3; wait");
            let mut child = client
                .command("bash")
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let writing = std::thread::spawn(move || drop(stdin.write_all(&whole)));
            let answer = child.wait_with_output().unwrap().stdout;
            writing.join().unwrap();
            answer
        }
    }
}

fn requests(farm: &Farm, second: &Client, here: &str, there: &str) {
    let first = |request: &str, body: &[u8]| ask(&farm.laptop, here, request, body);
    let other = |request: &str| ask(second, there, request, b"");
    // Put, found, replaced by the other one, taken out: everywhere the newest counts.
    assert_eq!(other("GET /t/ab/c HTTP/1.1").0, 404);
    assert_eq!(first("PUT /t/ab/c HTTP/1.1", b"one").0, 201);
    assert_eq!(other("GET /t/ab/c HTTP/1.1"), (200, b"one".to_vec()));
    assert_eq!(ask(second, there, "PUT /t/ab/c HTTP/1.1", b"two").0, 204);
    assert_eq!(first("GET /t/ab/c HTTP/1.1", b""), (200, b"two".to_vec()));
    assert_eq!(first("PUT /t/ab/c HTTP/1.1\r\nIf-None-Match: *", b"three").0, 412);
    assert_eq!(first("HEAD /t/ab/c HTTP/1.1", b""), (200, Vec::new()));
    assert_eq!(first("DELETE /t/ab/c HTTP/1.1", b"").0, 204);
    assert_eq!(other("GET /t/ab/c HTTP/1.1").0, 404);
    assert_eq!(other("DELETE /t/ab/c HTTP/1.1").0, 404);
    assert_eq!(first("PUT /t/ab/c HTTP/1.1", b"").0, 201);
    assert_eq!(other("GET /t/ab/c HTTP/1.1"), (200, Vec::new()));
    // As sccache comes.
    let (status, document) = other("PROPFIND /t/ab/c HTTP/1.1\r\nDepth: 0");
    assert!(status == 207 && String::from_utf8_lossy(&document).contains("<D:getcontentlength>0<"));
    assert_eq!(other("PROPFIND /t/none HTTP/1.1").0, 404);
    assert_eq!((other("PROPFIND /t/ HTTP/1.1").0, other("MKCOL /t/x/ HTTP/1.1").0), (207, 201));
    // What nobody should ask.
    for (request, expected) in [
        ("GET /t/../c HTTP/1.1", 400),
        ("GET /t?x HTTP/1.1", 400),
        ("POST /t HTTP/1.1", 405),
        ("GET /t/ab/c HTTP/1.1\r\nHost: evil.example.com", 403),
        ("GET /t/ab/c HTTP/1.1\r\nOrigin: http://evil.example.com", 403),
        ("NONSENSE", 400),
    ] {
        assert_eq!(first(request, b"").0, expected, "{request}");
    }
    let too_large =
        exchange(&farm.laptop, here, "PUT /t HTTP/1.1\r\nContent-Length: 999999999999\r\nExpect: 100-continue", b"");
    assert!(too_large.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&too_large));
    // More than one piece.
    let large: Vec<u8> = (0..LARGE).map(|n| (n / 7).to_le_bytes()[0]).collect();
    assert_eq!(first("PUT /t/large HTTP/1.1", &large).0, 201);
    farm.wait("the large value", || {
        farm.laptop.json(&["status"])["entries"]["untold"] == 0 && other("HEAD /t/large HTTP/1.1").0 == 200
    });
    assert!(other("GET /t/large HTTP/1.1").1 == large);
}

/// The helper, started as ccache does.
struct Helper {
    child: Child,
    socket: PathBuf,
}

impl Helper {
    fn start(client: &Client) -> Self {
        let socket = client.folder.join("helper.sock");
        let mut command = client.command(programs::folder().join("ccache-storage-buildbee"));
        command.env("CRSH_IPC_ENDPOINT", &socket).env("CRSH_URL", "buildbee://project").env("CRSH_IDLE_TIMEOUT", "60");
        command.env("CRSH_NUM_ATTR", "1").env("CRSH_ATTR_KEY_0", "layout").env("CRSH_ATTR_VALUE_0", "flat");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, socket }
    }

    fn connect(&self) -> Caller {
        let started = std::time::Instant::now();
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut caller = Caller(stream);
                    assert_eq!(caller.receive(4), [1, 2, 0, 1], "version 1, get/put/remove and info");
                    return caller;
                }
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// ccache's side of the protocol, from its specification.
struct Caller(UnixStream);

impl Caller {
    fn receive(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn status(&mut self) -> u8 {
        self.receive(1)[0]
    }

    fn text(&mut self) -> String {
        let n = usize::from(self.status());
        String::from_utf8(self.receive(n)).unwrap()
    }

    fn key(&mut self, request: u8, key: &[u8]) {
        self.0.write_all(&[&[request, u8::try_from(key.len()).unwrap()][..], key].concat()).unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.key(0, key);
        match self.status() {
            0 => {
                let length = u64::from_ne_bytes(self.receive(8).try_into().unwrap());
                Some(self.receive(usize::try_from(length).unwrap()))
            }
            1 => None,
            _ => panic!("{}", self.text()),
        }
    }

    fn put(&mut self, key: &[u8], flags: u8, value: &[u8]) -> u8 {
        self.key(1, key);
        self.0.write_all(&[&[flags][..], &(value.len() as u64).to_ne_bytes()].concat()).unwrap();
        self.0.write_all(value).unwrap();
        self.status()
    }

    fn remove(&mut self, key: &[u8]) -> u8 {
        self.key(2, key);
        self.status()
    }
}

#[test]
fn two_machines_share_through_the_storage_helper() {
    let mut farm = farm();
    let second = two_clients(&mut farm);
    // No setting, and no daemon: the helper starts it.
    farm.laptop.leave();
    let (mut here, there) = (Helper::start(&farm.laptop), Helper::start(&second));
    let (mut caller, mut other) = (here.connect(), there.connect());
    let (key, large): ([u8; 20], Vec<u8>) = ([0xab; 20], (0..LARGE).map(|n| (n / 11).to_le_bytes()[0]).collect());
    caller.0.write_all(&[4]).unwrap();
    assert!(caller.text().starts_with("ccache-storage-buildbee "));
    assert_eq!((caller.status(), caller.text().as_str()), (1, "attribute \"layout\" means nothing to buildbee"));
    assert_eq!(caller.get(&key), None);
    assert_eq!(caller.put(&key, 0, b"value"), 0);
    // A daemon that has just started is not connected yet.
    farm.wait("the value", || other.get(&key).is_some_and(|value| value == b"value"));
    assert_eq!(other.put(&key, 0, b"other"), 1, "there is one");
    assert_eq!(other.put(&key, 1, &large), 0);
    farm.wait("the new value", || caller.get(&key).is_some_and(|value| value == large));
    assert_eq!((caller.remove(&key), caller.remove(&key)), (0, 1));
    assert_eq!(other.get(&key), None);
    other.key(0, b"");
    assert_eq!((other.status(), other.text().as_str()), (2, "the key is empty"));
    // The daemon goes, and the next request has another.
    second.leave();
    assert_eq!(other.put(&[1; 255], 1, b"long key"), 0);
    assert_eq!(other.get(&[1; 255]), Some(b"long key".to_vec()));
    assert!(here.connect().get(&[7]).is_none(), "several at a time");
    // A second helper does not take the first one's place.
    let mut again = farm.client(programs::folder().join("ccache-storage-buildbee"));
    again.env("CRSH_IPC_ENDPOINT", &here.socket).env("CRSH_URL", "buildbee:").stderr(Stdio::null());
    assert!(!again.status().unwrap().success());
    let mut stopping = here.connect();
    stopping.0.write_all(&[3]).unwrap();
    assert_eq!(stopping.status(), 0);
    assert!(here.child.wait().unwrap().success());
}

#[test]
fn without_a_farm_it_is_this_user_s_own() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client {
        folder: folder.path().to_owned(),
        programs: programs::folder(),
        local_slots: 1,
        racing: "off",
        space: None,
        view: None,
    };
    let helper = Helper::start(&client);
    let mut caller = helper.connect();
    assert_eq!((caller.get(b"key"), caller.put(b"key", 0, b"value")), (None, 0));
    assert_eq!(caller.get(b"key"), Some(b"value".to_vec()));
    client.leave();
    assert_eq!(caller.get(b"key"), Some(b"value".to_vec()), "it lasts");
}
