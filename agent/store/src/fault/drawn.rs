//! Disks as they may be after a loss of power, drawn by lot from what was [noted](super) and from what the kernel showed at the end: of what was
//! not synchronised each name may be there or not, each block old, new or empty, in any order. Folders themselves last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::identity;

/// What the disk writes as a whole.
const BLOCK_BYTES: usize = 512;

/// A disk after its power was lost.
#[derive(Debug)]
pub struct Disk {
    notes: PathBuf,
    folder: PathBuf,
    /// What the kernel showed at the end, by identity.
    shown: HashMap<String, PathBuf>,
}

impl Disk {
    /// What is below `folder`, of which the process that is gone left `notes`.
    pub fn new(folder: &Path, notes: &Path) -> io::Result<Self> {
        let mut shown = HashMap::new();
        identities(folder, &mut shown)?;
        Ok(Self { notes: notes.to_owned(), folder: folder.to_owned(), shown })
    }

    /// Makes, below `to`, what may be left of it: one of many ways, by `seed`.
    pub fn draw(&self, seed: u64, to: &Path) -> io::Result<()> {
        Draw { disk: self, lot: Lot(seed) }.folder(&self.folder, to)
    }
}

fn identities(dir: &Path, found: &mut HashMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            identities(&path, found)?;
        } else {
            found.insert(identity(&metadata), path);
        }
    }
    Ok(())
}

/// Room that files below `dir` take.
pub fn taken_bytes(dir: &Path) -> io::Result<u64> {
    fs::read_dir(dir)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let found = entry.metadata()?;
        Ok(sum + if found.is_dir() { taken_bytes(&entry.path())? } else { found.len() })
    })
}

struct Draw<'a> {
    disk: &'a Disk,
    lot: Lot,
}

/// Draws by a seed that failures name.
struct Lot(u64);

impl Lot {
    fn below(&mut self, n: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap_or(0) % n.max(1)
    }
}

impl Draw<'_> {
    fn folder(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir(to)?;
        let mut shown = BTreeMap::new();
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if metadata.is_dir() {
                self.folder(&entry.path(), &to.join(name))?;
            } else {
                shown.insert(name, identity(&metadata));
            }
        }
        let note = self.disk.notes.join(format!("folder-{}", identity(&fs::metadata(from)?)));
        let noted = fs::read_to_string(note).unwrap_or_default();
        let lasting: BTreeMap<String, String> =
            noted.lines().filter_map(|line| line.split_once(' ')).map(|(id, name)| (name.into(), id.into())).collect();
        let names: BTreeSet<&String> = shown.keys().chain(lasting.keys()).collect();
        for name in names {
            let (new, old) = (shown.get(name), lasting.get(name));
            let chosen = if new == old || self.lot.below(2) == 0 { new } else { old };
            if let Some(identity) = chosen {
                self.file(identity, &to.join(name))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, identity: &str, to: &Path) -> io::Result<()> {
        let note = self.disk.notes.join(format!("file-{identity}"));
        let shown = self.disk.shown.get(identity);
        let new = shown.map(fs::read).transpose()?;
        let old = fs::read(&note).ok();
        let content = match (new, old.clone()) {
            (Some(new), old) => self.mixed(new, old.unwrap_or_default()),
            (None, old) => old.unwrap_or_default(),
        };
        fs::write(to, content)?;
        let looks = if old.is_some() { Some(&note) } else { shown.filter(|_| self.lot.below(2) == 0) };
        let Some(looks) = looks else { return fs::set_permissions(to, Permissions::from_mode(0o600)) };
        let metadata = fs::metadata(looks)?;
        File::options().write(true).open(to)?.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        fs::set_permissions(to, metadata.permissions())
    }

    /// Each block may be the old one or the new one.
    fn mixed(&mut self, new: Vec<u8>, old: Vec<u8>) -> Vec<u8> {
        match self.lot.below(3) {
            0 => new,
            1 => old,
            _ => {
                let length = match self.lot.below(3) {
                    0 => new.len(),
                    1 => old.len(),
                    _ => new.len().min(old.len()) + self.lot.below(new.len().abs_diff(old.len()) + 1),
                };
                let mut mixed = vec![0; length];
                for at in (0..length).step_by(BLOCK_BYTES) {
                    let from = if self.lot.below(2) == 0 { &new } else { &old };
                    let end = (at + BLOCK_BYTES).min(from.len()).min(length);
                    if at < end {
                        mixed[at..end].copy_from_slice(&from[at..end]);
                    }
                }
                mixed
            }
        }
    }
}
