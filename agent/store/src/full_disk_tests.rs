//! A disk that fills up costs the one call that met it, and nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::store_tests::{blob_path, open, result};
use crate::{LinkError, PutError};

/// Tells the child which folder to fill, and with how much.
const VARIABLE: &str = "BUILDBEE_STORE_TEST_FILL";

/// Not a test: fills the folder that it is told.
#[test]
#[ignore = "runs as the child of the other tests here"]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test reaches its child")]
    let Ok(dir) = std::env::var(VARIABLE) else { return };
    let dir = Path::new(&dir);
    let store = open(&dir.join("store"));
    let small = store.put_bytes(b"small").unwrap();
    let kept = store.put_bytes(&vec![7; 100_000]).unwrap();
    let large = vec![1; 12 << 20];
    let error = store.put_bytes(&large).unwrap_err();
    assert!(matches!(error, PutError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("\nhint: "));
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().join("large");
    // Where a limit on the size of files is at work and not the disk, there can't be such a file.
    if fs::write(&outside, &large).is_ok() {
        assert!(matches!(store.put_file(&outside), Err(PutError::NoSpace { .. })));
    }
    assert_eq!(fs::read_dir(dir.join("store/tmp")).unwrap().count(), 0, "no leftovers");

    // Filled to the brim, it still answers.
    let mut n_small = 0u32;
    let error = loop {
        n_small += 1;
        if n_small == 1200 {
            break None;
        }
        if let Err(error) = store.put_bytes(&n_small.to_le_bytes().repeat(4096)) {
            break Some(error);
        }
    };
    assert!(matches!(error, None | Some(PutError::NoSpace { .. })), "{error:?}");
    let full = error.is_some();
    assert_eq!(store.read(&kept, 100_000).unwrap().unwrap(), vec![7; 100_000]);
    if full {
        assert!(matches!(store.link(&kept, true, &dir.join("x")), Err(LinkError::Put(PutError::NoSpace { .. }))));
    }
    drop(store);
    let store = open(&dir.join("store"));
    assert_eq!(store.read(&small, 100).unwrap().unwrap(), b"small");
    assert_eq!(store.verify().n_bad, 0);
    let n_blobs = store.usage().blobs;
    assert!(n_blobs > 2);
    store.clear();
    store.put_bytes(&vec![9; 100_000]).unwrap();
    store.put_result(&result(b"action", small, small)).unwrap();
    assert!(blob_path(&dir.join("store"), &kept).parent().unwrap().exists());
    println!("filled: {full}, blobs: {n_blobs}");
}

fn shell(program: &str, arguments: &[&str], dir: &Path) -> std::process::Output {
    Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk_tests::child", "--ignored", "--nocapture"])
        .env(VARIABLE, dir)
        .output()
        .unwrap()
}

#[test]
fn small_file_system() {
    // A mount of its own in a namespace of its own: works for root and for everybody else where user namespaces are allowed.
    let namespace = ["--user", "--map-root-user", "--mount"];
    if !Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success()) {
        println!("skipped: no user namespaces here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=10m none \"$0\" && exec \"$@\"";
    let mut arguments = namespace.to_vec();
    let path = dir.path().to_str().unwrap();
    arguments.extend(["sh", "-c", script, path]);
    let output = shell("unshare", &arguments, dir.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("filled: true"), "{text}");
}

#[test]
fn limit_on_the_size_of_files() {
    let dir = tempfile::tempdir().unwrap();
    // In units of 512 or 1024 bytes, as the shell has it: between 4 and 8 MiB. The signal is ignored, so that writes fail instead.
    let script = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\"";
    let output = shell("sh", &["-c", script], dir.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("filled: false"), "{text}");
}
