//! The recorder around a local run: a log in memory, and the variables that have the compiler and its children write it.
//!
//! The log is a file without a name, reached through this process's descriptor: nothing is left of it whoever is killed, no full disk
//! harms who writes it, and a compiler that closes all its descriptors does not lose it. Nothing here fails a run: without a log there
//! is nothing to send. What the log says is the daemon's to understand.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::process::Command;

use buildbee_proto::codec::Bytes;
use buildbee_proto::limits::MAX_RECORD_BYTES;
use buildbee_proto::record::{HEADER_BYTES, VARIABLE, header, used_bytes};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The loader's list of libraries to load first.
pub const PRELOAD: &str = "LD_PRELOAD";

/// A log, while the compiler runs.
#[derive(Debug)]
pub struct Recording {
    log: File,
}

impl Recording {
    /// Has `command` record what it asks for, with `library`. `preloaded` is what the user preloads, which stays in front.
    pub fn start(command: &mut Command, library: &str, preloaded: Option<&OsStr>) -> Option<Self> {
        // The loader splits its list at both, and quotes nothing.
        if !library.starts_with('/') || library.contains([' ', ':']) {
            return None;
        }
        let log = empty_log().ok()?;
        let mut list = OsString::new();
        if let Some(preloaded) = preloaded.filter(|list| !list.is_empty()) {
            list.push(preloaded);
            list.push(":");
        }
        list.push(library);
        command.env(PRELOAD, list);
        command.env(VARIABLE, format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd()));
        Some(Self { log })
    }

    /// What was noted so far.
    pub fn read(&self) -> Option<Bytes> {
        let mut header = [0; HEADER_BYTES];
        self.log.read_exact_at(&mut header, 0).ok()?;
        let mut log = vec![0; used_bytes(&header)?];
        self.log.read_exact_at(&mut log, 0).ok()?;
        Some(Bytes(log))
    }
}

fn empty_log() -> io::Result<File> {
    let mut log = File::from(memfd_create(c"buildbee-record", MFdFlags::MFD_CLOEXEC)?);
    log.write_all(&header())?;
    log.set_len(MAX_RECORD_BYTES as u64)?;
    Ok(log)
}

/// The value of `name` in a list of `NAME=value`.
pub fn value<'a>(environment: &'a [Bytes], name: &str) -> Option<&'a OsStr> {
    let value = |entry: &'a Bytes| entry.0.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    environment.iter().find_map(value).map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(command: &Command, name: &str) -> Option<OsString> {
        command
            .get_envs()
            .find(|(known, _)| *known == OsStr::new(name))
            .and_then(|(_, value)| value.map(OsStr::to_owned))
    }

    #[test]
    fn the_user_s_own_libraries_stay_in_front() {
        for (preloaded, expected) in
            [(None, "/l/r.so"), (Some(""), "/l/r.so"), (Some("/a.so b.so"), "/a.so b.so:/l/r.so")]
        {
            let mut command = Command::new("cc");
            let recording = Recording::start(&mut command, "/l/r.so", preloaded.map(OsStr::new)).unwrap();
            assert_eq!(variable(&command, PRELOAD).unwrap(), expected);
            let log = std::fs::read(variable(&command, VARIABLE).unwrap()).unwrap();
            assert_eq!((log.len(), &log[..HEADER_BYTES]), (MAX_RECORD_BYTES, &header()[..]));
            assert_eq!(recording.read(), Some(Bytes(header().to_vec())));
        }
    }

    #[test]
    fn a_library_that_the_list_cannot_name_is_not_loaded() {
        for library in ["", "r.so", "/a b/r.so", "/a:b/r.so"] {
            let mut command = Command::new("cc");
            assert!(Recording::start(&mut command, library, None).is_none());
            assert_eq!(command.get_envs().count(), 0);
        }
    }

    #[test]
    fn variables_are_found_by_their_whole_name() {
        let environment = ["LD_PRELOADED=1", "LD_PRELOAD=2=3"].map(|entry| Bytes(entry.into()));
        assert_eq!(value(&environment, PRELOAD), Some(OsStr::new("2=3")));
        assert_eq!(value(&environment, "LD"), None);
    }
}
