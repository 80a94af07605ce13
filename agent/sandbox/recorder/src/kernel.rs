//! System calls, made without the C library: they touch no `errno`, and cannot come back to us. And the numbers that have no other home.

use core::arch::asm;
use core::ffi::{c_int, c_void};

pub(crate) const AT_FDCWD: c_int = -100;
pub(crate) const ENOENT: c_int = 2;
pub(crate) const ENOTDIR: c_int = 20;
pub(crate) const EACCES: c_int = 13;
pub(crate) const EPERM: c_int = 1;
pub(crate) const EEXIST: c_int = 17;
pub(crate) const EISDIR: c_int = 21;
pub(crate) const EINVAL: c_int = 22;
pub(crate) const ETXTBSY: c_int = 26;
pub(crate) const EROFS: c_int = 30;
pub(crate) const ENOSYS: c_int = 38;
pub(crate) const ELOOP: c_int = 40;
pub(crate) const ENXIO: c_int = 6;

/// Bytes of the longest path that a call takes, with its NUL.
pub(crate) const PATH_MAX: usize = 4096;

#[cfg(target_arch = "x86_64")]
pub(crate) mod number {
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const LSEEK: usize = 8;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const GETCWD: usize = 79;
    pub(crate) const READLINKAT: usize = 267;
    pub(crate) const GETPID: usize = 39;
    #[cfg(panic = "abort")]
    pub(crate) const KILL: usize = 62;
    pub(crate) const OPEN: usize = 2;
    pub(crate) const READLINK: usize = 89;
    /// `stat`, `lstat`, `access`: of the path in their first argument.
    pub(crate) const STATUS: &[usize] = &[4, 6, 21];
    /// `newfstatat`, `faccessat`, `statx`, `faccessat2`: of the path in their second argument, seen from the folder in the first.
    pub(crate) const STATUS_AT: &[usize] = &[262, 269, 332, 439];
    /// `socket`, `execve`, `getdents`, `getdents64`, `execveat`, `openat2`.
    pub(crate) const UNRECORDED: &[usize] = &[41, 59, 78, 217, 322, 437];
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod number {
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const LSEEK: usize = 62;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const GETCWD: usize = 17;
    pub(crate) const READLINKAT: usize = 78;
    pub(crate) const GETPID: usize = 172;
    #[cfg(panic = "abort")]
    pub(crate) const KILL: usize = 129;
    /// There is none: the number is no call's.
    pub(crate) const OPEN: usize = usize::MAX;
    /// The same.
    pub(crate) const READLINK: usize = usize::MAX - 1;
    /// There are none.
    pub(crate) const STATUS: &[usize] = &[];
    /// `faccessat`, `newfstatat`, `statx`, `faccessat2`: of the path in their second argument, seen from the folder in the first.
    pub(crate) const STATUS_AT: &[usize] = &[48, 79, 291, 439];
    /// `getdents64`, `socket`, `execve`, `execveat`, `openat2`.
    pub(crate) const UNRECORDED: &[usize] = &[61, 198, 221, 281, 437];
}

/// Makes a system call. Negative results are errors.
pub(crate) unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's convention; the caller answers for the pointers among the arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] => result,
            in("x1") arguments[1], in("x2") arguments[2], in("x3") arguments[3],
            in("x4") arguments[4], in("x5") arguments[5],
            options(nostack)
        );
    }
    result
}

/// Opens the file at `path`, which ends with NUL, for reading and writing.
pub(crate) unsafe fn open_read_write(path: *const u8) -> Option<usize> {
    const O_RDWR_CLOEXEC_NOCTTY: usize = 2 | 0o2_000_000 | 0o400;
    let at = AT_FDCWD as usize;
    // SAFETY: `path` is the caller's.
    let fd = unsafe { call(number::OPENAT, [at, path as usize, O_RDWR_CLOEXEC_NOCTTY, 0, 0, 0]) };
    usize::try_from(fd).ok()
}

/// Size of an open file in bytes.
pub(crate) fn size(fd: usize) -> Option<usize> {
    // SAFETY: no pointer among the arguments.
    usize::try_from(unsafe { call(number::LSEEK, [fd, 0, 2, 0, 0, 0]) }).ok()
}

/// Maps the first `n_bytes` of an open file, shared with whoever else maps it.
pub(crate) fn map_shared(fd: usize, n_bytes: usize) -> Option<*mut u8> {
    // SAFETY: the kernel chooses an address that is free.
    let address = unsafe { call(number::MMAP, [0, n_bytes, 3, 1, fd, 0]) };
    usize::try_from(address).ok().map(core::ptr::with_exposed_provenance_mut)
}

/// Closes a descriptor.
pub(crate) fn close(fd: usize) {
    // SAFETY: no pointer among the arguments, and the caller's own descriptor.
    unsafe { call(number::CLOSE, [fd, 0, 0, 0, 0, 0]) };
}

/// Writes the working directory into `buffer`, and tells its length.
pub(crate) fn working_directory(buffer: &mut [u8]) -> Option<usize> {
    // SAFETY: the kernel writes at most the buffer's length into it.
    let n = unsafe { call(number::GETCWD, [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0, 0]) };
    // The count includes the NUL. A folder out of reach is told without a leading slash.
    usize::try_from(n).ok()?.checked_sub(1).filter(|_| buffer.first() == Some(&b'/'))
}

/// Writes what the link at `path`, which ends with NUL, points to into `buffer`, and tells its length.
pub(crate) fn link_target(path: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let (from, to) = (path.as_ptr() as usize, buffer.as_mut_ptr() as usize);
    // SAFETY: the path ends with NUL, and the kernel writes at most the buffer's length into it.
    let n = unsafe { call(number::READLINKAT, [AT_FDCWD as usize, from, to, buffer.len(), 0, 0]) };
    usize::try_from(n).ok().filter(|n| *n < buffer.len())
}

/// This process.
pub(crate) fn process() -> usize {
    // SAFETY: no pointer among the arguments.
    unsafe { call(number::GETPID, [0; 6]).unsigned_abs() }
}

/// Ends the process.
#[cfg(panic = "abort")]
pub(crate) fn abort() -> ! {
    const SIGABRT: usize = 6;
    loop {
        // SAFETY: no pointer among the arguments.
        unsafe { call(number::KILL, [process(), SIGABRT, 0, 0, 0, 0]) };
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// The thread's error number.
pub(crate) fn errno() -> c_int {
    // SAFETY: the C library's own place, there as long as the thread.
    unsafe { *__errno_location() }
}

/// Sets the thread's error number: only where there is no function to hand a call on to.
pub(crate) fn set_errno(error: c_int) {
    // SAFETY: as above.
    unsafe { *__errno_location() = error };
}

/// The same as an opaque pointer.
pub(crate) type Pointer = *mut c_void;
