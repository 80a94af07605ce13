//! Questions for the time of day. How much time has passed is anybody's to ask, and says nothing.
//!
//! `time` and `gettimeofday` have no fixed address in glibc (a resolver says which is meant), so they are answered here, from the clocks that
//! they are made of.

use core::ffi::{c_int, c_long};

use crate::interpose::interpose;
use crate::kernel::{self, Pointer};
use crate::log::{self, Kind};
use crate::next::Next;

const CLOCK_REALTIME: c_int = 0;
const CLOCK_REALTIME_COARSE: c_int = 5;
const CLOCK_TAI: c_int = 11;

const NANOSECONDS_PER_MICROSECOND: c_long = 1000;

/// `struct timespec`, and with microseconds `struct timeval`.
#[repr(C)]
struct Moment {
    seconds: c_long,
    parts: c_long,
}

/// `struct timezone`: always nothing.
#[repr(C)]
struct Zone {
    minutes_west: c_int,
    summer_time: c_int,
}

/// Bytes of the longest note: a function's name, a blank, a program's.
const MAX_NOTE_BYTES: usize = 16 + kernel::PATH_MAX;

fn asked(function: &[u8]) {
    if !log::is_on() {
        return;
    }
    let program = log::program();
    let mut note = [0; MAX_NOTE_BYTES];
    let n_bytes = function.len() + 1 + program.len();
    let parts = function.iter().chain(b" ").chain(program);
    for (to, from) in note.iter_mut().zip(parts) {
        *to = *from;
    }
    log::once(Kind::Clock, note.get(..n_bytes).unwrap_or(&[]));
}

fn is_of_day(clock: c_int) -> bool {
    matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_TAI)
}

interpose! {
    fn clock_gettime(clock: c_int, moment: Pointer) -> c_int, else -1;
        first if is_of_day(clock) { asked(b"clock_gettime") };
}

static CLOCK_GETTIME: Next = Next::new(c"clock_gettime");

/// What a clock says.
fn read(clock: c_int) -> Option<Moment> {
    let address = CLOCK_GETTIME.address()?;
    let mut moment = Moment { seconds: 0, parts: 0 };
    // SAFETY: the C library's function of this name takes a clock's number and a place for what it says.
    let failed = unsafe {
        core::mem::transmute::<usize, unsafe extern "C" fn(c_int, *mut Moment) -> c_int>(address)(
            clock,
            &raw mut moment,
        )
    };
    (failed == 0).then_some(moment)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn time(to: *mut c_long) -> c_long {
    asked(b"time");
    let seconds = read(CLOCK_REALTIME_COARSE).map_or(-1, |moment| moment.seconds);
    if !to.is_null() {
        // SAFETY: the caller's place for a time.
        unsafe { *to = seconds };
    }
    seconds
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(to: *mut Moment, zone: *mut Zone) -> c_int {
    asked(b"gettimeofday");
    let Some(moment) = read(CLOCK_REALTIME) else { return -1 };
    // SAFETY: the caller's places, each of which may be left out.
    unsafe {
        if !to.is_null() {
            *to = Moment { seconds: moment.seconds, parts: moment.parts / NANOSECONDS_PER_MICROSECOND };
        }
        if !zone.is_null() {
            *zone = Zone { minutes_west: 0, summer_time: 0 };
        }
    }
    0
}
