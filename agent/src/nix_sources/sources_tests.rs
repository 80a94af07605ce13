//! Sources that are really there: folders, HTTP servers, a command, and a cache that Nix made.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::Arc;

use buildbee_proto::store_path::StorePath;
use buildbee_store::{Durability, Options};
use lzma_rust2::{XzOptions, XzWriter};
use nix_base32::to_nix_base32;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::caches::{CacheError, bring};
use super::super::description::{DescriptionError, hash_by_content};
use super::super::http::GetError;
use super::super::lacking::tests::{HASH, tree};
use super::super::tls::TlsError;
use super::*;

const CONTENT: &[u8] = b"a compiler that came from far away";

struct Bed {
    dir: tempfile::TempDir,
    store: Store,
    tasks: Tasks,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 64 << 20, durability: Durability::Asked };
        let (store, _) = Store::open_packed(&dir.path().join("store"), &options).unwrap();
        Self { dir, store, tasks: Tasks::new() }
    }

    fn sources(&self, caches: &[Uri], hook: &[&str]) -> NixSources {
        let (root, hook) = (self.dir.path().join("root"), hook.iter().map(|&word| word.to_owned()).collect());
        let settings = NixSettings { root, caches: caches.to_vec(), keys: Vec::new(), hook };
        NixSources::new(settings, self.store.clone(), self.tasks.clone())
    }

    /// Lays a store path with `bin/cc` into a folder that holds such paths.
    fn lay(&self, folder: &str, name: &str, content: &[u8]) -> PathBuf {
        let place = self.dir.path().join(folder).join(name);
        fs::create_dir_all(place.join("bin")).unwrap();
        fs::write(place.join("bin/cc"), content).unwrap();
        place
    }
}

/// Whole answers by path; what is not named is not found.
type Answers = HashMap<String, Vec<u8>>;

/// Serves `answers` as long as the test runs.
async fn serve(answers: Answers) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers = Arc::new(answers);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&answers)));
        }
    });
    format!("http://{address}").parse().unwrap()
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Arc<Answers>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    let answer = answers.get(head.split(' ').nth(1).unwrap()).unwrap_or(&missing);
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// The same through TLS, and the certificate that it shows, which is for "localhost".
async fn serve_securely(answers: Answers) -> (Uri, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let certificate = made.cert.der().clone();
    let config = builder.with_single_cert(vec![certificate.clone()], key).unwrap();
    let (acceptor, answers) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answers));
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, answers).await;
                }
            });
        }
    });
    (format!("https://localhost:{port}").parse().unwrap(), certificate)
}

/// Windows of xz, as its format writes them: 1.5 GiB, and the 64 MiB of its highest level.
const LARGEST_WINDOW: u8 = 37;
const USUAL_LARGEST_WINDOW: u8 = 28;

/// What xz has packed, as if with that window.
fn with_window(mut packed: Vec<u8>, window: u8) -> Vec<u8> {
    const HEAD: usize = 12;
    let length = (usize::from(packed[HEAD]) + 1) * 4;
    let head = &mut packed[HEAD..HEAD + length];
    let filter = head.iter().position(|byte| *byte == 0x21).unwrap();
    head[filter + 2] = window;
    let (said, sum) = head.split_at_mut(length - 4);
    let crc = said.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    sum.copy_from_slice(&(!crc).to_le_bytes());
    packed
}

fn packed_by_xz(content: &[u8], preset: u32) -> Vec<u8> {
    let mut packing = XzWriter::new(Vec::new(), XzOptions::with_preset(preset)).unwrap();
    packing.write_all(content).unwrap();
    packing.finish().unwrap()
}

fn found(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn moved(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// A path that is named by its content, and what a cache has of it.
struct Cached {
    name: String,
    description: String,
    archive: Vec<u8>,
}

impl Cached {
    fn new(bed: &Bed) -> Self {
        let place = bed.lay("cached", "x", CONTENT);
        let mut archive = Vec::new();
        nix_nar::Encoder::new(place).unwrap().read_to_end(&mut archive).unwrap();
        let archive_hash = Sha256::digest(&archive).into();
        let mut path = StorePath {
            name: String::new(),
            archive_hash,
            archive_bytes: archive.len() as u64,
            references: Vec::new(),
            deriver: None,
            signatures: Vec::new(),
            content_address: Some(format!("fixed:r:sha256:{}", to_nix_base32(&archive_hash))),
        };
        let hash = hash_by_content(&path, "gcc");
        path.name = format!("{hash}-gcc");
        let description = crate::nix_cache::narinfo::describe(&hash, &path);
        let url = description.lines().find(|line| line.starts_with("URL")).unwrap().to_owned();
        Self { name: path.name, description: description.replace(&url, "URL: nar/x"), archive }
    }

    fn at(&self) -> String {
        format!("/{}.narinfo", self.name.split_once('-').unwrap().0)
    }

    fn answers(&self, description: &str, archive: Vec<u8>) -> Answers {
        [(self.at(), found(description.as_bytes())), ("/nar/x".to_owned(), archive)].into()
    }

    async fn brought(&self, answers: Answers) -> (Result<usize, CacheError>, bool) {
        self.brought_from(&serve(answers).await, Tls::default()).await
    }

    async fn brought_from(&self, base: &Uri, tls: Tls) -> (Result<usize, CacheError>, bool) {
        let bed = Bed::new();
        let (known, root, file) = tree(&self.name, CONTENT);
        let [path] = lacking(&known, &root, &[file]).try_into().unwrap();
        let brought = bring(base, &[], &path, (&bed.store, &Web::new(bed.tasks.clone(), tls))).await;
        (brought, bed.store.contains(&file))
    }
}

#[tokio::test]
async fn a_cache_gives_what_it_has() {
    let cached = Cached::new(&Bed::new());
    let plain = cached.answers(&cached.description, found(&cached.archive));
    assert!(matches!(cached.brought(plain.clone()).await, (Ok(1), true)));
    let mut elsewhere = plain;
    elsewhere.insert("/nar/y".to_owned(), elsewhere["/nar/x"].clone());
    elsewhere.insert("/nar/x".to_owned(), moved("/nar/y"));
    assert!(matches!(cached.brought(elsewhere).await, (Ok(1), true)), "redirected");
    let packed = zstd::encode_all(cached.archive.as_slice(), 3).unwrap();
    let zstd = cached.description.replace("Compression: none", "Compression: zstd");
    assert!(matches!(cached.brought(cached.answers(&zstd, found(&packed))).await, (Ok(1), true)), "packed");
    let xz = cached.description.replace("Compression: none", "Compression: xz");
    let (front, back) = cached.archive.split_at(cached.archive.len() / 2);
    let streams = [packed_by_xz(front, 6), packed_by_xz(back, 0)].concat();
    for packed in [packed_by_xz(&cached.archive, 6), streams] {
        let brought = cached.brought(cached.answers(&xz, found(&packed))).await;
        assert!(matches!(brought, (Ok(1), true)), "packed by xz: {brought:?}");
    }
    assert!(matches!(cached.brought(Answers::new()).await, (Ok(0), false)), "it has nothing");
}

#[tokio::test]
async fn a_cache_that_lies_gives_nothing() {
    let cached = Cached::new(&Bed::new());
    let brought = |description: String, archive: Vec<u8>| {
        let cached = &cached;
        async move { cached.brought(cached.answers(&description, archive)).await }
    };
    let unsigned = cached.description.replace("CA: ", "X: ");
    let refused = brought(unsigned, found(&cached.archive)).await;
    assert!(matches!(refused, (Err(CacheError::Description(DescriptionError::Untrusted)), false)), "{refused:?}");
    let mut other = cached.archive.clone();
    let at = other.windows(CONTENT.len()).position(|bytes| bytes == CONTENT).unwrap();
    other[at] ^= 1;
    let told = || cached.description.clone();
    assert!(matches!(brought(told(), found(&other)).await, (Err(CacheError::Archive(_)), false)), "a flipped bit");
    let half = &cached.archive[..at + 4];
    assert!(matches!(brought(told(), found(half)).await, (Err(CacheError::Archive(_)), false)), "half of it");
    let zeros = zstd::encode_all(std::io::repeat(0).take(32 << 20), 3).unwrap();
    let bomb = cached.description.replace("Compression: none", "Compression: zstd");
    assert!(matches!(brought(bomb, found(&zeros)).await, (Err(CacheError::Archive(_)), false)), "a bomb");
    let bomb = cached.description.replace("Compression: none", "Compression: xz");
    let zeros = packed_by_xz(&vec![0; 4 << 20], 6);
    assert!(matches!(brought(bomb.clone(), found(&zeros)).await, (Err(CacheError::Archive(_)), false)), "a bomb");
    let packed = packed_by_xz(&cached.archive, 6);
    let fat = brought(bomb.clone(), found(&with_window(packed.clone(), LARGEST_WINDOW))).await;
    assert!(matches!(fat, (Err(CacheError::Archive(_)), false)), "it would take too much memory: {fat:?}");
    let fit = brought(bomb.clone(), found(&with_window(packed.clone(), USUAL_LARGEST_WINDOW))).await;
    assert!(matches!(fit, (Ok(1), true)), "{fit:?}");
    for at in (0..packed.len()).step_by(29) {
        let mut odd = packed.clone();
        odd[at] ^= 0x10;
        let odd = brought(bomb.clone(), found(&odd)).await;
        // What is stored is what was wanted, also if something behind it is spoilt; and some bytes say what nobody asks for.
        assert!(matches!(odd, (Err(CacheError::Archive(_)), _) | (Ok(1), true)), "byte {at}: {odd:?}");
    }
    let round = brought(told(), moved("/nar/x")).await;
    assert!(matches!(round, (Err(CacheError::Get(GetError::Redirects)), false)), "{round:?}");
    let away = brought(told(), moved("ftp://elsewhere/x")).await;
    assert!(matches!(away, (Err(CacheError::Get(GetError::Url(_))), false)), "{away:?}");
    let endless = cached.brought([(cached.at(), found(&vec![b'x'; 1 << 20]))].into()).await;
    assert!(matches!(endless, (Err(CacheError::Unreadable), false)), "{endless:?}");
}

#[tokio::test]
async fn a_cache_is_asked_securely_where_its_certificate_is_trusted() {
    let cached = Cached::new(&Bed::new());
    let (base, certificate) = serve_securely(cached.answers(&cached.description, found(&cached.archive))).await;
    let brought = cached.brought_from(&base, Tls::trusting(vec![certificate.clone()])).await;
    assert!(matches!(brought, (Ok(1), true)), "{brought:?}");
    let (_, other) = serve_securely(Answers::new()).await;
    let refused = cached.brought_from(&base, Tls::trusting(vec![other])).await;
    assert!(matches!(refused, (Err(CacheError::Get(GetError::Tls(TlsError::HandShake(_)))), false)), "{refused:?}");
    let by_address = base.to_string().replace("localhost", "127.0.0.1").parse().unwrap();
    let refused = cached.brought_from(&by_address, Tls::trusting(vec![certificate.clone()])).await;
    assert!(matches!(&refused, (Err(error), false) if error.is_down()), "a certificate for another name: {refused:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let _ = listener.accept().await.unwrap().0.write_all(&found(b"what?")).await;
    });
    let refused = cached.brought_from(&plain, Tls::trusting(vec![certificate])).await;
    assert!(matches!(&refused, (Err(error), false) if error.is_down()), "it does not speak TLS: {refused:?}");
    let (_, nobody) = cached.brought_from(&base, Tls::trusting(Vec::new())).await;
    assert!(!nobody);
}

#[tokio::test]
async fn this_machines_own_store_is_near() {
    let bed = Bed::new();
    let name = format!("{HASH}-gcc");
    let (known, root, file) = tree(&name, CONTENT);
    let sources = bed.sources(&[], &[]);
    let near = async || {
        sources.near(root, &known, &[file]).await;
        bed.store.contains(&file)
    };
    assert!(!near().await, "there is none");
    let place = bed.lay("root/nix/store", &name, &vec![b'x'; CONTENT.len()]);
    assert!(!near().await, "another content");
    fs::remove_dir_all(place.join("bin")).unwrap();
    std::os::unix::fs::symlink(bed.lay("outside", "y", CONTENT).join("bin"), place.join("bin")).unwrap();
    assert!(!near().await, "a symlink leads out");
    fs::remove_file(place.join("bin")).unwrap();
    bed.lay("root/nix/store", &name, CONTENT);
    assert!(near().await);
}

#[tokio::test]
async fn caches_are_asked_in_order_and_the_command_last() {
    let bed = Bed::new();
    let cached = Cached::new(&bed);
    let (known, root, file) = tree(&cached.name, CONTENT);
    let good = serve(cached.answers(&cached.description, found(&cached.archive))).await;
    // Nobody listens there any more.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dead: Uri = format!("http://{dead}").parse().unwrap();
    let mark = bed.dir.path().join("ran");
    let printing = format!("touch {}; sed s,^/nix/store,{},", mark.display(), bed.dir.path().join("by-hand").display());
    let hook = ["sh", "-c", &printing];
    bed.sources(&[dead.clone(), good], &hook).far(root, &known, &[file]).await;
    assert!(bed.store.contains(&file) && !mark.exists());
    bed.store.clear();
    bed.sources(std::slice::from_ref(&dead), &hook).far(root, &known, &[file]).await;
    assert!(!bed.store.contains(&file) && mark.exists(), "what it says is not there");
    bed.lay("by-hand", &cached.name, CONTENT);
    bed.sources(&[dead], &hook).far(root, &known, &[file]).await;
    assert!(bed.store.contains(&file), "from where it says");
    bed.store.clear();
    let own = bed.dir.path().join("root/nix/store");
    let moving = format!("mkdir -p {0} && cp -r {1} {0}", own.display(), bed.dir.path().join("by-hand/*").display());
    bed.sources(&[], &["sh", "-c", &moving]).far(root, &known, &[file]).await;
    assert!(bed.store.contains(&file), "put in place by it");
}

/// Runs one of Nix's programs with everything of its own in `home`; `None`, with a line on stderr, where that is not possible.
fn nix(home: &Path, words: &[&str]) -> Option<String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(home).env("HOME", home).env("NIX_CONF_DIR", home);
    match command.output() {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        other => {
            eprintln!("skipped: Nix can't be used here: {other:?}");
            None
        }
    }
}

#[tokio::test]
async fn a_cache_that_nix_made_is_understood() {
    let bed = Bed::new();
    let home = bed.dir.path();
    bed.lay(".", "gcc", CONTENT);
    let store = home.join("made").to_str().unwrap().to_owned();
    if nix(home, &["nix-store", "--generate-binary-cache-key", "office-1", "secret", "public"]).is_none() {
        return;
    }
    let options = ["--option", "build-users-group", ""];
    let adding = [&["nix-store", "--store", store.as_str()][..], &options, &["--add", "gcc"]].concat();
    let Some(path) = nix(home, &adding) else { return };
    let cache = format!("file://{0}/cache?compression=xz&secret-key={0}/secret", home.display());
    let features = ["--extra-experimental-features", "nix-command"];
    let copying = [&["nix", "copy"][..], &features, &options, &["--from", &store, "--to", &cache, &path]].concat();
    if nix(home, &copying).is_none() {
        return;
    }
    let mut answers = Answers::new();
    for folder in ["cache", "cache/nar"] {
        for entry in fs::read_dir(home.join(folder)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
        {
            let mut body = fs::read(entry.path()).unwrap();
            if folder == "cache" {
                // Leaves its signature alone to vouch for it.
                let text = String::from_utf8(body).unwrap();
                let signed = text.split_inclusive('\n').filter(|line| !line.starts_with("CA"));
                body = signed.collect::<String>().into();
            }
            let below = folder.trim_start_matches("cache");
            answers.insert(format!("{below}/{}", entry.file_name().to_str().unwrap()), found(&body));
        }
    }
    let (known, root, file) = tree(path.strip_prefix("/nix/store/").unwrap(), CONTENT);
    let [lacking] = lacking(&known, &root, &[file]).try_into().unwrap();
    let (base, web) = (serve(answers).await, Web::new(bed.tasks.clone(), Tls::default()));
    let refused = bring(&base, &[], &lacking, (&bed.store, &web)).await;
    assert!(matches!(refused, Err(CacheError::Description(DescriptionError::Untrusted))), "{refused:?}");
    let key = fs::read_to_string(home.join("public")).unwrap().trim().parse().unwrap();
    assert_eq!(bring(&base, &[key], &lacking, (&bed.store, &web)).await.unwrap(), 1);
    assert!(bed.store.contains(&file));
}
