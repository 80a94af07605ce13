//! A toolchain with files in Nix's store that neither another agent nor the client has.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buildbee_agent::nix_cache::narinfo::describe;
use buildbee_agent::nix_sources::description::hash_by_content;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::ErrorCode;
use buildbee_proto::peer::Role;
use buildbee_proto::store_path::StorePath;
use buildbee_proto::toolchain::Toolchain;
use lzma_rust2::{XzOptions, XzWriter};
use nix_base32::to_nix_base32;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::bed::{Client, Farm, RunningAgent};
use crate::content::shell;
use crate::farm::Coordinator;

const PATH: &str = "/nix/store/0wwbmlzz12c1mn5a754ndya7mkbbfknm-words/share/word";
const WORD: &[u8] = b"from nowhere else\n";

/// A client of `agent` whose toolchain has a file that the client has lost.
async fn client(farm: &Farm, agent: &RunningAgent) -> Client {
    client_without(farm, agent, &[(PATH.to_owned(), WORD.to_vec())]).await
}

/// The same with these.
async fn client_without(farm: &Farm, agent: &RunningAgent, lost: &[(String, Vec<u8>)]) -> Client {
    let mut client = farm.client(agent).await;
    let content = shell(&client.store);
    let content = lost.iter().fold(content, |all, (path, bytes)| all.file(Path::new(path), Digest::of(bytes), false));
    let root = content.root(&client.store);
    client.toolchain = Toolchain { root, label: "a shell and a word".to_owned(), ..client.toolchain };
    client.store.put_bytes(&client.toolchain.to_canonical()).unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_peer_has_is_found_here_or_brought_by_the_command() {
    let farm = Farm::new();
    let root = tempfile::tempdir().unwrap();
    let there = root.path().join(PATH.trim_start_matches('/'));
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    fs::write(&there, WORD).unwrap();
    let folder = root.path().to_owned();
    let nothing = root.path().join("nothing");
    let own = farm.agent_with(|settings| settings.nix_root.clone_from(&folder)).await;
    let hooked = farm
        .agent_with(|settings| {
            settings.nix_root.clone_from(&nothing);
            let script = format!("sed s,^,{},", folder.display());
            settings.nix_hook = ["sh", "-c", &script].map(str::to_owned).to_vec();
        })
        .await;
    let neither = farm.agent_with(|settings| settings.nix_root.clone_from(&nothing)).await;
    let script = format!("read line <{PATH} && echo \"$line\"");
    for agent in [&own, &hooked] {
        let client = client(&farm, agent).await;
        let finished = client.submit(&client.script(&script, &[])).await.unwrap();
        assert_eq!(finished.stdout(), WORD, "{}", finished.stderr());
    }
    let client = client(&farm, &neither).await;
    let failed = client.submit(&client.script(&script, &[])).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::MissingBlob, "{failed:?}");
}

/// A binary cache over HTTP.
#[derive(Default)]
struct Cache {
    answers: HashMap<String, Vec<u8>>,
    /// Archives that were asked for.
    n_archives: AtomicUsize,
}

impl Cache {
    /// Adds a path with one file, packed by xz and named by its content. Where that file is, and what it holds.
    fn add(&mut self, name: &str, references: &[&str], content: &[u8]) -> (String, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("share")).unwrap();
        fs::write(folder.path().join("share/word"), content).unwrap();
        let mut archive = Vec::new();
        nix_nar::Encoder::new(folder.path()).unwrap().read_to_end(&mut archive).unwrap();
        let archive_hash = Sha256::digest(&archive).into();
        let mut path = StorePath {
            name: String::new(),
            archive_hash,
            archive_bytes: archive.len() as u64,
            references: references.iter().map(|&name| name.to_owned()).collect(),
            deriver: None,
            signatures: Vec::new(),
            content_address: Some(format!("fixed:r:sha256:{}", to_nix_base32(&archive_hash))),
        };
        let hash = hash_by_content(&path, name);
        path.name = format!("{hash}-{name}");
        let told = describe(&hash, &path).replace("Compression: none", "Compression: xz");
        let url = told.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap().to_owned();
        let mut packing = XzWriter::new(Vec::new(), XzOptions::with_preset(6)).unwrap();
        packing.write_all(&archive).unwrap();
        self.answers.insert(format!("/{url}"), packing.finish().unwrap());
        self.answers.insert(format!("/{hash}.narinfo"), told.into_bytes());
        (format!("/nix/store/{}/share/word", path.name), content.to_vec())
    }

    /// Answers as long as the test runs. Its URL.
    async fn serve(self: Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                let asked = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap_or_default().to_owned();
                self.n_archives.fetch_add(usize::from(!asked.ends_with(".narinfo")), Ordering::Relaxed);
                let (status, body) = match self.answers.get(&asked) {
                    Some(body) => ("200 OK", body.clone()),
                    None => ("404 Not Found", Vec::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        url
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_that_no_machine_has_comes_from_a_cache_and_then_from_the_agent_that_fetched_it() {
    let mut cache = Cache::default();
    let more = cache.add("more", &[], b"and more\n");
    let name = more.0.split('/').nth(3).unwrap().to_owned();
    let lost = [cache.add("words", &[&name], b"from far away\n"), more];
    let cache = Arc::new(cache);
    let url = Arc::clone(&cache).serve().await;

    let mut farm = Farm::new();
    let coordinator = Coordinator::start(&mut farm).await;
    let nothing = tempfile::tempdir().unwrap();
    let asking = farm
        .agent_with(|settings| {
            settings.nix_root = nothing.path().to_owned();
            settings.nix_caches = vec![url.parse().unwrap()];
        })
        .await;
    let other = farm.agent_with(|settings| settings.nix_root = nothing.path().to_owned()).await;
    let agents = [&asking, &other].map(|agent| (agent.get().peer(), Role::Agent));
    coordinator.publish(farm.roster(3, agents.to_vec())).await;
    let script = lost.iter().map(|(path, _)| format!("read line <{path} && echo \"$line\"")).collect::<Vec<_>>();
    let script = script.join(" && ");
    let expected: Vec<u8> = lost.iter().flat_map(|(_, content)| content.clone()).collect();
    let client = client_without(&farm, &asking, &lost).await;
    let finished = client.submit(&client.script(&script, &[])).await.unwrap();
    assert_eq!(finished.stdout(), expected, "{}", finished.stderr());
    assert_eq!(cache.n_archives.load(Ordering::Relaxed), lost.len());

    // It is heard of some time, and what was fetched is not fetched again.
    let client = client_without(&farm, &other, &lost).await;
    let running = async {
        loop {
            match client.submit(&client.script(&format!("{script} && true"), &[])).await {
                Ok(finished) => return finished,
                Err(error) => assert_eq!(error.code, ErrorCode::MissingBlob, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let finished = tokio::time::timeout(Duration::from_secs(60), running).await.unwrap();
    assert_eq!(finished.stdout(), expected, "{}", finished.stderr());
    assert_eq!(cache.n_archives.load(Ordering::Relaxed), lost.len());
}
