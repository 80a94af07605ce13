//! Questions whether something is there, and for symlinks' targets.

use core::ffi::{c_char, c_int, c_uint};
use core::ptr::null_mut;

use crate::files::outcome;
use crate::interpose::interpose;
use crate::kernel::{AT_FDCWD, Pointer};
use crate::log::Kind;

interpose! {
    fn stat(path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn stat64(path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn lstat(path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn lstat64(path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn fstatat(folder: c_int, path: *const c_char, status: Pointer, flags: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, folder, path);
    fn fstatat64(folder: c_int, path: *const c_char, status: Pointer, flags: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, folder, path);
    // What programs built against glibc before 2.33 call.
    fn __xstat(version: c_int, path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn __xstat64(version: c_int, path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn __lxstat(version: c_int, path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn __lxstat64(version: c_int, path: *const c_char, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn __fxstatat(version: c_int, folder: c_int, path: *const c_char, status: Pointer, flags: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, folder, path);
    fn __fxstatat64(version: c_int, folder: c_int, path: *const c_char, status: Pointer, flags: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, folder, path);
    fn statx(folder: c_int, path: *const c_char, flags: c_int, mask: c_uint, status: Pointer) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, folder, path);

    fn access(path: *const c_char, mode: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn faccessat(folder: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, folder, path);
    fn eaccess(path: *const c_char, mode: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);
    fn euidaccess(path: *const c_char, mode: c_int) -> c_int, else -1;
        then |error| outcome(error == 0, Kind::Seen, AT_FDCWD, path);

    fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize, else -1;
        then |n| outcome(n >= 0, Kind::Link, AT_FDCWD, path);
    fn __readlink_chk(path: *const c_char, buffer: *mut c_char, size: usize, room: usize) -> isize, else -1;
        then |n| outcome(n >= 0, Kind::Link, AT_FDCWD, path);
    fn readlinkat(folder: c_int, path: *const c_char, buffer: *mut c_char, size: usize) -> isize, else -1;
        then |n| outcome(n >= 0, Kind::Link, folder, path);
    fn __readlinkat_chk(folder: c_int, path: *const c_char, buffer: *mut c_char, size: usize, room: usize) -> isize, else -1;
        then |n| outcome(n >= 0, Kind::Link, folder, path);
    fn realpath(path: *const c_char, buffer: *mut c_char) -> *mut c_char, else null_mut();
        then |real| outcome(!real.is_null(), Kind::Link, AT_FDCWD, path);
    fn __realpath_chk(path: *const c_char, buffer: *mut c_char, room: usize) -> *mut c_char, else null_mut();
        then |real| outcome(!real.is_null(), Kind::Link, AT_FDCWD, path);
    fn canonicalize_file_name(path: *const c_char) -> *mut c_char, else null_mut();
        then |real| outcome(!real.is_null(), Kind::Link, AT_FDCWD, path);
}
