//! What a command can't see or do.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use buildbee_sandbox::attempt::Exit;

use crate::place::{Place, helper, is_root, launcher, run};
use crate::programs::toolchain;

#[tokio::test]
async fn no_network() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let completed = place.run(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}")).await;
    assert_ne!(completed.exit, Exit::Code(0));
    assert!(String::from_utf8_lossy(&completed.stderr).contains("Connection refused"));
    let interfaces = place_text("while read -r name rest; do echo $name; done < /proc/net/dev").await;
    let interfaces: Vec<_> = interfaces.lines().filter(|line| line.ends_with(':')).collect();
    assert_eq!(interfaces, ["lo:"]);
}

#[tokio::test]
async fn no_two_commands_have_one_network_at_once() {
    let _layer = toolchain();
    let launcher = launcher().await;
    let places = [Place::new(), Place::new(), Place::new()];
    // Each says where it is while the others are there.
    let at = |place: &Place| place.shell("readlink /proc/self/ns/net; exec sleep 2");
    let (one, two, three) =
        tokio::join!(run(&launcher, at(&places[0])), run(&launcher, at(&places[1])), run(&launcher, at(&places[2])));
    let mut networks = [one, two, three].map(|completed| completed.unwrap().stdout).to_vec();
    networks.sort();
    networks.dedup();
    assert_eq!(networks.len(), places.len());
    let mut later = BTreeSet::new();
    for _ in 0..8 {
        later.insert(run(&launcher, Place::new().shell("readlink /proc/self/ns/net")).await.unwrap().stdout);
    }
    assert!(later.len() < 8, "they are used again");
}

#[tokio::test]
async fn devices_are_the_usual_ones_and_a_folder_of_nobody() {
    let place = Place::new();
    let script = "echo x > /dev/null; head -c 3 /dev/zero | cat -v; echo y > /dev/fd/1; echo z 2>/dev/null > /dev/full || echo full; echo > /dev/shm/mine && echo /dev/shm/*";
    assert_eq!(place.text(script).await, "^@^@^@y\nfull\n/dev/shm/mine");
    assert!(place.path().join("scratch/upper/tmp/mine").exists(), "in its own folder");
    assert_eq!(place_text("echo /dev/shm/*").await, "/dev/shm/*");
    for attempt in
        ["echo > /dev/mine", "mkdir /dev/pts/mine", "rm /dev/null", "ln -sf /tmp /dev/fd", "chmod 000 /dev/zero"]
    {
        assert_ne!(Place::new().run(attempt).await.exit, Exit::Code(0), "{attempt}");
    }
}

async fn place_text(script: &str) -> String {
    Place::new().text(script).await
}

#[tokio::test]
async fn nothing_of_the_host_is_visible() {
    let _layer = toolchain();
    let place = Place::new();
    let home = std::env::home_dir().unwrap_or_else(|| "/root".into());
    let other = Place::new();
    fs::write(other.input("secret"), "secret").unwrap();
    let host = [
        home.as_path(),
        other.path(),
        &place.path().join("scratch"),
        &place.path().join("input"),
        &helper(),
        Path::new("/etc/passwd"),
        Path::new("/var"),
        Path::new("/sys"),
        Path::new("/run"),
    ];
    for path in host {
        let script = format!("if [ -e '{0}' ]; then ls -la '{0}'; fi", path.display());
        assert_eq!(place_text(&script).await, "", "{}", path.display());
    }
    let root = place.text("cd / && echo *").await;
    for name in root.split_whitespace() {
        assert!(["bin", "dev", "home", "lib", "lib64", "proc", "tmp", "usr"].contains(&name), "{root}");
    }
}

#[tokio::test]
async fn tmp_is_private_and_empty() {
    let place = Place::new();
    let before = place.text("echo /tmp/* /tmp/.[a-z]*; stat -c %a /tmp; echo mine > /tmp/buildbee-test-file").await;
    assert_eq!(before, "/tmp/* /tmp/.[a-z]*\n1777");
    assert!(!Path::new("/tmp/buildbee-test-file").exists());
    assert!(place.path().join("scratch/upper/tmp/buildbee-test-file").exists());
}

#[tokio::test]
async fn no_capabilities_and_no_way_to_new_ones() {
    let _layer = toolchain();
    let script = "while read -r key value; do case $key in Cap*|NoNewPrivs:|Seccomp:) echo $key $value;; esac; done < /proc/self/status";
    let status = place_text(script).await;
    let expected = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(|key| format!("{key} 0000000000000000"));
    assert_eq!(
        status.lines().collect::<Vec<_>>(),
        [&expected[..], &["NoNewPrivs: 1".into(), "Seccomp: 2".into()]].concat()
    );
    for attempt in ["unshare -Ur true", "unshare -m true", "mount -t proc proc /proc"] {
        let completed = Place::new().run(attempt).await;
        assert_ne!(completed.exit, Exit::Code(0), "{attempt}");
        let stderr = String::from_utf8_lossy(&completed.stderr).into_owned();
        assert!(stderr.contains("not permitted") || stderr.contains("must be superuser"), "{stderr}");
    }
}

#[tokio::test]
async fn kernel_settings_cannot_be_written() {
    let _layer = toolchain();
    // Nothing that would change anything if it succeeded: present values, and the letter that prints a help text.
    for file in ["sys/kernel/core_pattern", "sys/vm/overcommit_memory", "sys/kernel/pid_max", "sys/net/ipv4/ip_forward"]
    {
        let script = format!("value=$(cat /proc/{file}) && exec 3>/proc/{file} && echo $value >&3 && echo written");
        let completed = Place::new().run(&script).await;
        let stderr = String::from_utf8_lossy(&completed.stderr).into_owned();
        assert_ne!(completed.exit, Exit::Code(0), "{file}");
        assert!(stderr.contains("Read-only file system") || stderr.contains("Permission denied"), "{file}: {stderr}");
    }
    assert_ne!(Place::new().run("echo h > /proc/sysrq-trigger").await.exit, Exit::Code(0));
}

#[tokio::test]
async fn the_environment_is_the_given_one() {
    let place = Place::new();
    let mut spec = place.spec(&["/bin/env"]);
    // A library path for the program must not get to bubblewrap.
    spec.env = vec![
        ("LD_PRELOAD".into(), String::new()),
        ("LD_LIBRARY_PATH".into(), "/none".into()),
        ("A".into(), "b=c d".into()),
    ];
    let completed = run(&launcher().await, spec).await.unwrap();
    let text = String::from_utf8(completed.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=b=c d", "LD_LIBRARY_PATH=/none", "LD_PRELOAD=", "PWD=/home/a/project"]);
}

#[tokio::test]
async fn identity_is_the_same_everywhere() {
    assert_eq!(place_text("id -u; id -g; hostname; pwd").await, "1000\n1000\nbuildbee\n/home/a/project");
}

#[tokio::test]
async fn no_descriptor_leaks_in() {
    let descriptors = place_text("echo /proc/self/fd/*").await;
    // The shell opens one for the pattern itself.
    assert_eq!(descriptors, "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3");
    assert_eq!(place_text("readlink /proc/self/fd/0").await, "/dev/null");
}

#[tokio::test]
async fn only_its_own_processes_are_there() {
    let processes = place_text("echo /proc/[0-9]*").await;
    assert!(processes.split_whitespace().count() <= 3, "{processes}");
}

#[tokio::test]
async fn a_set_user_id_program_gains_nothing() {
    if is_root() {
        let place = Place::new();
        let copied = place.input("id");
        fs::copy("/usr/bin/id", &copied).unwrap();
        fs::set_permissions(&copied, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
        assert_eq!(place.text("./id -u").await, "1000");
    }
}
