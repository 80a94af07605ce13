//! Files and folders that are opened.

use core::ffi::{CStr, c_char, c_int, c_long};
use core::ptr::{null_mut, with_exposed_provenance};

use crate::interpose::interpose;
use crate::kernel::{
    self, AT_FDCWD, EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM, EROFS, ETXTBSY, Pointer,
};
use crate::log::{self, Kind};
use crate::path;

const O_ACCMODE: c_int = 3;
const O_WRONLY: c_int = 1;
const O_CREAT: c_int = 0o100;
const O_EXCL: c_int = 0o200;
const O_TRUNC: c_int = 0o1000;
const O_PATH: c_int = 0o10_000_000;
#[cfg(target_arch = "x86_64")]
const O_DIRECTORY: c_int = 0o200_000;
#[cfg(target_arch = "aarch64")]
const O_DIRECTORY: c_int = 0o40_000;
const O_TMPFILE: c_int = 0o20_000_000 | O_DIRECTORY;

/// Notes that `path` is about to be made. Whether it was is for [`outcome`] to say, unless the process is ended in between.
pub(crate) unsafe fn making(folder: c_int, path: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe { path::note(Kind::Making, folder, path) }
}

/// Notes `kind` of `path`, or what the error says of it. Errors that say nothing of the path are passed over.
pub(crate) unsafe fn outcome(done: bool, kind: Kind, folder: c_int, path: *const c_char) {
    if !done && matches!(kind, Kind::Made) {
        // SAFETY: the caller's promise.
        unsafe { path::note(Kind::NotMade, folder, path) }
    }
    let kind = if done {
        kind
    } else {
        match kernel::errno() {
            ENOENT | ENOTDIR => Kind::Absent,
            EACCES | EPERM | EEXIST | EISDIR | EINVAL | ELOOP | ENXIO | EROFS | ETXTBSY => Kind::Seen,
            _ => return,
        }
    };
    // SAFETY: the caller's promise.
    unsafe { path::note(kind, folder, path) }
}

/// What opening with these flags does.
fn kind_of(flags: c_int) -> Kind {
    if flags & O_PATH != 0 {
        Kind::Seen
    } else if flags & O_DIRECTORY != 0 {
        Kind::Listed
    } else if flags & O_ACCMODE == O_WRONLY || flags & O_TRUNC != 0 || flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL {
        Kind::Made
    } else {
        Kind::Read
    }
}

/// What opening with these flags is about to do.
unsafe fn opening(folder: c_int, path: *const c_char, flags: c_int) {
    if flags & O_CREAT != 0 && matches!(kind_of(flags), Kind::Made) {
        // SAFETY: the caller's promise.
        unsafe { making(folder, path) }
    }
}

pub(crate) unsafe fn opened(done: bool, folder: c_int, path: *const c_char, flags: c_int) {
    // A file without a name says nothing.
    if flags & O_TMPFILE != O_TMPFILE {
        // SAFETY: the caller's promise.
        unsafe { outcome(done, kind_of(flags), folder, path) }
    }
}

/// What `fopen` with this mode does.
unsafe fn mode_kind(mode: *const c_char) -> Kind {
    // SAFETY: the caller's promise: null or a text that ends with NUL.
    let mode = if mode.is_null() { &[] } else { unsafe { CStr::from_ptr(mode) }.to_bytes() };
    match mode.first() {
        Some(b'w') => Kind::Made,
        Some(b'a') if !mode.contains(&b'+') => Kind::Made,
        _ => Kind::Read,
    }
}

/// The same for `fopen`.
unsafe fn opening_as(mode: *const c_char, path: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe {
        if matches!(mode_kind(mode), Kind::Made) {
            making(AT_FDCWD, path);
        }
    }
}

/// The name that the C library has put in place of a template.
unsafe fn made(done: bool, template: *const c_char) {
    if done {
        // SAFETY: the caller's promise.
        unsafe { path::note(Kind::Made, AT_FDCWD, template) }
    }
}

interpose! {
    fn open(path: *const c_char, flags: c_int, mode: u32) -> c_int, else -1;
        first opening(AT_FDCWD, path, flags);
        then |fd| opened(fd >= 0, AT_FDCWD, path, flags);
    fn open64(path: *const c_char, flags: c_int, mode: u32) -> c_int, else -1;
        first opening(AT_FDCWD, path, flags);
        then |fd| opened(fd >= 0, AT_FDCWD, path, flags);
    fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int, else -1;
        first opening(folder, path, flags);
        then |fd| opened(fd >= 0, folder, path, flags);
    fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int, else -1;
        first opening(folder, path, flags);
        then |fd| opened(fd >= 0, folder, path, flags);
    fn __open_2(path: *const c_char, flags: c_int) -> c_int, else -1;
        then |fd| opened(fd >= 0, AT_FDCWD, path, flags);
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int, else -1;
        then |fd| opened(fd >= 0, AT_FDCWD, path, flags);
    fn __openat_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int, else -1;
        then |fd| opened(fd >= 0, folder, path, flags);
    fn __openat64_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int, else -1;
        then |fd| opened(fd >= 0, folder, path, flags);
    fn creat(path: *const c_char, mode: u32) -> c_int, else -1;
        first making(AT_FDCWD, path);
        then |fd| outcome(fd >= 0, Kind::Made, AT_FDCWD, path);
    fn creat64(path: *const c_char, mode: u32) -> c_int, else -1;
        first making(AT_FDCWD, path);
        then |fd| outcome(fd >= 0, Kind::Made, AT_FDCWD, path);
    fn fopen(path: *const c_char, mode: *const c_char) -> Pointer, else null_mut();
        first opening_as(mode, path);
        then |file| outcome(!file.is_null(), mode_kind(mode), AT_FDCWD, path);
    fn fopen64(path: *const c_char, mode: *const c_char) -> Pointer, else null_mut();
        first opening_as(mode, path);
        then |file| outcome(!file.is_null(), mode_kind(mode), AT_FDCWD, path);
    fn freopen(path: *const c_char, mode: *const c_char, old: Pointer) -> Pointer, else null_mut();
        first opening_as(mode, path);
        then |file| outcome(!file.is_null(), mode_kind(mode), AT_FDCWD, path);
    fn freopen64(path: *const c_char, mode: *const c_char, old: Pointer) -> Pointer, else null_mut();
        first opening_as(mode, path);
        then |file| outcome(!file.is_null(), mode_kind(mode), AT_FDCWD, path);
    fn mkstemp(template: *mut c_char) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkstemp64(template: *mut c_char) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkostemp(template: *mut c_char, flags: c_int) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkostemp64(template: *mut c_char, flags: c_int) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkstemps(template: *mut c_char, n_suffix: c_int) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkstemps64(template: *mut c_char, n_suffix: c_int) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkostemps(template: *mut c_char, n_suffix: c_int, flags: c_int) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkostemps64(template: *mut c_char, n_suffix: c_int, flags: c_int) -> c_int, else -1;
        then |fd| made(fd >= 0, template);
    fn mkdtemp(template: *mut c_char) -> *mut c_char, else null_mut();
        then |path| made(!path.is_null(), template);

    fn opendir(path: *const c_char) -> Pointer, else null_mut();
        then |folder| outcome(!folder.is_null(), Kind::Listed, AT_FDCWD, path);
    fn fdopendir(folder: c_int) -> Pointer, else null_mut();
        first path::note_folder(Kind::Listed, folder);
    fn scandir(path: *const c_char, list: Pointer, select: Pointer, order: Pointer) -> c_int, else -1;
        then |n| outcome(n >= 0, Kind::Listed, AT_FDCWD, path);
    fn scandir64(path: *const c_char, list: Pointer, select: Pointer, order: Pointer) -> c_int, else -1;
        then |n| outcome(n >= 0, Kind::Listed, AT_FDCWD, path);
    fn scandirat(folder: c_int, path: *const c_char, list: Pointer, select: Pointer, order: Pointer) -> c_int, else -1;
        then |n| outcome(n >= 0, Kind::Listed, folder, path);
    fn scandirat64(folder: c_int, path: *const c_char, list: Pointer, select: Pointer, order: Pointer) -> c_int, else -1;
        then |n| outcome(n >= 0, Kind::Listed, folder, path);
    fn getdents64(folder: c_int, buffer: Pointer, n_bytes: usize) -> isize, else -1;
        first path::note_folder(Kind::Listed, folder);

    // These look at folders by themselves, in ways that are not followed.
    fn glob(pattern: *const c_char, flags: c_int, failed: Pointer, found: Pointer) -> c_int, else 1;
        first log::unrecorded("glob");
    fn glob64(pattern: *const c_char, flags: c_int, failed: Pointer, found: Pointer) -> c_int, else 1;
        first log::unrecorded("glob");
    fn ftw(path: *const c_char, each: Pointer, n: c_int) -> c_int, else -1;
        first log::unrecorded("ftw");
    fn ftw64(path: *const c_char, each: Pointer, n: c_int) -> c_int, else -1;
        first log::unrecorded("ftw");
    fn nftw(path: *const c_char, each: Pointer, n: c_int, flags: c_int) -> c_int, else -1;
        first log::unrecorded("nftw");
    fn nftw64(path: *const c_char, each: Pointer, n: c_int, flags: c_int) -> c_int, else -1;
        first log::unrecorded("nftw");
    fn fts_open(paths: Pointer, flags: c_int, order: Pointer) -> Pointer, else null_mut();
        first log::unrecorded("fts");
    fn fts64_open(paths: Pointer, flags: c_int, order: Pointer) -> Pointer, else null_mut();
        first log::unrecorded("fts");
    fn wordexp(words: *const c_char, found: Pointer, flags: c_int) -> c_int, else 1;
        first log::unrecorded("wordexp");

    fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long, else -1;
        then |result| called(number, result, a, b, c);
}

/// A system call made by number (as jemalloc does, which rustc uses).
unsafe fn called(number: c_long, result: c_long, a: usize, b: usize, c: usize) {
    use crate::kernel::number::{OPEN, OPENAT, READLINK, READLINKAT, STATUS, STATUS_AT, UNRECORDED};
    let (first, second) = (with_exposed_provenance::<c_char>(a), with_exposed_provenance::<c_char>(b));
    let (done, folder) = (result >= 0, a as c_int);
    // SAFETY: the kernel takes the same arguments of these calls for paths.
    unsafe {
        match number as usize {
            OPENAT => opened(done, folder, second, c as c_int),
            OPEN => opened(done, AT_FDCWD, first, b as c_int),
            READLINK => outcome(done, Kind::Link, AT_FDCWD, first),
            READLINKAT => outcome(done, Kind::Link, folder, second),
            number if STATUS.contains(&number) => outcome(done, Kind::Seen, AT_FDCWD, first),
            number if STATUS_AT.contains(&number) => outcome(done, Kind::Seen, folder, second),
            number if UNRECORDED.contains(&number) => log::unrecorded("a system call by number"),
            _ => {}
        }
    }
}
