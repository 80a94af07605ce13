//! Doubles of other machines' compilers that this machine's owner added (`buildbee-agent toolchain add`): makes them present, keeps them so,
//! and tells who asks. A member can't add one over the network: what it does to others' objects is the owner's word.
//!
//! On disk: `doubles/{NAME.double, blobs/DIGEST}`, as `buildbee toolchain pack` writes it. It is read only, and looked at every few seconds,
//! so that what is added or removed counts without a restart, and what the store loses comes back. Not here: what makes two compilers alike.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buildbee_proto::canonical::{Canonical, CanonicalError};
use buildbee_proto::codec::Bytes;
use buildbee_proto::digest::Digest;
use buildbee_proto::double::Double;
use buildbee_proto::limits::{MAX_COMMAND_BYTES, MAX_DOUBLES, MAX_TREE_ENTRIES};
use buildbee_store::{PutError, Store};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::exchange::fetch::{Fetcher, Sources};
use crate::toolchain::{Toolchains, host};

/// How often the folder is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The ending of a description's name.
const ENDING: &str = "double";
/// Content, by its digest.
const BLOBS: &str = "blobs";

/// A double can't be used.
#[derive(Debug, Error)]
pub enum DoubleError {
    /// A file can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is no description.
    #[error("{path} is malformed: {error}", path = path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: CanonicalError,
    },
    /// The store did not take a file.
    #[error(transparent)]
    Store(#[from] PutError),
    /// A file is not what its name says.
    #[error("{path} is damaged", path = .0.display())]
    Damaged(PathBuf),
    /// Its programs run on something else.
    #[error("its programs run on {0}")]
    Host(String),
    /// More than are told of.
    #[error("there are more than {MAX_DOUBLES} doubles")]
    TooMany,
}

/// The doubles that are present, by the names of their descriptions. Clones share them.
#[derive(Clone, Debug)]
pub struct Doubles {
    dir: PathBuf,
    store: Store,
    present: Arc<Mutex<BTreeMap<String, Double>>>,
}

impl Doubles {
    /// Of `dir`, which need not be there; content goes to `store`.
    pub fn new(dir: PathBuf, store: Store) -> Self {
        Self { dir, store, present: Arc::default() }
    }

    // Whole at every point where a panic could strike.
    fn present(&self) -> MutexGuard<'_, BTreeMap<String, Double>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What peers are told: canonical bytes of each.
    pub fn told(&self) -> Vec<Bytes> {
        self.present().values().map(|double| Bytes(double.to_canonical())).collect()
    }

    /// Puts the content of all of them into the store. Touches the disk.
    fn import(&self) -> Result<(), DoubleError> {
        let dir = self.dir.join(BLOBS);
        let failed = |error| DoubleError::Io { path: dir.clone(), error };
        for entry in fs::read_dir(&dir).map_err(failed)?.take(MAX_TREE_ENTRIES) {
            let path = entry.map_err(failed)?.path();
            let named = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
            let Some(digest) = named.filter(|digest| !self.store.contains(digest)) else { continue };
            if self.store.put_file(&path)? != digest {
                return Err(DoubleError::Damaged(path));
            }
        }
        Ok(())
    }
}

/// The descriptions in `dir`, by name; none where there is no such folder. Touches the disk.
pub fn list(dir: &Path) -> Result<BTreeMap<String, Double>, DoubleError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(DoubleError::Io { path: dir.to_owned(), error }),
    };
    let mut found = BTreeMap::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        if found.len() == MAX_DOUBLES {
            return Err(DoubleError::TooMany);
        }
        let double = read(&path)?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), double);
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Double, DoubleError> {
    let failed = |error| DoubleError::Io { path: path.to_owned(), error };
    if fs::metadata(path).map_err(failed)?.len() > MAX_COMMAND_BYTES as u64 {
        return Err(DoubleError::Damaged(path.to_owned()));
    }
    let bytes = fs::read(path).map_err(failed)?;
    let double = Double::from_canonical(&bytes);
    double.map_err(|error| DoubleError::Malformed { path: path.to_owned(), error })
}

/// Keeps them present until told to stop.
pub async fn keep_task(doubles: Doubles, toolchains: Toolchains, fetcher: Fetcher, stop: CancellationToken) {
    let mut complaint = String::new();
    loop {
        let trouble = look(&doubles, &toolchains, &fetcher).await;
        if trouble != complaint {
            complaint = trouble;
            if !complaint.is_empty() {
                tracing::warn!(dir = %doubles.dir.display(), "a double is not lent: {complaint}");
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_none() {
            return;
        }
    }
}

/// One look; says what is wrong, where something is.
async fn look(doubles: &Doubles, toolchains: &Toolchains, fetcher: &Fetcher) -> String {
    let (dir, before) = (doubles.dir.clone(), doubles.present().clone());
    let listed = tokio::task::spawn_blocking(move || list(&dir)).await;
    let (found, mut trouble) = match listed {
        Ok(Ok(found)) => (found, String::new()),
        // What was there may still be, and is in the store.
        Ok(Err(error)) => (before.clone(), error.to_string()),
        Err(_) => return String::new(),
    };
    let mut present = BTreeMap::new();
    for (name, double) in found {
        let is_new = before.get(&name) != Some(&double);
        match make_present(doubles, toolchains, fetcher, &double, is_new).await {
            Ok(()) => {
                if is_new {
                    tracing::info!(double = double.label(), "a double is present");
                }
                present.insert(name, double);
            }
            Err(error) => trouble = format!("{}: {error}", double.label()),
        }
    }
    *doubles.present() = present;
    trouble
}

async fn make_present(
    doubles: &Doubles,
    toolchains: &Toolchains,
    fetcher: &Fetcher,
    double: &Double,
    is_new: bool,
) -> Result<(), String> {
    if double.toolchain.host != host() {
        return Err(DoubleError::Host(double.toolchain.host.clone()).to_string());
    }
    // Nobody else is to be asked: the folder has it all.
    let sources = Sources { origin: fetcher.own_peer(), likely: Vec::new() };
    let present = async || toolchains.present(&double.toolchain, fetcher, &sources).await.map(drop);
    if !is_new && present().await.is_ok() {
        return Ok(());
    }
    let importing = doubles.clone();
    let imported = tokio::task::spawn_blocking(move || importing.import()).await;
    imported.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    present().await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use buildbee_proto::toolchain::Toolchain;
    use buildbee_store::{Durability, Options};

    use super::*;

    fn double() -> Double {
        Double {
            toolchain: Toolchain { root: Digest::of(b"root"), host: host(), label: "gcc".to_owned() },
            program: "/usr/bin/x-gcc".to_owned(),
            search: "/usr/bin".to_owned(),
            family: "gcc".to_owned(),
            driver: "c".to_owned(),
            version: "14.2.0".to_owned(),
            target: "x".to_owned(),
            libraries: Vec::new(),
        }
    }

    #[test]
    fn descriptions_are_read_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(list(&folder.path().join("gone")).unwrap().is_empty());
        fs::write(folder.path().join("a.double"), double().to_canonical()).unwrap();
        fs::write(folder.path().join("other"), "no description").unwrap();
        assert_eq!(list(folder.path()).unwrap(), BTreeMap::from([("a.double".to_owned(), double())]));
        fs::write(folder.path().join("b.double"), "no description").unwrap();
        assert!(matches!(list(folder.path()), Err(DoubleError::Malformed { .. })));
    }

    #[test]
    fn content_that_is_not_what_it_is_called_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 1 << 30, durability: Durability::Lazy };
        let (store, _) = Store::open(&folder.path().join("store"), &options).unwrap();
        let dir = folder.path().join("doubles");
        fs::create_dir_all(dir.join(BLOBS)).unwrap();
        let good = Digest::of(b"good");
        fs::write(dir.join(BLOBS).join(good.to_string()), "good").unwrap();
        let doubles = Doubles::new(dir.clone(), store.clone());
        doubles.import().unwrap();
        assert!(store.contains(&good));
        fs::write(dir.join(BLOBS).join(Digest::of(b"two").to_string()), "one").unwrap();
        assert!(matches!(doubles.import(), Err(DoubleError::Damaged(_))));
    }
}
