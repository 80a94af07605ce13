//! Hands out an output as soon as the program says that it is written, while the program goes on.
//!
//! rustc writes a crate's metadata before it makes code, gives it its name by one rename, and then says so in a line of JSON on standard
//! error (`--json=artifacts`): cargo starts what depends on the crate at that line. Knows no more of rustc than that line.

use std::path::Path;

use buildbee_proto::digest::Digest;
use buildbee_proto::path::RelPath;
use buildbee_sandbox::attempt::Listener;
use buildbee_store::{PutError, Store};
use tokio::sync::oneshot;

use crate::standing::Early;

/// Standard error of a program that says more before that line is not searched further: it waits for the end.
const MAX_STDERR_BYTES: usize = 1 << 20;
/// Larger outputs wait for the end.
const MAX_OUTPUT_BYTES: u64 = 256 << 20;

/// Listens for the line that says that `output` is written, and hands on standard error up to and with it.
pub(super) fn listener(output: &RelPath) -> (Listener, oneshot::Receiver<Vec<u8>>) {
    let (said, heard) = oneshot::channel();
    let sign = format!("\"artifact\":\"/{output}\"").into_bytes();
    let (mut said, mut searched) = (Some(said), 0);
    let listener = move |stderr: &[u8]| {
        if said.is_none() {
            return;
        }
        while let Some(length) = stderr.get(searched..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let line = searched..searched + length;
            searched = line.end + 1;
            let Some(line) = stderr.get(line) else { return };
            if line.windows(sign.len()).any(|part| part == sign)
                && let (Some(said), Some(prefix)) = (said.take(), stderr.get(..searched))
            {
                // Who waited may be gone.
                let _ = said.send(prefix.to_vec());
                return;
            }
        }
        if searched > MAX_STDERR_BYTES {
            said = None;
        }
    };
    (Box::new(listener), heard)
}

/// Takes `output` of a program that runs still out of what it wrote so far. `None` where it is not there after all. Blocks.
pub(super) fn take(store: &Store, upper: &Path, output: &RelPath, stderr: Vec<u8>) -> Result<Option<Early>, PutError> {
    let Some((content, mode)) = read(upper, output) else { return Ok(None) };
    let digest = Digest::of(&content);
    let pin = store.pin([digest]);
    store.put_expected(&digest, &content)?;
    Ok(Some(Early { output: digest, stderr, mode, observed: None, pin }))
}

/// A regular file that no symlink leads to: the program that wrote it is not to be trusted.
fn read(upper: &Path, output: &RelPath) -> Option<(Vec<u8>, u32)> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

    let folder = std::fs::File::open(upper).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = std::fs::File::from(openat2(&folder, output.as_str(), how).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() == 0 || metadata.len() > MAX_OUTPUT_BYTES {
        return None;
    }
    let mut content = Vec::new();
    file.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut content).ok()?;
    (content.len() as u64 <= MAX_OUTPUT_BYTES).then_some((content, metadata.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::try_from(text).unwrap()
    }

    #[test]
    fn the_line_is_heard_however_it_is_cut_and_only_once_whole() {
        let text = b"{\"message\":\"warning\"}\n{\"artifact\":\"/t/x.rmeta\",\"emit\":\"metadata\"}\nmore\n";
        let end = text.len() - 5;
        for piece in [1, 7, text.len()] {
            let (mut listener, mut heard) = listener(&path("t/x.rmeta"));
            for upto in (piece..end).step_by(piece) {
                listener(&text[..upto]);
                assert!(heard.try_recv().is_err(), "{upto}");
            }
            listener(text);
            listener(text);
            assert_eq!(heard.try_recv().unwrap(), &text[..end]);
        }
    }

    #[test]
    fn other_outputs_and_endless_text_are_not_it() {
        let (mut listener_, mut heard) = listener(&path("t/x.rmeta"));
        listener_(b"{\"artifact\":\"/t/x.rlib\"}\n");
        assert!(heard.try_recv().is_err());
        let mut long = vec![b'.'; MAX_STDERR_BYTES + 1];
        long.push(b'\n');
        listener_(&long);
        long.extend_from_slice(b"{\"artifact\":\"/t/x.rmeta\"}\n");
        listener_(&long);
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn only_a_plain_file_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let upper = folder.path().join("upper");
        std::fs::create_dir_all(upper.join("t")).unwrap();
        assert_eq!(read(&upper, &path("t/x")), None);
        std::fs::write(upper.join("t/x"), "metadata").unwrap();
        assert_eq!(read(&upper, &path("t/x")).unwrap().0, b"metadata");
        std::os::unix::fs::symlink("x", upper.join("t/link")).unwrap();
        assert_eq!(read(&upper, &path("t/link")), None);
        std::os::unix::fs::symlink("/etc", upper.join("etc")).unwrap();
        assert_eq!(read(&upper, &path("etc/passwd")), None);
        nix::unistd::mkfifo(&upper.join("t/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&upper, &path("t/pipe")), None);
    }
}
