//! The status page over real sockets: what it shows of real peers, and what it does with those who misbehave.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use buildbee_coordinator::serve::Coordinator;
use buildbee_coordinator::status::host::OwnNames;
use buildbee_proto::peer::Role;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixture::{Member, WITHIN, anywhere, offer, start};

async fn shown(folder: &Path) -> (Coordinator, SocketAddr) {
    let mut coordinator = start(folder, anywhere()).await;
    coordinator.show_status(anywhere(), OwnNames::new("farm", &[])).unwrap();
    let address = coordinator.status_address().unwrap();
    (coordinator, address)
}

/// Sends `request` and reads to the end, which comes by itself.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have seen enough before all of it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(WITHIN, stream.read_to_end(&mut answer)).await.expect("no end");
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let answer = exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

async fn status(address: SocketAddr) -> Value {
    serde_json::from_str(&get(address, "/status.json").await.1).unwrap()
}

#[tokio::test]
async fn peers_and_their_slots_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, address) = shown(folder.path()).await;
    assert_eq!(status(address).await["agents_total"], 0);
    let agent = Member::join(folder.path(), &coordinator, Role::Agent, "desk").await;
    let client = Member::join(folder.path(), &coordinator, Role::Client, "board\"<b>").await;
    let (mut to_agent, mut to_client) = (agent.open().await, client.open().await);
    let mut state = offer(&agent, 3);
    to_agent.agent(&state).await;
    let desired = to_client.client(2, vec![]).await;
    state.slots.iter_mut().find(|slot| slot.token == desired.leases[0].token).unwrap().busy = true;
    to_agent.agent(&state).await;
    let mut seen = Value::Null;
    for _ in 0..50 {
        seen = status(address).await;
        if seen["slots"]["busy"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen["slots"], serde_json::json!({"total": 3, "busy": 1, "leased": 1, "idle": 1}), "{seen}");
    assert_eq!(seen["agents"][0]["name"], "desk");
    assert_eq!(seen["members"], 2);
    let slots = seen["agents"][0]["slot_list"].as_array().unwrap();
    let busy = slots.iter().find(|slot| slot["state"] == "busy").unwrap();
    assert_eq!(busy["client"], "board\"<b>");
    let shown = &seen["clients"][0];
    assert_eq!((&shown["held"], &shown["share"], &shown["busy"]), (&2.into(), &2.into(), &1.into()));
    let (head, metrics) = get(address, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(metrics.contains("buildbee_slots{state=\"busy\"} 1"), "{metrics}");
    assert!(metrics.contains("buildbee_client_slots_held{client=\"board\\\"<b>\""), "{metrics}");
    coordinator.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody is there any more");
}

#[tokio::test]
async fn strangers_names_methods_and_floods_come_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, address) = shown(folder.path()).await;
    let (head, page) = get(address, "/").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(page.contains("<!doctype html>") && !page.contains("NONCE"));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET /status.json HTTP/1.1\r\n\r\n", "421"),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("POST /status.json HTTP/1.1\r\nHost: farm\r\nContent-Length: 1000000000\r\n\r\n", "405"),
        ("GET /no HTTP/1.1\r\nHost: farm\r\n\r\n", "404"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = exchange(address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{request}: {answer}");
    }
    let large = format!("GET / HTTP/1.1\r\nHost: farm\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let answer = exchange(address, &large).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nHost: farm\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    assert!(exchange(address, &many).await.starts_with("HTTP/1.1 4"));

    // More silent connections than there is room for: they are cut off, and others get their turn.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let since = Instant::now();
    assert!(get(address, "/").await.0.starts_with("http/1.1 200"));
    assert!(since.elapsed() < WITHIN, "{:?}", since.elapsed());
    coordinator.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_keeps_no_farm_from_running() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(anywhere()).unwrap();
    let mut coordinator = start(folder.path(), anywhere()).await;
    coordinator.show_status(taken.local_addr().unwrap(), OwnNames::default()).unwrap();
    assert_eq!(coordinator.status_address(), None);
    assert_eq!(coordinator.scheduler().counts().await.unwrap().n_agents, 0);
    coordinator.stop().await;
}
