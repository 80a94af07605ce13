//! What can go wrong with a store, call by call. Texts that a person may see end with a `hint:` line.

use std::io;
use std::path::{Path, PathBuf};

use buildbee_proto::digest::Digest;
use nix::errno::Errno;
use thiserror::Error;

/// Why a store did not open. Nothing in its folder was changed, except where a variant says so.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the store in {} is in use{}\nhint: stop that process, or give this one a folder of its own",
        .dir.display(), .holder.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    Busy {
        /// Folder of the store.
        dir: PathBuf,
        /// Process that holds it, where it left its number.
        holder: Option<u32>,
    },
    /// It was written by a newer version of this program.
    #[error(
        "the store in {} has format {found}, this version reads up to {known}\n\
         hint: upgrade buildbee, or move the folder away to start with an empty store", .dir.display()
    )]
    Newer {
        /// Folder of the store.
        dir: PathBuf,
        /// Version that the folder says.
        found: u64,
        /// Newest version that this program reads.
        known: u64,
    },
    /// The folder holds something else.
    #[error(
        "{} is not a store: it holds {found:?}\nhint: name an empty or new folder", .dir.display()
    )]
    NotAStore {
        /// The folder.
        dir: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The folder can't be written.
    #[error(
        "the store in {} can't be written ({source})\n\
         hint: check who owns the folder, its permissions, and that its file system is mounted read-write", .dir.display()
    )]
    ReadOnly {
        /// Folder of the store.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room even for the store's own files. Some of its folders may have been made.
    #[error("no space left for the store in {} ({source})\nhint: free disk space, or move the store", .dir.display())]
    NoSpace {
        /// Folder of the store.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else. Some of its folders may have been made.
    #[error(
        "the store can't be opened: {}: {source}\nhint: check the disk; the store holds only copies and may be moved away", .path.display()
    )]
    Io {
        /// What was being opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(dir: &Path, path: &Path, source: io::Error) -> Self {
        if is_denied(&source) {
            Self::ReadOnly { dir: dir.to_owned(), source }
        } else if is_no_space(&source) {
            Self::NoSpace { dir: dir.to_owned(), source }
        } else {
            Self::Io { path: path.to_owned(), source }
        }
    }
}

/// Why something was not stored. What was there before is untouched.
#[derive(Debug, Error)]
pub enum PutError {
    /// The bytes are not what the digest names.
    #[error("content is {found}, not {expected}")]
    Mismatch {
        /// The name it came under.
        expected: Digest,
        /// The name that its bytes have.
        found: Digest,
    },
    /// More bytes than the digest says.
    #[error("content is longer than {expected} says")]
    TooLong {
        /// The name it came under.
        expected: Digest,
    },
    /// The bytes are not that chunk of the blob.
    #[error("content is not chunk {index} of {blob}")]
    NotTheChunk {
        /// The blob.
        blob: Digest,
        /// Which chunk.
        index: u32,
    },
    /// Digest function that this store can't check.
    #[error("{digest} can't be checked here: only BLAKE3 can")]
    Unsupported {
        /// The name.
        digest: Digest,
    },
    /// It is not an ordinary file.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// A record larger than `MAX_RESULT_BYTES`.
    #[error("record of {size_bytes} bytes, {max_bytes} are allowed")]
    RecordTooLarge {
        /// Length of its encoding.
        size_bytes: usize,
        /// The bound.
        max_bytes: usize,
    },
    /// It does not fit, even after everything that may be evicted.
    #[error(
        "{needed_bytes} bytes do not fit the store's {cap_bytes} beside what is in use\nhint: allow the store more space"
    )]
    Full {
        /// Room that it takes in the store.
        needed_bytes: u64,
        /// The store's size.
        cap_bytes: u64,
    },
    /// The disk is full.
    #[error("no space left on the store's disk ({source})\nhint: free disk space, or allow the store less of it")]
    NoSpace {
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PutError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if is_no_space(&source) { Self::NoSpace { source } } else { Self::Io { path: path.to_owned(), source } }
    }
}

/// Why something that is there could not be read. What is missing or was found bad is `Ok(None)`, not an error.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Larger than the caller takes.
    #[error("{digest} is larger than the {max_bytes} bytes that are allowed here")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The caller's bound.
        max_bytes: u64,
    },
    /// The system failed, for example for want of file descriptors or memory.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ReadError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Why a blob was not put in place.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The blob could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The executable twin could not be made.
    #[error(transparent)]
    Put(#[from] PutError),
    /// There is something at the destination already.
    #[error("{} exists already", .destination.display())]
    Exists {
        /// Where it was to go.
        destination: PathBuf,
    },
    /// The destination's disk is full.
    #[error("no space left for {} ({source})\nhint: free disk space", .destination.display())]
    NoSpace {
        /// Where it was to go.
        destination: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else at the destination.
    #[error("{}: {source}", .destination.display())]
    Io {
        /// Where it was to go.
        destination: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LinkError {
    pub(crate) fn io(destination: &Path, source: io::Error) -> Self {
        let destination = destination.to_owned();
        if source.kind() == io::ErrorKind::AlreadyExists {
            Self::Exists { destination }
        } else if is_no_space(&source) {
            Self::NoSpace { destination, source }
        } else {
            Self::Io { destination, source }
        }
    }
}

/// Full disk, used-up quota, or a limit on the size of files.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::ENOSPC, Errno::EDQUOT, Errno::EFBIG])
}

/// Not ours to write.
fn is_denied(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::EACCES, Errno::EPERM, Errno::EROFS])
}

/// Whether `error` is one of these errno values.
pub(crate) fn is_one_of(error: &io::Error, numbers: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|raw| numbers.contains(&Errno::from_raw(raw)))
}
