//! The log: one file, mapped by all processes of a run.
//!
//! Whoever starts the run makes the file: [`HEADER_BYTES`] of header ([`MAGIC`] and the offset of the first free byte, eight bytes each,
//! little-endian), then zeros up to its full size, which is never changed. `BUILDBEE_RECORD` names it. A record is reserved by adding its
//! size to the offset, then filled, then its first word is written: kind in the top byte, length of the content below. So a process that
//! is killed leaves either no record or a reserved place whose first word is zero, and an offset beyond the end says that something did
//! not fit. No system call is made for a record. Each process leaves out what it has noted before, as far as [`KNOWN`] remembers.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::{kernel, objects, path};

/// The first eight bytes: the format, and its version.
const MAGIC: u64 = u64::from_le_bytes(*b"bbrec\0\0\x01");
/// Magic number and offset.
const HEADER_BYTES: usize = 16;
/// Before the content of each record.
const WORD_BYTES: usize = 4;
/// The variable that names the log.
const VARIABLE: &[u8] = b"BUILDBEE_RECORD=";

/// What a record says. The reader has the same table.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A process has loaded this library; content: its program.
    Started = b'S',
    /// A program is about to be started.
    Starting = b'X',
    /// It was not.
    NotStarted = b'x',
    /// A variable was asked for.
    Variable = b'V',
    /// A file was opened so that it could be read.
    Read = b'O',
    /// Something was seen to be there.
    Seen = b'P',
    /// A symlink's target was read.
    Link = b'K',
    /// Nothing was there.
    Absent = b'A',
    /// A folder was opened.
    Listed = b'L',
    /// Something is about to be made: whoever is ended in that call has perhaps made it.
    Making = b'm',
    /// It was not.
    NotMade = b'n',
    /// Something was made, or written without reading.
    Made = b'M',
    /// Something was removed.
    Removed = b'U',
    /// Something was given another name.
    Taken = b'T',
    /// Never written: a loaded library has been looked at.
    Loaded = b'l',
    /// A library was loaded that refers to `environ`.
    Walker = b'E',
    /// A socket was made.
    Network = b'N',
    /// The time of day was asked for; content: by which function, in which program.
    Clock = b'C',
    /// Something was asked that can't be told.
    Unrecorded = b'?',
}

const UNKNOWN: u8 = 0;
const STARTING: u8 = 1;
const OFF: u8 = 2;
const ON: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static BASE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static CAPACITY: AtomicUsize = AtomicUsize::new(0);

/// The program's file, as it was called when the process began.
struct Program(UnsafeCell<[u8; kernel::PATH_MAX]>);

// SAFETY: written once, before the state says that anything is recorded, and only read from then on.
unsafe impl Sync for Program {}

static PROGRAM: Program = Program(UnsafeCell::new([0; kernel::PATH_MAX]));
static N_PROGRAM_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Places of the memory of what was noted: a power of two.
const N_KNOWN: usize = 8192;
/// Places looked at for each record.
const N_PROBES: usize = 8;
static KNOWN: [AtomicU64; N_KNOWN] = [const { AtomicU64::new(0) }; N_KNOWN];

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Opens the log, unless that was done or tried before, and says that this process is there.
pub(crate) fn start() {
    if STATE.compare_exchange(UNKNOWN, STARTING, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    // SAFETY: the loader has set it before any code of a library runs; it is null or a list of texts that ends with null.
    let Some(opened) = (unsafe { named() }).map(open) else {
        // Too early: the next call looks again.
        STATE.store(UNKNOWN, Ordering::Release);
        return;
    };
    if opened.is_some() {
        // SAFETY: one thread comes here, once, and nobody reads the name before the state says so.
        let name = unsafe { &mut *PROGRAM.0.get() };
        N_PROGRAM_BYTES.store(kernel::link_target(b"/proc/self/exe\0", name).unwrap_or(0), Ordering::Relaxed);
    }
    STATE.store(if opened.is_some() { ON } else { OFF }, Ordering::Release);
    if opened.is_some() {
        always(Kind::Started, program());
        objects::look(false);
        // Those are the program's own.
        LIBRARY_READ.store(false, Ordering::Relaxed);
    }
}

/// The log's name, empty if there is none; `None` while there is no environment yet.
unsafe fn named() -> Option<&'static [u8]> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut at = environ;
        if at.is_null() {
            return None;
        }
        while !(*at).is_null() {
            if let Some(name) = CStr::from_ptr(*at).to_bytes_with_nul().strip_prefix(VARIABLE) {
                return Some(name);
            }
            at = at.add(1);
        }
    }
    Some(&[])
}

fn open(name: &[u8]) -> Option<()> {
    if name.first() != Some(&b'/') {
        return None;
    }
    // SAFETY: the name ends with NUL.
    let fd = unsafe { kernel::open_read_write(name.as_ptr()) }?;
    let mapped = kernel::size(fd).and_then(|size| {
        let base = (size > HEADER_BYTES).then(|| kernel::map_shared(fd, size)).flatten()?;
        CAPACITY.store(size, Ordering::Relaxed);
        BASE.store(base, Ordering::Release);
        // SAFETY: the mapping is longer than the header and starts at a page.
        (unsafe { base.cast::<u64>().read() } == MAGIC.to_le()).then_some(())
    });
    kernel::close(fd);
    mapped
}

/// The program's file. [`is_on`] must hold.
pub(crate) fn program() -> &'static [u8] {
    // SAFETY: nobody writes it any more.
    let name = unsafe { &*PROGRAM.0.get() };
    name.get(..N_PROGRAM_BYTES.load(Ordering::Relaxed)).unwrap_or(&[])
}

/// Whether anything is recorded.
pub(crate) fn is_on() -> bool {
    match STATE.load(Ordering::Acquire) {
        ON => true,
        UNKNOWN => {
            start();
            STATE.load(Ordering::Acquire) == ON
        }
        _ => false,
    }
}

/// Whether a library has been read since the start, and so perhaps loaded: who asks for variables from then on need not be the program.
static LIBRARY_READ: AtomicBool = AtomicBool::new(false);

/// Notes something, unless this process has noted the same before. A variable is noted once more after a library has been read.
pub(crate) fn once(kind: Kind, content: &[u8]) {
    if is_on() && matches!(kind, Kind::Read) && content.ends_with(b".so") {
        LIBRARY_READ.store(true, Ordering::Relaxed);
    }
    if is_on() && is_first(kind, content) {
        always(kind, content);
        objects::look_again();
    }
}

/// Notes a text of the caller's.
pub(crate) unsafe fn text(kind: Kind, content: *const c_char) {
    if !content.is_null() {
        // SAFETY: the caller's promise: a text that ends with NUL.
        once(kind, unsafe { CStr::from_ptr(content) }.to_bytes());
    }
}

/// Notes that something can't be told.
pub(crate) fn unrecorded(what: &str) {
    once(Kind::Unrecorded, what.as_bytes());
}

/// Notes something. [`is_on`] must hold.
pub(crate) fn always(kind: Kind, content: &[u8]) {
    let base = BASE.load(Ordering::Acquire);
    let capacity = CAPACITY.load(Ordering::Relaxed);
    let content = content.get(..content.len().min(2 * path::MAX_BYTES)).unwrap_or(&[]);
    let size = WORD_BYTES + content.len().next_multiple_of(WORD_BYTES);
    // SAFETY: the second word of the header, which lies in the mapping and at a multiple of its size.
    let next = unsafe { AtomicU64::from_ptr(base.add(HEADER_BYTES / 2).cast()) };
    let at = usize::try_from(next.fetch_add(size as u64, Ordering::Relaxed)).unwrap_or(usize::MAX);
    let fits = at >= HEADER_BYTES && at.is_multiple_of(WORD_BYTES) && at <= capacity && size <= capacity - at;
    if !fits {
        return;
    }
    let word = u32::from(kind as u8) << 24 | u32::try_from(content.len()).unwrap_or(0);
    // SAFETY: all of the record lies in the mapping, and nobody else was given this place.
    unsafe {
        ptr::copy_nonoverlapping(content.as_ptr(), base.add(at + WORD_BYTES), content.len());
        AtomicU32::from_ptr(base.add(at).cast()).store(word.to_le(), Ordering::Release);
    }
}

/// Whether this process has not noted the same before.
pub(crate) fn is_first(kind: Kind, content: &[u8]) -> bool {
    let again = matches!(kind, Kind::Variable) && LIBRARY_READ.load(Ordering::Relaxed);
    let hash = hash(kind, content).wrapping_add(u64::from(again) << 1);
    for step in 0..N_PROBES {
        let place = (hash as usize).wrapping_add(step) % N_KNOWN;
        let Some(known) = KNOWN.get(place) else { return true };
        match known.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(there) if there == hash => return false,
            Err(_) => {}
        }
    }
    // No room: noted again and again, until the log is full.
    true
}

/// Never zero. Sixty-four bits of a multiplication for each eight bytes: a collision would hide a name, so it must be as good as
/// impossible by accident, and need not withstand intent (who preloads code into a compiler can hide what they like).
fn hash(kind: Kind, content: &[u8]) -> u64 {
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let mut state = u64::from(kind as u8) ^ (content.len() as u64) << 8;
    let mut mix = |bytes: [u8; 8]| {
        let product = (u128::from(state ^ u64::from_le_bytes(bytes)) | 1 << 64).wrapping_mul(FACTOR);
        state = (product as u64) ^ (product >> 64) as u64;
    };
    let (chunks, rest) = content.as_chunks::<8>();
    for chunk in chunks {
        mix(*chunk);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    mix(last);
    mix([0; 8]);
    state | 1
}
