//! What the daemon is asked and how the answers come out.

use crate::home::Home;

#[test]
fn stats_is_a_contract() {
    let home = Home::new();
    let fresh = home.document(&["stats", "--json"]);
    for key in ["cached", "remote", "local"] {
        assert_eq!(fresh[key].as_u64(), Some(0), "{key}");
    }
    assert!(fresh["reasons"].is_object() && fresh["agents"].is_object());
    home.says(&["gcc", "-c", "x.c"]);
    let one = home.document(&["stats", "--json", "--zero"]);
    assert_eq!(one["local"].as_u64(), Some(1));
    assert_eq!(one["reasons"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum::<u64>(), 1);
    assert_eq!(home.document(&["stats", "--json"])["local"].as_u64(), Some(0), "counted anew");
}

#[test]
fn every_listing_has_both_forms() {
    let home = Home::new();
    home.says(&["gcc", "-c", "x.c"]);
    let listings: [&[&str]; 6] =
        [&["status"], &["stats"], &["explain"], &["peers"], &["cache", "usage"], &["cache", "verify"]];
    for listing in listings {
        assert!(!home.says(listing).starts_with('{'), "{listing:?}");
        assert!(home.document(&[listing, &["--json"]].concat()).is_object(), "{listing:?}");
    }
    assert!(home.says(&["explain"]).contains("x.c: local"));
    assert!(home.says(&["explain", "nothing-like-it"]).starts_with("no such action"));
    assert!(home.says(&["status"]).contains("none; `buildbee join TICKET`"));
}

#[test]
fn doctor_finds_nothing_broken() {
    let home = Home::new();
    let document = home.document(&["doctor", "--json"]);
    let checks = document["checks"].as_array().unwrap();
    assert!(checks.len() >= 6);
    assert!(checks.iter().all(|check| check["state"] != "fail"), "{document:#}");
    let membership = checks.iter().find(|check| check["name"] == "membership").unwrap();
    assert!(membership["state"] == "warn" && membership["hint"].is_string());
}

#[test]
fn doctor_fails_on_a_broken_setting() {
    let home = Home::new();
    let output = home.command(&["doctor"]).env("BUILDBEE_RACING", "sometimes").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("FAIL  settings: ") && said.contains("hint: "), "{said}");
}

#[test]
fn mistakes_come_with_a_hint() {
    let home = Home::new();
    for (arguments, code, text) in [
        (["join", "nonsense"].as_slice(), 2, "a ticket starts with"),
        (&["join", "buildbee-ticket-00ff"], 2, "damaged"),
        (&["trace"], 1, "no daemon is running"),
        (&["stop"], 1, "no daemon is running"),
    ] {
        let (found, said) = home.complains(arguments);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.starts_with("error: ") && said.contains(text) && said.contains("\nhint: "), "{said}");
    }
    assert_eq!(home.complains(&["stats", "--jsno"]).0, Some(2));
    let output = home.command(&["stats"]).env("BUILDBEE_CACHE_SIZE", "lots").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_describes_the_settings() {
    let home = Home::new();
    let said = home.says(&["help", "config"]);
    assert!(said.starts_with("settings file: /") && said.contains("\n#racing = "), "{said}");
    assert!(home.says(&["help"]).contains("buildbee help config"));
    assert!(home.says(&["help", "stats"]).contains("--zero"), "other words are left to the parser");
    let output = home.command(&["help", "config"]).env("BUILDBEE_CONFIG", "/etc/mine.toml").output().unwrap();
    assert!(output.stdout.starts_with(b"settings file: /etc/mine.toml\n"));
}

#[test]
fn a_farm_needs_its_members_programs() {
    let home = Home::new();
    let bin = home.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_buildbee-cli")).arg(&bin).status().unwrap();
    assert!(copied.success());
    let output = std::process::Command::new(bin.join("buildbee-cli"))
        .args(["farm", "up", "--", "true"])
        .env("TMPDIR", home.path(""))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("buildbee-coordinator is neither in") && said.contains("hint: "), "{said}");
    let left = std::fs::read_dir(home.path("")).unwrap().flatten().filter(|entry| entry.file_name() != "x.c").count();
    assert_eq!(left, 1, "only the copied program is left");
}
