//! Digests of toolchains' large files, kept over starts of the daemon: it leaves when it is idle, and a sysroot has 500 MB.
//!
//! They count for the kernel's boot in which they were made only: after a loss of power a file may have lost what was hashed and kept its
//! times. A file that is damaged, of another boot or of another version is none; nothing is lost but time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use buildbee_p2p::private_file;
use buildbee_proto::canonical::{Canonical, CanonicalError, Reader, Writer};
use buildbee_proto::digest::Digest;

use super::filehash::{FileIdentity, Hashed};

/// Files kept; beyond it they start over. A sysroot has a hundred large ones.
pub(super) const MAX_FILES: usize = 4096;
/// Smaller files are hashed as fast as they are looked up.
pub(super) const MIN_BYTES: u64 = 32 << 10;
/// Largest file of them: `MAX_FILES` with paths of some length.
const MAX_BYTES: u64 = 4 << 20;
/// Says which boot of the kernel this is.
const BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// By path.
pub(super) type Files = BTreeMap<String, Hashed>;

/// Where they are kept, and during which boot.
#[derive(Clone, Debug)]
pub(super) struct Place {
    file: PathBuf,
    boot: String,
}

impl Place {
    /// In `file`. `None` where the kernel does not say which boot this is.
    pub(super) fn new(file: PathBuf) -> Option<Self> {
        let boot = fs::read_to_string(BOOT_FILE).ok()?.trim().to_owned();
        (!boot.is_empty()).then_some(Self { file, boot })
    }

    /// What is there; nothing where it can't be believed.
    pub(super) fn load(&self) -> Files {
        self.read().filter(|kept| kept.boot == self.boot).map_or_else(Files::new, |kept| kept.files)
    }

    fn read(&self) -> Option<Kept> {
        let mut bytes = Vec::new();
        File::open(&self.file).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        let (checksum, content) = bytes.split_first_chunk::<{ blake3::OUT_LEN }>()?;
        (blake3::hash(content) == *checksum).then(|| Kept::from_canonical(content).ok()).flatten()
    }

    /// Replaces it. A disk that refuses costs a later daemon its time.
    pub(super) fn save(&self, files: Files) {
        let content = Kept { boot: self.boot.clone(), files }.to_canonical();
        let mut bytes = blake3::hash(&content).as_bytes().to_vec();
        bytes.extend(content);
        if let Err(error) = private_file::replace(&self.file, &bytes) {
            tracing::debug!(file = %self.file.display(), %error, "digests are not kept");
        }
    }
}

/// The file's content, after its checksum.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    boot: String,
    files: Files,
}

impl Canonical for Kept {
    const TAG: [u8; 4] = *b"bbL1";

    fn encode(&self, out: &mut Writer) {
        out.text(&self.boot);
        let files: Vec<_> = self.files.iter().collect();
        out.list(&files, |out, (path, hashed)| {
            out.text(path);
            out.digest(&hashed.digest);
            out.bool(hashed.executable);
            let FileIdentity { device, inode, size, mtime_ns, ctime_ns, mode } = hashed.identity;
            out.u64(device);
            out.u64(inode);
            out.u64(size);
            out.raw(&mtime_ns.to_le_bytes());
            out.raw(&ctime_ns.to_le_bytes());
            out.u32(mode);
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let boot = input.text()?;
        let files = input.list(MAX_FILES, |input| {
            let (path, digest, executable): (_, Digest, _) = (input.text()?, input.digest()?, input.bool()?);
            let identity = FileIdentity {
                device: input.u64()?,
                inode: input.u64()?,
                size: input.u64()?,
                mtime_ns: i128::from_le_bytes(input.array()?),
                ctime_ns: i128::from_le_bytes(input.array()?),
                mode: input.u32()?,
            };
            Ok((path, Hashed { digest, executable, identity }))
        })?;
        Ok(Self { boot, files: files.into_iter().collect() })
    }
}

/// Those of `paths` that `known` knows and that are large, added to `files`. Whether there were any new ones.
pub(super) fn add<'a>(
    files: &mut Files,
    paths: impl Iterator<Item = &'a Path>,
    known: impl Fn(&Path) -> Option<Hashed>,
) -> bool {
    let mut changed = false;
    for path in paths {
        let (Some(text), Some(hashed)) = (path.to_str(), known(path)) else { continue };
        if hashed.identity.size_bytes() < MIN_BYTES || files.get(text) == Some(&hashed) {
            continue;
        }
        if files.len() >= MAX_FILES {
            files.clear();
        }
        files.insert(text.to_owned(), hashed);
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::filehash::FileHashes;
    use super::*;

    #[test]
    fn a_later_memory_knows_large_files_and_believes_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let (large, small, kept) = (folder.path().join("l"), folder.path().join("s"), folder.path().join("hashes"));
        fs::write(&large, vec![7; 100_000]).unwrap();
        fs::write(&small, "7").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let hashes = FileHashes::lasting(kept.clone());
        let digest = hashes.hash(&large).unwrap().digest;
        hashes.hash(&small).unwrap();
        hashes.make_last([large.as_path(), small.as_path()].into_iter());
        let later = FileHashes::lasting(kept.clone());
        assert_eq!(later.known(&large).unwrap().digest, digest);
        assert!(later.known(&small).is_none());
        // Another file of the same size and name is not that file.
        let mtime = fs::metadata(&large).unwrap().modified().unwrap();
        fs::write(&large, vec![8; 100_000]).unwrap();
        File::options().append(true).open(&large).unwrap().set_modified(mtime).unwrap();
        assert!(FileHashes::lasting(kept.clone()).known(&large).is_none());
        let whole = fs::read(&kept).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&kept, &damaged).unwrap();
            assert!(Place::new(kept.clone()).unwrap().load().is_empty(), "{at}");
        }
        fs::write(&kept, &whole).unwrap();
        let other = Place { file: kept.clone(), boot: "another".to_owned() };
        assert!(other.load().is_empty());
        assert_eq!(Place::new(kept).unwrap().load().len(), 1);
    }

    #[test]
    fn the_file_is_bounded_and_keeps_its_bytes() {
        let identity =
            FileIdentity { device: 1, inode: 2, size: MIN_BYTES, mtime_ns: -3, ctime_ns: 4, mode: 0o100_755 };
        let hashed = Hashed { digest: Digest::of(b"x"), executable: true, identity };
        let mut files = Files::new();
        let paths: Vec<PathBuf> = (0..=MAX_FILES).map(|n| PathBuf::from(format!("/{n}"))).collect();
        assert!(add(&mut files, paths.iter().map(PathBuf::as_path), |_| Some(hashed)));
        assert_eq!(files.len(), 1);
        assert!(!add(&mut files, [Path::new("/4096")].into_iter(), |_| Some(hashed)));
        let kept = Kept { boot: "b".to_owned(), files };
        let bytes = kept.to_canonical();
        assert_eq!(Kept::from_canonical(&bytes).unwrap(), kept);
        // Changes with the format, which then needs another tag.
        assert_eq!(blake3::hash(&bytes).to_hex().get(..16), Some("7a4498046e195dbd"));
    }
}
