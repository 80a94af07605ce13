//! Hashes many files at once: on as many threads as there are processors, behind everything else that runs here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::filehash::{FileHashes, Hashed};

/// Threads at most: more would wait for memory and disk.
const MAX_THREADS: usize = 8;
/// Files fewer than this are hashed by the caller: a thread costs more.
const FEW: usize = 8;
/// How nice the threads are, 19 being nicest.
const NICE: i32 = 10;

/// Digests of `paths`, in their order, from memory where that is safe. The first failure in their order ends it. Blocks.
pub fn hash_many<'a>(
    hashes: &FileHashes,
    paths: impl Iterator<Item = &'a Path>,
) -> Result<Vec<Hashed>, (PathBuf, io::Error)> {
    let mut results: Vec<(&Path, Option<io::Result<Hashed>>)> =
        paths.map(|path| (path, hashes.known(path).map(Ok))).collect();
    let missing: Vec<usize> =
        (results.iter().enumerate()).filter(|(_, (_, known))| known.is_none()).map(|(index, _)| index).collect();
    if missing.len() >= FEW {
        let todo: Vec<(usize, &Path)> =
            missing.iter().filter_map(|&index| Some((index, results.get(index)?.0))).collect();
        for (index, hashed) in on_threads(hashes, &todo) {
            if let Some((_, result)) = results.get_mut(index) {
                *result = Some(hashed);
            }
        }
    }
    let finish = |(path, result): (&Path, Option<io::Result<Hashed>>)| {
        result.unwrap_or_else(|| hashes.hash(path)).map_err(|error| (path.to_owned(), error))
    };
    results.into_iter().map(finish).collect()
}

fn on_threads(hashes: &FileHashes, todo: &[(usize, &Path)]) -> Vec<(usize, io::Result<Hashed>)> {
    let n_threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let next = AtomicUsize::new(0);
    let work = || {
        // Of this thread alone, which ends with the work. Refused: then as eager as others.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        let mut done = Vec::new();
        while let Some(&(index, path)) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((index, hashes.hash(path)));
        }
        done
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        // What a thread that broke had done is done again by the caller.
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildbee_proto::digest::Digest;

    #[test]
    fn order_and_errors_are_those_of_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..40).map(|n| folder.path().join(n.to_string())).collect();
        for (n, path) in paths.iter().enumerate() {
            std::fs::write(path, n.to_string()).unwrap();
        }
        let hashes = FileHashes::default();
        let found = hash_many(&hashes, paths.iter().map(PathBuf::as_path)).unwrap();
        for (n, hashed) in found.iter().enumerate() {
            assert_eq!(hashed.digest, Digest::of(n.to_string().as_bytes()));
        }
        std::fs::remove_file(&paths[17]).unwrap();
        std::fs::remove_file(&paths[23]).unwrap();
        let (path, error) = hash_many(&hashes, paths.iter().map(PathBuf::as_path)).unwrap_err();
        assert_eq!((path, error.kind()), (paths[17].clone(), io::ErrorKind::NotFound));
    }
}
