//! How answers look to people.

use serde_json::json;

use super::*;

fn of<D: serde::de::DeserializeOwned>(document: Value) -> D {
    serde_json::from_value(document).unwrap()
}

#[test]
fn status_without_a_farm() {
    let document = json!({
        "version": "0.1.0", "pid": 7, "uptime_s": 185, "socket": "/run/s", "farm": null, "cache": null,
        "local_slots": {"total": 4, "busy": 0}, "racing": "tail", "running": [], "warnings": ["no local cache: full\nhint: make room"],
    });
    insta::assert_snapshot!(status(&of(document)), @r"
    daemon      version 0.1.0, process 7, up 3m 5s
    socket      /run/s
    farm        none; `buildbee join TICKET` joins one
    cache       none
    local       0 of 4 slots busy, racing tail
    running     0 actions
    warning     no local cache: full
                hint: make room
    ");
}

#[test]
fn status_with_a_farm() {
    let document = json!({
        "version": "0.1.0", "pid": 7, "uptime_s": 5, "socket": "/run/s",
        "farm": {
            "id": "00112233445566778899", "name": "ann@board", "role": "client",
            "coordinator": {"peer": "aa", "address": "10.0.0.1:7470", "connected": true},
            "agents": [
                {"name": "desk", "peer": "bb", "address": "10.0.0.2:7471", "connected": true, "slots": 8, "leased": 2, "toolchains": 1, "running": 1},
                {"name": "evil\u{1b}[2J", "peer": "cc", "address": null, "connected": false, "slots": 4, "leased": 0, "toolchains": 0},
            ],
        },
        "cache": {"dir": "/c", "bytes": 3_221_225_472_u64, "max_bytes": 21_474_836_480_u64, "blobs": 1, "results": 2, "manifests": 3},
        "local_slots": {"total": 4, "busy": 1}, "racing": "off",
        "running": [{"source": "src/a.c", "where": "desk", "for_ms": 1234}],
    });
    insta::assert_snapshot!(status(&of(document)), @r#"
    daemon      version 0.1.0, process 7, up 5s
    socket      /run/s
    farm        001122334455, as client "ann@board"
    coordinator 10.0.0.1:7470, connected
    agents      1 of 2 connected
        AGENT     STATE          SLOTS  LEASED  TOOLCHAINS  ADDRESS
        desk      connected      8      2       1           10.0.0.2:7471
        evil�[2J  not connected  4      0       0
    cache       3.0 GiB of 20.0 GiB in /c: 1 file, 2 results
    local       1 of 4 slots busy, racing off
    running     1 action
        SOURCE   WHERE  FOR
        src/a.c  desk   1.234 s
    "#);
}

#[test]
fn stats_with_reasons() {
    let document = json!({
        "cached": 3, "remote": 5, "local": 2, "reasons": {"link": 1, "farm-busy": 4, "asm": 1}, "agents": {"desk": 5},
        "bytes_sent": 2048, "bytes_received": 10, "since_unix": 1,
    });
    insta::assert_snapshot!(stats(&of(document)), @r"
    actions     10
    cached      3 (30 %)
    remote      5 (50 %)
    local       2 (20 %)
    sent        2.0 KiB
    received    10 B
        AGENT  ACTIONS
        desk   5
        REASON     COUNT
        farm-busy  4
        asm        1
        link       1
    ");
    insta::assert_snapshot!(stats(&Stats::default()), @r"
    actions     0
    cached      0
    remote      0
    local       0
    sent        0 B
    received    0 B
    ");
}

#[test]
fn peers_and_cache() {
    let document = json!({ "peers": [
        {"peer": "00112233445566778899", "name": "desk", "role": "agent", "address": "10.0.0.2:7471", "connected": true},
    ]});
    insta::assert_snapshot!(peers(&of(document)), @r"
    NAME  ROLE   STATE      ADDRESS        PEER
    desk  agent  connected  10.0.0.2:7471  001122334455
    ");
    let verified =
        json!({"blobs": 2, "bytes": 100, "n_bad": 1, "bad": ["ab/cd: digest"], "results": 1, "manifests": 0});
    insta::assert_snapshot!(cache_verified(&of(verified)), @r"
    read 2 files (100 B) and 1 result
    1 damaged, dropped:
        ab/cd: digest
    ");
    insta::assert_snapshot!(cache_verified(&CacheVerified::default()), @r"
    read 0 files (0 B) and 0 results
    all good
    ");
    insta::assert_snapshot!(cache_cleared(&CacheCleared { cleared: 1, in_use: 2 }), @r"
    removed 1 entry; kept 2 that running actions need
    ");
}

#[test]
fn json_is_the_document_itself() {
    assert_eq!(json(&json!({"a": [1]})), "{\n  \"a\": [\n    1\n  ]\n}\n");
}

#[test]
fn what_toolchains_look_like() {
    let one = json!({
        "id": "00112233445566778899", "program": "/usr/bin/gcc", "label": "gcc 12", "host": "x86_64-linux", "files": 2, "bytes": 2048,
        "current": true, "agents": ["desk"], "contents": [{"path": "/usr/bin/gcc", "bytes": 1024}],
    });
    let list =
        json!({ "toolchains": [one, {"id": "ff", "program": "/opt/cc", "files": 1, "bytes": 1, "current": false}] });
    insta::assert_snapshot!(toolchain::list(&of(list)), @r"
        ID            COMPILER      FILES  SIZE     AGENTS
        001122334455  /usr/bin/gcc  2      2.0 KiB  desk
        ff            /opt/cc       1      1 B      none    has changed
    ");
    insta::assert_snapshot!(toolchain::show(&of(one)), @r"
    toolchain   00112233445566778899
    compiler    /usr/bin/gcc
    is          gcc 12
    runs on     x86_64-linux
    content     2 files, 2.0 KiB
    agents      desk
        SIZE     FILE
        1.0 KiB  /usr/bin/gcc
    ");
    let sending = json!({
        "toolchain": "gcc 12", "agents": ["desk", "rack"], "files": 3, "files_total": 40, "bytes": 1024, "bytes_total": 4096, "left_s": 9,
    });
    insta::assert_snapshot!(
        toolchain::sending(&of(sending)),
        @"gcc 12 to desk, rack: 3 of 40 files, 1.0 KiB of 4.0 KiB, 9 s left at most"
    );
    let warmed = json!({ "program": "/usr/bin/gcc", "agents": {
        "desk": {"had_it": true, "error": null, "took_ms": 0}, "rack": {"had_it": false, "error": null, "took_ms": 1500},
    }});
    insta::assert_snapshot!(toolchain::warmed(&of(warmed)), @r"
    /usr/bin/gcc: desk had it
    /usr/bin/gcc: rack has it, after 1.5 s
    ");
    let warmed =
        json!({ "program": "/r/rustc --target x", "without_linker": "no cc", "agents": { "desk": {"had_it": true} } });
    insta::assert_snapshot!(toolchain::warmed(&of(warmed)), @r"
    /r/rustc --target x: programs and macros will be linked here, for want of a linker: no cc
    /r/rustc --target x: desk had it
    ");
    let verified = json!({ "toolchains": [
        {"program": "/usr/bin/gcc", "files": 2, "bytes": 2048, "n_changed": 0, "changed": []},
        {"program": "/opt/cc", "files": 2, "bytes": 0, "n_changed": 1, "changed": ["/opt/cc: gone"]},
    ]});
    insta::assert_snapshot!(toolchain::verified(&of(verified)), @r"
    /usr/bin/gcc: 2 files, 2.0 KiB: as agents were told
    /opt/cc: 1 of 2 files not as agents were told
        /opt/cc: gone
    hint: `buildbee toolchain gc` forgets it; the next compile looks at it again
    ");
    let entries = json!({ "entries": { "http": "127.0.0.1:7473", "asked": 20, "found": 12, "found_at_peers": 8, "put": 8, "untold": 1 } });
    let shown = status(&of(entries));
    assert!(
        shown.contains("ccache      http://127.0.0.1:7473/, 12 of 20 found (8 at peers), 8 put, 1 not at peers yet\n"),
        "{shown}"
    );
}
