//! This machine's own store, looked up in its register, which is read in place: Nix is not run for it. Blocks.
//!
//! The register is a database with a write-ahead log, which only its owner can follow: read as a file that does not change, it may lack
//! the paths of the last moments, or seem damaged for one. Either is as if the path were not here.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use buildbee_proto::limits::MAX_STORE_PATH_REFERENCES;
use buildbee_proto::store_path::{StorePath, is_store_hash};
use nix_nar::Encoder;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

/// Where paths stand by name, wherever the files are.
const STORE: &str = "/nix/store/";
const VALID: &str =
    "SELECT id, path, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE path >= ?1 ORDER BY path LIMIT 1";
const REFERENCES: &str =
    "SELECT path FROM Refs JOIN ValidPaths ON Refs.reference = ValidPaths.id WHERE referrer = ?1 ORDER BY path";

/// A store.
#[derive(Clone, Debug)]
pub struct Database {
    root: PathBuf,
}

impl Database {
    /// Of the system, or the part of one, whose root folder is `root`; `None` where it has no store.
    pub fn open(root: &Path) -> Option<Self> {
        let database = Self { root: root.to_owned() };
        database.register().is_file().then_some(database)
    }

    fn register(&self) -> PathBuf {
        self.root.join("nix/var/nix/db/db.sqlite")
    }

    /// The path whose name begins with `hash`, if it is valid and may be handed on.
    pub fn describe(&self, hash: &str) -> Option<StorePath> {
        if !is_store_hash(hash) {
            return None;
        }
        let found = self.look_up(hash);
        let found = found.inspect_err(|error| tracing::debug!(hash, %error, "Nix's register can't be read")).ok()??;
        (found.is_sound(hash) && found.is_vouched_for()).then_some(found)
    }

    fn look_up(&self, hash: &str) -> rusqlite::Result<Option<StorePath>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let register = self.register();
        // What separates a name from options in such a name.
        let escaped = register.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let connection = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?;
        let wanted = format!("{STORE}{hash}-");
        let row = connection.query_row(VALID, [&wanted], |row| Ok((row.get::<_, i64>(0)?, valid(row)?)));
        let Some((id, Some(path))) = row.optional()? else { return Ok(None) };
        let mut statement = connection.prepare(REFERENCES)?;
        let references = statement.query_map([id], |row| row.get::<_, String>(0))?;
        let references = references.take(MAX_STORE_PATH_REFERENCES + 1).collect::<rusqlite::Result<Vec<_>>>()?;
        if references.len() > MAX_STORE_PATH_REFERENCES {
            return Ok(None);
        }
        let references = references.iter().map(|path| base_name(path)).collect();
        Ok(Some(StorePath { references, ..path }))
    }

    /// The archive of `path`, and nothing of a file that has another length than its register says.
    pub fn archive(&self, path: &StorePath) -> io::Result<impl Read + Send + use<>> {
        let place = self.root.join("nix/store").join(&path.name);
        let encoder = Encoder::new(place).map_err(io::Error::other)?;
        Ok(encoder.take(path.archive_bytes.saturating_add(1)))
    }
}

fn base_name(path: &str) -> String {
    path.strip_prefix(STORE).unwrap_or(path).to_owned()
}

/// A row of the register without its references; `None` where it is none that is understood.
fn valid(row: &Row<'_>) -> rusqlite::Result<Option<StorePath>> {
    let (path, hash): (String, String) = (row.get(1)?, row.get(2)?);
    let (n_bytes, deriver): (Option<i64>, Option<String>) = (row.get(3)?, row.get(4)?);
    let (signatures, content_address): (Option<String>, Option<String>) = (row.get(5)?, row.get(6)?);
    let n_bytes = n_bytes.and_then(|n_bytes| u64::try_from(n_bytes).ok());
    let (Some(archive_hash), Some(archive_bytes)) = (sha256(&hash), n_bytes) else { return Ok(None) };
    Ok(Some(StorePath {
        name: base_name(&path),
        archive_hash,
        archive_bytes,
        references: Vec::new(),
        deriver: deriver.filter(|path| !path.is_empty()).map(|path| base_name(&path)),
        signatures: signatures.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        content_address: content_address.filter(|text| !text.is_empty()),
    }))
}

/// From `sha256:` and hexadecimal digits.
fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:")?;
    let mut hash = [0; 32];
    if digits.len() != 2 * hash.len() || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HASH: &str = "0wwbmlzz12c1mn5a754ndya7mkbbfknm";

    fn store(rows: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("nix/var/nix/db")).unwrap();
        let connection = Connection::open(root.path().join("nix/var/nix/db/db.sqlite")).unwrap();
        let tables = "CREATE TABLE ValidPaths (id INTEGER PRIMARY KEY, path TEXT, hash TEXT, narSize INTEGER, deriver TEXT, sigs TEXT, ca TEXT);
                      CREATE TABLE Refs (referrer INTEGER, reference INTEGER); INSERT INTO Refs VALUES (1, 1);";
        connection.execute_batch(tables).unwrap();
        for (path, hash, sigs) in rows {
            let insert = "INSERT INTO ValidPaths (path, hash, narSize, sigs) VALUES (?1, ?2, 112, ?3)";
            connection.execute(insert, [path, hash, sigs]).unwrap();
        }
        root
    }

    #[test]
    fn signed_paths_are_described_and_packed() {
        let (name, digits) = (format!("{HASH}-x"), "ab".repeat(32));
        let root = store(&[(&format!("{STORE}{name}"), &format!("sha256:{digits}"), "a:b c:d")]);
        let place = root.path().join("nix/store").join(&name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, "").unwrap();
        let database = Database::open(root.path()).unwrap();
        let found = database.describe(HASH).unwrap();
        assert_eq!((found.name.as_str(), found.archive_hash, found.archive_bytes), (name.as_str(), [0xab; 32], 112));
        assert_eq!((found.references.clone(), found.signatures.len()), (vec![name], 2));
        let mut archive = Vec::new();
        database.archive(&found).unwrap().read_to_end(&mut archive).unwrap();
        assert_eq!((archive.len(), &archive[8..21]), (112, &b"nix-archive-1"[..]));
        assert!(database.describe("1wwbmlzz12c1mn5a754ndya7mkbbfknm").is_none() && database.describe("%").is_none());
    }

    #[test]
    fn what_nobody_vouches_for_and_what_is_malformed_stays_here() {
        let digits = format!("sha256:{}", "0".repeat(64));
        let path = format!("{STORE}{HASH}-x");
        for (path, hash, sigs) in [
            (path.as_str(), digits.as_str(), ""),
            (&path, "sha256:0", "a:b"),
            (&path, "md5:00", "a:b"),
            (&format!("{path}/y"), &digits, "a:b"),
        ] {
            let root = store(&[(path, hash, sigs)]);
            assert_eq!(Database::open(root.path()).unwrap().describe(HASH), None, "{path} {hash} {sigs}");
        }
        let root = store(&[]);
        fs::write(root.path().join("nix/var/nix/db/db.sqlite"), "no database, but long enough to be looked at")
            .unwrap();
        assert_eq!(Database::open(root.path()).unwrap().describe(HASH), None);
        assert!(Database::open(Path::new("/nowhere")).is_none());
    }
}
