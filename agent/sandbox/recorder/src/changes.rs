//! What is made, renamed and removed, so that the reader can tell a program's own files from those that were there; and sockets.

use core::ffi::{c_char, c_int, c_uint};

use crate::files::{making, outcome};
use crate::interpose::interpose;
use crate::kernel::AT_FDCWD;
use crate::log::{self, Kind};
use crate::path;

unsafe fn moved(done: bool, from: (c_int, *const c_char), to: (c_int, *const c_char)) {
    // SAFETY: the caller's promise.
    unsafe {
        outcome(done, Kind::Taken, from.0, from.1);
        if done {
            outcome(done, Kind::Made, to.0, to.1);
        }
    }
}

unsafe fn linked(done: bool, from: (c_int, *const c_char), to: (c_int, *const c_char)) {
    // SAFETY: the caller's promise.
    unsafe {
        outcome(done, Kind::Read, from.0, from.1);
        path::note(if done { Kind::Made } else { Kind::NotMade }, to.0, to.1);
    }
}

interpose! {
    fn mkdir(path: *const c_char, mode: u32) -> c_int, else -1;
        first making(AT_FDCWD, path);
        then |error| outcome(error == 0, Kind::Made, AT_FDCWD, path);
    fn mkdirat(folder: c_int, path: *const c_char, mode: u32) -> c_int, else -1;
        first making(folder, path);
        then |error| outcome(error == 0, Kind::Made, folder, path);
    fn mkfifo(path: *const c_char, mode: u32) -> c_int, else -1;
        first making(AT_FDCWD, path);
        then |error| outcome(error == 0, Kind::Made, AT_FDCWD, path);
    fn symlink(target: *const c_char, path: *const c_char) -> c_int, else -1;
        first making(AT_FDCWD, path);
        then |error| outcome(error == 0, Kind::Made, AT_FDCWD, path);
    fn symlinkat(target: *const c_char, folder: c_int, path: *const c_char) -> c_int, else -1;
        first making(folder, path);
        then |error| outcome(error == 0, Kind::Made, folder, path);
    fn link(from: *const c_char, to: *const c_char) -> c_int, else -1;
        first making(AT_FDCWD, to);
        then |error| linked(error == 0, (AT_FDCWD, from), (AT_FDCWD, to));
    fn linkat(from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char, flags: c_int) -> c_int, else -1;
        first making(to_folder, to);
        then |error| linked(error == 0, (from_folder, from), (to_folder, to));
    fn rename(from: *const c_char, to: *const c_char) -> c_int, else -1;
        then |error| moved(error == 0, (AT_FDCWD, from), (AT_FDCWD, to));
    fn renameat(from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char) -> c_int, else -1;
        then |error| moved(error == 0, (from_folder, from), (to_folder, to));
    fn renameat2(
        from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char, flags: c_uint
    ) -> c_int, else -1;
        then |error| moved(error == 0, (from_folder, from), (to_folder, to));
    fn unlink(path: *const c_char) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Removed, AT_FDCWD, path);
    fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Removed, folder, path);
    fn rmdir(path: *const c_char) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Removed, AT_FDCWD, path);
    fn remove(path: *const c_char) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Removed, AT_FDCWD, path);

    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, else -1;
        first log::once(Kind::Network, b"");
}
