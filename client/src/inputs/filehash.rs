//! Remembers the digest of each file by what the kernel says of it, so that a hit costs a `stat` and not a read.
//!
//! An entry counts only if device, inode, size, mtime and ctime are as they were when it was hashed, and both times were clearly older
//! than that moment: a file written in the same tick of the kernel's clock could change again without a trace. Files on network and
//! FUSE file systems are hashed every time, because their times can't be trusted.
//!
//! Compiles that begin together want the same headers: a file is read by one of them, and the others go on with what else they need
//! ([`FileHashes::hash_source_unless_read`]), or wait.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbee_proto::digest::Digest;
use nix::libc::O_NONBLOCK;
use nix::sys::statfs::fstatfs;

use super::devices::Devices;
use super::lasting;
use super::scan::{Scan, scan};
use super::twins::Stamp;

/// Files remembered; beyond it the memory starts over.
const MAX_FILES: usize = 200_000;
/// Scans remembered; beyond it the memory starts over.
const MAX_SCANS: usize = 100_000;
/// Largest source that is read into memory.
const MAX_SOURCE_BYTES: u64 = 256 << 20;
/// Room for a text that a thread keeps for the next one: most headers fit, and threads are many.
const KEPT_TEXT_BYTES: usize = 64 << 10;
/// How much older than the moment of hashing a file's times must be. Kernel ticks are at most 10 ms.
pub(super) const TICK: Duration = Duration::from_millis(20);

thread_local! {
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What the kernel says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i128,
    pub(super) ctime_ns: i128,
    pub(super) mode: u32,
}

impl FileIdentity {
    /// From a `stat` that followed symlinks.
    pub fn of(meta: &fs::Metadata) -> Self {
        let ns = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
            mode: meta.mode(),
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// What compilers tell files of equal content apart by.
    pub fn stamp(&self) -> Stamp {
        let second = self.mtime_ns.div_euclid(1_000_000_000);
        Stamp { file: (self.device, self.inode), second }
    }

    /// Whether its owner may execute it.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    /// Of the file system that it is on.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Whether its content is no younger than `moment`, by its time.
    pub fn written_before(&self, moment: SystemTime) -> bool {
        let moment = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.mtime_ns <= i128::try_from(moment).unwrap_or(i128::MAX)
    }

    /// Whether its times are clearly older than `moment`: a change after it gives it others.
    pub fn settled_before(&self, moment: SystemTime) -> bool {
        let moment = moment.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(TICK).as_nanos();
        let moment = i128::try_from(moment).unwrap_or(i128::MAX);
        self.mtime_ns < moment && self.ctime_ns < moment
    }
}

/// A file as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Its content.
    pub digest: Digest,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// What the kernel said.
    pub identity: FileIdentity,
}

#[derive(Debug, Default)]
struct Memory {
    /// By path. As bytes, which are compared faster than components.
    files: HashMap<OsString, Hashed>,
    scans: HashMap<Digest, Arc<Scan>>,
    /// Files that are being read, each by one thread; so bounded by the threads that block.
    reading: HashSet<OsString>,
    /// Those that later daemons shall know.
    lasting: lasting::Files,
}

impl Memory {
    fn file(&self, path: &Path, identity: &FileIdentity) -> Option<Hashed> {
        self.files.get(path.as_os_str()).filter(|hashed| hashed.identity == *identity).copied()
    }

    fn source(&self, path: &Path, identity: &FileIdentity) -> Option<(Hashed, Arc<Scan>)> {
        let hashed = self.file(path, identity)?;
        Some((hashed, Arc::clone(self.scans.get(&hashed.digest)?)))
    }
}

/// The memory. Cheap to clone; all clones are one. Calls read files: keep them off the event loop.
#[derive(Clone, Debug, Default)]
pub struct FileHashes {
    memory: Arc<Mutex<Memory>>,
    /// Rung when a file has been read.
    was_read: Arc<Condvar>,
    devices: Arc<Devices>,
    /// Where they are kept.
    place: Option<lasting::Place>,
}

impl FileHashes {
    /// Knows what an earlier one of this boot of the kernel kept in `file`, and keeps there what [`make_last`](Self::make_last) names.
    /// Reads it.
    pub fn lasting(file: PathBuf) -> Self {
        let place = lasting::Place::new(file);
        let lasting = place.as_ref().map(lasting::Place::load).unwrap_or_default();
        let files = lasting.iter().map(|(path, hashed)| (OsString::from(path), *hashed)).collect();
        let memory = Memory { files, lasting, ..Memory::default() };
        Self { memory: Arc::new(Mutex::new(memory)), place, ..Self::default() }
    }

    /// Keeps what is known of the large ones of `paths` for later. Writes a file where that is news.
    pub fn make_last<'a>(&self, paths: impl Iterator<Item = &'a Path>) {
        let Some(place) = &self.place else { return };
        let mut memory = self.memory();
        let Memory { files, lasting, .. } = &mut *memory;
        let changed = lasting::add(lasting, paths, |path| files.get(path.as_os_str()).copied());
        let kept = changed.then(|| lasting.clone());
        drop(memory);
        if let Some(kept) = kept {
            place.save(kept);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // The memory is whole at every point where a panic could strike, so a poisoned lock is as good as any.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digest of the regular file at `path`, from memory where that is safe.
    pub fn hash(&self, path: &Path) -> io::Result<Hashed> {
        let identity = regular(path, &fs::metadata(path)?)?;
        match self.recall(path, &identity) {
            Some(hashed) => Ok(hashed),
            None => self.read_once(path, &identity, false).map(|(hashed, _)| hashed),
        }
    }

    /// What is remembered of the file at `path`, if that is safe.
    pub fn known(&self, path: &Path) -> Option<Hashed> {
        let identity = regular(path, &fs::metadata(path).ok()?).ok()?;
        self.recall(path, &identity)
    }

    /// Like [`hash`](Self::hash), with what the file's text asks for.
    pub fn hash_source(&self, path: &Path) -> io::Result<(Hashed, Arc<Scan>)> {
        let identity = regular(path, &fs::metadata(path)?)?;
        let known = self.memory().source(path, &identity);
        match known {
            Some(known) => Ok(known),
            None => self.read_once(path, &identity, true),
        }
    }

    /// Like [`hash_source`](Self::hash_source); `None` at once while somebody else reads the file.
    pub fn hash_source_unless_read(&self, path: &Path) -> io::Result<Option<(Hashed, Arc<Scan>)>> {
        let identity = regular(path, &fs::metadata(path)?)?;
        let memory = self.memory();
        if let Some(known) = memory.source(path, &identity) {
            return Ok(Some(known));
        }
        let Some(_reading) = self.begin(memory, path) else { return Ok(None) };
        self.read(path, true).map(Some)
    }

    /// What a text asks for that was scanned before; `None` where that is not remembered.
    pub fn scan_of(&self, text: &Digest) -> Option<Arc<Scan>> {
        self.memory().scans.get(text).cloned()
    }

    /// The file that stands at `path` itself, if it has this content now. A symlink to one does not count: gcc shortens names of system
    /// headers by following symlinks.
    pub fn with_content(&self, path: &Path, digest: &Digest) -> Option<FileIdentity> {
        let identity = fs::symlink_metadata(path).and_then(|meta| regular(path, &meta)).ok()?;
        // A different size settles it without reading.
        if identity.size != digest.size_bytes {
            return None;
        }
        let hashed = match self.recall(path, &identity) {
            Some(hashed) => hashed,
            None => self.read_once(path, &identity, false).ok()?.0,
        };
        (hashed.digest == *digest).then_some(hashed.identity)
    }

    /// Whether `path`, with symlinks followed, leads to a file with this content.
    pub fn leads_to(&self, path: &Path, digest: &Digest) -> bool {
        let Ok(identity) = fs::metadata(path).and_then(|meta| regular(path, &meta)) else { return false };
        // A different size settles it without reading.
        identity.size == digest.size_bytes
            && match self.recall(path, &identity) {
                Some(hashed) => hashed.digest == *digest,
                None => self.read_once(path, &identity, false).is_ok_and(|(hashed, _)| hashed.digest == *digest),
            }
    }

    /// The bytes of the file at `path`, if they are those of `digest`: what is remembered of the file says so, else they are hashed.
    pub fn content(&self, path: &Path, digest: &Digest) -> Option<Vec<u8>> {
        // A pipe that has taken the file's place is not waited for.
        let mut file = File::options().read(true).custom_flags(O_NONBLOCK).open(path).ok()?;
        let identity = regular(path, &file.metadata().ok()?).ok()?;
        // One that grew meanwhile must not be taken into memory.
        if identity.size != digest.size_bytes {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(identity.size).ok()?];
        file.read_exact(&mut bytes).ok()?;
        let known = self.recall(path, &identity).is_some_and(|hashed| hashed.digest == *digest);
        let is_as_known = known && FileIdentity::of(&file.metadata().ok()?) == identity;
        (is_as_known || Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Remembers the content of a file that was just made, by who has it at hand: `identity` is what the kernel said after the last write to
    /// it. Others who write into it are noticed unless they do so in that same tick, when the file has hardly got its name.
    pub fn remember_made(&self, path: &Path, digest: Digest, meta: &fs::Metadata) {
        let Ok(identity) = regular(path, meta) else { return };
        let is_believed = || self.devices.believes(identity.device, || nix::sys::statfs::statfs(path));
        if identity.size == digest.size_bytes && is_believed() {
            self.insert(path, Hashed { digest, executable: identity.is_executable(), identity });
        }
    }

    fn insert(&self, path: &Path, hashed: Hashed) {
        let mut memory = self.memory();
        if memory.files.len() >= MAX_FILES {
            memory.files.clear();
        }
        memory.files.insert(path.as_os_str().to_owned(), hashed);
    }

    fn recall(&self, path: &Path, identity: &FileIdentity) -> Option<Hashed> {
        self.memory().file(path, identity)
    }

    /// Takes it upon this thread to read `path`; `None` while another does.
    fn begin(&self, mut memory: MutexGuard<'_, Memory>, path: &Path) -> Option<Reading<'_>> {
        memory.reading.insert(path.as_os_str().to_owned()).then(|| Reading { hashes: self, path: path.to_owned() })
    }

    /// Reads the file, or waits for who reads it already and takes what they found, if that is remembered.
    fn read_once(&self, path: &Path, identity: &FileIdentity, scanned: bool) -> io::Result<(Hashed, Arc<Scan>)> {
        let mut memory = self.memory();
        if memory.reading.contains(path.as_os_str()) {
            while memory.reading.contains(path.as_os_str()) {
                memory = self.was_read.wait(memory).unwrap_or_else(PoisonError::into_inner);
            }
            let known = if scanned {
                memory.source(path, identity)
            } else {
                memory.file(path, identity).map(|hashed| (hashed, Arc::default()))
            };
            drop(memory);
            // What is not remembered is read each time, by everybody: to wait for one another would gain nothing.
            return known.map_or_else(|| self.read(path, scanned), Ok);
        }
        let _reading = self.begin(memory, path);
        self.read(path, scanned)
    }

    fn read(&self, path: &Path, scanned: bool) -> io::Result<(Hashed, Arc<Scan>)> {
        let moment = SystemTime::now();
        let mut file = File::open(path)?;
        let identity = regular(path, &file.metadata()?)?;
        let (digest, found) = if scanned {
            if identity.size > MAX_SOURCE_BYTES {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "source file is too large"));
            }
            with_text(&mut file, identity.size, |text| {
                let digest = Digest::of(text);
                let known = self.memory().scans.get(&digest).cloned();
                (digest, known.unwrap_or_else(|| Arc::new(scan(text))))
            })?
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&mut file)?;
            (Digest::from_blake3(hasher.finalize(), hasher.count()), Arc::default())
        };
        // What was read is the file that was opened; had it changed meanwhile, its identity would differ now.
        let after = FileIdentity::of(&file.metadata()?);
        let executable = identity.mode & 0o100 != 0;
        let hashed = Hashed { digest, executable, identity };
        let trusted = after == identity
            && identity.settled_before(moment)
            && self.devices.believes(identity.device, || fstatfs(&file));
        if trusted {
            self.insert(path, hashed);
        } else {
            self.memory().files.remove(path.as_os_str());
        }
        if scanned {
            let mut memory = self.memory();
            if memory.scans.len() >= MAX_SCANS {
                memory.scans.clear();
            }
            memory.scans.insert(digest, Arc::clone(&found));
        }
        Ok((hashed, found))
    }
}

/// One thread's reading of one file, from [`FileHashes::begin`] on.
#[derive(Debug)]
struct Reading<'a> {
    hashes: &'a FileHashes,
    path: PathBuf,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.hashes.memory().reading.remove(self.path.as_os_str());
        self.hashes.was_read.notify_all();
    }
}

/// Reads all of `file`, which says that it has `size` bytes; it may have more by now.
fn with_text<T>(file: &mut File, size: u64, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let size = usize::try_from(size).unwrap_or(0);
    TEXT.with_borrow_mut(|text| {
        if text.len() < size {
            text.resize(size, 0);
        }
        let mut n_read = 0;
        while n_read < size {
            match file.read(&mut text[n_read..size]) {
                Ok(0) => break,
                Ok(n) => n_read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut more = Vec::new();
        if n_read == size {
            file.take(MAX_SOURCE_BYTES).read_to_end(&mut more)?;
        }
        let looked = if more.is_empty() { look(&text[..n_read]) } else { look(&[&text[..n_read], &more].concat()) };
        if text.len() > KEPT_TEXT_BYTES {
            *text = Vec::new();
        }
        Ok(looked)
    })
}

fn regular(path: &Path, meta: &fs::Metadata) -> io::Result<FileIdentity> {
    if meta.is_file() {
        Ok(FileIdentity::of(meta))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::FileTimes;

    fn age(path: &Path, by: Duration) {
        let then = SystemTime::now() - by;
        File::options().append(true).open(path).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
    }

    #[test]
    fn content_is_that_of_the_digest_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h");
        let hashes = FileHashes::default();
        fs::write(&path, "one").unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        assert_eq!(hashes.content(&path, &one).unwrap(), b"one", "nothing is known of it");
        std::thread::sleep(TICK * 2);
        assert_eq!(hashes.hash(&path).unwrap().digest, one);
        assert_eq!(hashes.content(&path, &one).unwrap(), b"one");
        assert_eq!(hashes.content(&path, &two), None);
        let mtime = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "two").unwrap();
        File::options().append(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
        assert_eq!(hashes.content(&path, &one), None, "what was known is over");
        assert_eq!(hashes.content(&path, &two).unwrap(), b"two");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(hashes.content(&path, &two), None, "a pipe is not waited for");
    }

    #[test]
    fn texts_of_any_length_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let hashes = FileHashes::default();
        for n_bytes in [0, 1, KEPT_TEXT_BYTES - 1, KEPT_TEXT_BYTES, 7, KEPT_TEXT_BYTES * 3 + 1, 12_000] {
            let path = folder.path().join(n_bytes.to_string());
            let mut text = vec![b'x'; n_bytes];
            text.extend_from_slice(b"\n#include <last.h>\n");
            fs::write(&path, &text).unwrap();
            let (hashed, scan) = hashes.hash_source(&path).unwrap();
            assert_eq!(hashed.digest, Digest::of(&text));
            assert_eq!(scan.includes.len(), 1);
            let mut file = File::open(&path).unwrap();
            let whole = with_text(&mut file, n_bytes as u64, <[u8]>::to_vec).unwrap();
            assert_eq!(whole, text, "a file that grew");
        }
    }

    #[test]
    fn a_change_with_size_and_mtime_kept_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h");
        let hashes = FileHashes::default();
        fs::write(&path, "one").unwrap();
        let mtime = fs::metadata(&path).unwrap().modified().unwrap();
        std::thread::sleep(TICK * 2);
        assert_eq!(hashes.hash(&path).unwrap().digest, Digest::of(b"one"));
        fs::write(&path, "two").unwrap();
        File::options().append(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
        assert_eq!(hashes.hash(&path).unwrap().digest, Digest::of(b"two"));
    }

    #[test]
    fn a_file_hashed_in_its_first_moment_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h");
        let hashes = FileHashes::default();
        fs::write(&path, "one").unwrap();
        age(&path, Duration::from_secs(60));
        hashes.hash(&path).unwrap();
        // Its mtime is old, but its ctime is not: another write in the same tick would go unseen.
        assert!(hashes.memory().files.is_empty());
        std::thread::sleep(TICK * 2);
        hashes.hash(&path).unwrap();
        assert_eq!(hashes.memory().files.len(), 1);
    }

    #[test]
    fn what_was_just_made_is_known_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libx.rlib");
        let hashes = FileHashes::default();
        fs::write(&path, "made").unwrap();
        hashes.remember_made(&path, Digest::of(b"else"), &fs::metadata(&path).unwrap());
        // Whoever made it knows what is in it: it is not read.
        assert!(hashes.leads_to(&path, &Digest::of(b"else")));
        std::thread::sleep(TICK);
        fs::write(&path, "more").unwrap();
        assert!(hashes.leads_to(&path, &Digest::of(b"more")));
        hashes.remember_made(&path, Digest::of(b"of another size"), &fs::metadata(&path).unwrap());
        assert!(hashes.leads_to(&path, &Digest::of(b"more")));
    }

    #[test]
    fn a_file_that_is_being_read_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h");
        fs::write(&path, "#include <b.h>").unwrap();
        std::thread::sleep(TICK * 2);
        let hashes = FileHashes::default();
        let reading = hashes.begin(hashes.memory(), &path).unwrap();
        assert!(hashes.hash_source_unless_read(&path).unwrap().is_none());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| hashes.hash_source(&path).unwrap());
            let (hashed, found) = hashes.read(&path, true).unwrap();
            drop(reading);
            assert_eq!(waits.join().unwrap(), (hashed, found));
        });
        // Whoever gives up leaves it to the others.
        let other = folder.path().join("b.h");
        fs::write(&other, "").unwrap();
        let reading = hashes.begin(hashes.memory(), &other).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| hashes.hash(&other).unwrap());
            drop(reading);
            assert_eq!(waits.join().unwrap().digest, Digest::of(b""));
        });
        assert!(hashes.memory().reading.is_empty());
    }

    #[test]
    fn folders_and_devices_are_refused() {
        assert!(FileHashes::default().hash(Path::new("/")).is_err());
        assert!(FileHashes::default().hash(Path::new("/dev/null")).is_err());
    }
}
