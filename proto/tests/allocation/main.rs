//! Memory that hostile bytes can make a decoder take: a small multiple of what really arrived.
//!
//! Every allocation of the thread under test is counted, so this is a binary of its own.

#![expect(unsafe_code, reason = "an allocator that counts can't be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[cfg(test)]
mod bound;
#[cfg(test)]
#[path = "../wire/samples/mod.rs"]
mod samples;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and how much of it each thread holds.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn taken(n_bytes: usize) {
    // At the end of a thread its counters are gone before its last blocks are: those are nobody's.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().saturating_add(n_bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn given_back(n_bytes: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub(n_bytes)));
}

// SAFETY: every call is passed to the system's allocator as it came; counting neither allocates nor unwinds (the counters are
// constants without destructors).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both blocks may exist for a moment.
        taken(new_size);
        given_back(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Most bytes that this thread held at once while `work` ran, beyond what it held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> usize {
    let before = LIVE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    drop(work());
    PEAK.with(Cell::get) - before
}
