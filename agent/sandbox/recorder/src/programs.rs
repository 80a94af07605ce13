//! Programs that are started, and libraries that are loaded.
//!
//! Every start is announced before it happens and taken back if it fails, so that a program that does not load this library is missed.
//! `execl` and its like have no fixed arguments and are not taken over: what they start counts as one more than was announced.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int};
use core::ptr::null_mut;

use crate::files::outcome;
use crate::interpose::interpose;
use crate::kernel::{AT_FDCWD, ENOENT, ENOTDIR, Pointer};
use crate::log::{self, Kind};
use crate::next::Next;
use crate::{objects, path};

unsafe fn starting(program: *const c_char, by_path: bool) {
    if log::is_on() {
        if by_path {
            log::once(Kind::Variable, b"PATH");
        }
        let content = if program.is_null() {
            &[]
        } else {
            // SAFETY: the caller's promise: a text that ends with NUL.
            unsafe { core::ffi::CStr::from_ptr(program) }.to_bytes()
        };
        log::always(Kind::Starting, content);
    }
}

fn not_started() {
    if log::is_on() {
        log::always(Kind::NotStarted, b"");
    }
}

/// The program has come back: nothing was started.
unsafe fn failed(program: *const c_char) {
    not_started();
    // SAFETY: the caller's promise.
    unsafe { outcome(false, Kind::Seen, AT_FDCWD, program) }
}

unsafe fn spawned(error: c_int, program: *const c_char) {
    if error != 0 {
        not_started();
    }
    if error == ENOENT || error == ENOTDIR {
        // SAFETY: the caller's promise.
        unsafe { path::note(Kind::Absent, AT_FDCWD, program) }
    }
}

type Texts = *const *const c_char;

interpose! {
    fn execve(program: *const c_char, arguments: Texts, variables: Texts) -> c_int, else -1;
        first starting(program, false);
        then |_error| failed(program);
    fn execv(program: *const c_char, arguments: Texts) -> c_int, else -1;
        first starting(program, false);
        then |_error| failed(program);
    fn execvp(program: *const c_char, arguments: Texts) -> c_int, else -1;
        first starting(program, true);
        then |_error| not_started();
    fn execvpe(program: *const c_char, arguments: Texts, variables: Texts) -> c_int, else -1;
        first starting(program, true);
        then |_error| not_started();
    fn fexecve(program: c_int, arguments: Texts, variables: Texts) -> c_int, else -1;
        first starting(core::ptr::null(), false);
        then |_error| not_started();
    fn execveat(folder: c_int, program: *const c_char, arguments: Texts, variables: Texts, flags: c_int) -> c_int, else -1;
        first starting(program, false);
        then |_error| not_started();
    fn posix_spawn(
        process: Pointer, program: *const c_char, actions: Pointer, attributes: Pointer, arguments: Texts, variables: Texts
    ) -> c_int, else crate::kernel::ENOSYS;
        first starting(program, false);
        then |error| spawned(error, program);
    fn posix_spawnp(
        process: Pointer, program: *const c_char, actions: Pointer, attributes: Pointer, arguments: Texts, variables: Texts
    ) -> c_int, else crate::kernel::ENOSYS;
        first starting(program, true);
        then |error| if error != 0 { not_started() };
    fn pidfd_spawn(
        process: Pointer, program: *const c_char, actions: Pointer, attributes: Pointer, arguments: Texts, variables: Texts
    ) -> c_int, else crate::kernel::ENOSYS;
        first starting(program, false);
        then |error| spawned(error, program);
    fn pidfd_spawnp(
        process: Pointer, program: *const c_char, actions: Pointer, attributes: Pointer, arguments: Texts, variables: Texts
    ) -> c_int, else crate::kernel::ENOSYS;
        first starting(program, true);
        then |error| if error != 0 { not_started() };
    fn system(command: *const c_char) -> c_int, else -1;
        first if !command.is_null() { starting(command, false) };
        then |status| if status == -1 && !command.is_null() { not_started() };
    fn popen(command: *const c_char, mode: *const c_char) -> Pointer, else null_mut();
        first starting(command, false);
        then |file| if file.is_null() { not_started() };
}

static DLOPEN: Next = Next::new(c"dlopen");

/// What will be loaded is looked at later; returns where the C library's own function is.
unsafe extern "C" fn loading(_: *const c_char) -> usize {
    objects::changed();
    DLOPEN.address().unwrap_or(0)
}

/// The C library looks at its caller to know whose search path counts, so it is jumped to, not called.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> Pointer {
    naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {loading}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jz 2f",
        "jmp rax",
        "2:",
        "ret",
        loading = sym loading,
    )
}

/// As above.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "aarch64")]
unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> Pointer {
    naked_asm!(
        "stp x0, x1, [sp, -32]!",
        "str x30, [sp, 16]",
        "bl {loading}",
        "mov x16, x0",
        "ldr x30, [sp, 16]",
        "ldp x0, x1, [sp], 32",
        "cbz x16, 2f",
        "br x16",
        "2:",
        "mov x0, 0",
        "ret",
        loading = sym loading,
    )
}
