//! Preloaded (`LD_PRELOAD`) into a compiler and everything that it starts, notes what they ask the system for: variables, files, names
//! that are not there, folders, other programs. `buildbee_proto::observed` reads the notes; nobody else does.
//!
//! Each function here has the name of one of the C library's, calls that one (`next`) with the same arguments, and puts what it saw into
//! a file mapped into all processes (`log`). It changes no argument, no result and no `errno`, opens no descriptor that stays open,
//! allocates nothing and takes no lock, so it may be called in signal handlers, after `fork` and in a child of `vfork`.
//!
//! Not seen: system calls made without the C library; reads of `environ` itself (but `objects` tells which loaded libraries could);
//! what the C library and the loader do for themselves; random numbers, and the machine's name. A process that does not load
//! this library (static, of another C library, with a cleared environment) leaves a start without its sign, which the reader takes as
//! "not known".
//!
//! Panics nowhere and links nothing, not even the C library, whose symbols it finds in the process: so one build works with every
//! version of it. Users' builds are made with `-C panic=abort`, without the standard library; others differ only in needing it.

#![cfg_attr(panic = "abort", no_std)]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "functions of the C library are taken over, and their arguments are pointers")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_ptr_alignment,
    reason = "64-bit machines alone, and the kernel's and the loader's numbers and places are what they are"
)]

mod changes;
mod clock;
mod files;
mod interpose;
mod kernel;
mod log;
mod next;
mod objects;
mod path;
mod programs;
mod status;
mod variables;

/// Nothing here panics; the compiler does not know.
#[cfg(panic = "abort")]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    kernel::abort()
}

// Precompiled parts of the core library name it where a panic would pass. None does, and no other library's may be ours.
#[cfg(panic = "abort")]
core::arch::global_asm!(".hidden rust_eh_personality", ".globl rust_eh_personality", "rust_eh_personality:", "nop");

/// Run by the loader before the program's own code.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = started;

extern "C" fn started() {
    log::start();
}
