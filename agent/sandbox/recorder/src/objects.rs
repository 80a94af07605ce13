//! What the loader has brought into the process: the C library's functions behind ours, the files it came from, and which of them refer to
//! `environ`, so that they could read the whole environment without asking for a name.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::log::{self, Kind};
use crate::{kernel, log::is_on};

/// `struct dl_phdr_info`, as far as it is used.
#[repr(C)]
pub(crate) struct Loaded {
    address: usize,
    name: *const c_char,
    segments: *const Segment,
    n_segments: u16,
}

#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    size_in_file: u64,
    size: u64,
    alignment: u64,
}

#[repr(C)]
struct Dynamic {
    tag: i64,
    value: u64,
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const DT_VERSYM: i64 = 0x6fff_fff0;
const STT_FUNC: u8 = 2;
/// A version that no new program is linked against.
const VERSION_HIDDEN: u16 = 0x8000;

unsafe extern "C" {
    fn dl_iterate_phdr(
        each: unsafe extern "C" fn(*const Loaded, usize, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
}

/// The symbols of one loaded file.
#[derive(Clone, Copy)]
pub(crate) struct Symbols {
    address: usize,
    names: *const c_char,
    table: *const Symbol,
    versions: *const u16,
    /// `.gnu.hash`: four numbers, a Bloom filter, buckets, chains.
    hashes: *const u32,
}

impl Symbols {
    unsafe fn of(loaded: &Loaded) -> Option<Self> {
        let mut found = Self {
            address: loaded.address,
            names: ptr::null(),
            table: ptr::null(),
            versions: ptr::null(),
            hashes: ptr::null(),
        };
        // SAFETY: the loader keeps segments and their tables readable while the file is loaded, and holds its lock meanwhile.
        unsafe {
            let mut entry = loaded.segments().find(|segment| segment.kind == PT_DYNAMIC).map(|segment| {
                ptr::with_exposed_provenance::<Dynamic>(loaded.address.wrapping_add(segment.address as usize))
            })?;
            while (*entry).tag != 0 {
                // glibc writes addresses there, other loaders leave offsets.
                let value = (*entry).value as usize;
                let at = if value < loaded.address { value.wrapping_add(loaded.address) } else { value };
                match (*entry).tag {
                    DT_STRTAB => found.names = ptr::with_exposed_provenance(at),
                    DT_SYMTAB => found.table = ptr::with_exposed_provenance(at),
                    DT_VERSYM => found.versions = ptr::with_exposed_provenance(at),
                    DT_GNU_HASH => found.hashes = ptr::with_exposed_provenance(at),
                    _ => {}
                }
                entry = entry.add(1);
            }
        }
        (!found.names.is_null() && !found.table.is_null() && !found.hashes.is_null()).then_some(found)
    }

    /// The address of the function `name`, in the version that is meant if none is named.
    pub(crate) unsafe fn function(&self, name: &CStr) -> Option<usize> {
        let hash =
            name.to_bytes().iter().fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
        let mut older = None;
        // SAFETY: the tables are those of a loaded file, which the loader itself reads in the same way.
        unsafe {
            let (n_buckets, first, n_words) =
                (*self.hashes, *self.hashes.add(1) as usize, *self.hashes.add(2) as usize);
            let shift = *self.hashes.add(3);
            if n_buckets == 0 || n_words == 0 {
                return None;
            }
            let filter = self.hashes.add(4).cast::<u64>();
            let word = filter.add((hash as usize / 64) % n_words).read_unaligned();
            let both = 1u64 << (hash % 64) | 1u64 << (hash.wrapping_shr(shift) % 64);
            if word & both != both {
                return None;
            }
            let buckets = filter.add(n_words).cast::<u32>();
            let chains = buckets.add(n_buckets as usize);
            let mut at = *buckets.add((hash % n_buckets) as usize) as usize;
            if at < first {
                return None;
            }
            loop {
                let there = *chains.add(at - first);
                let symbol = &*self.table.add(at);
                if there | 1 == hash | 1
                    && symbol.section != 0
                    && symbol.info & 0xf == STT_FUNC
                    && CStr::from_ptr(self.names.add(symbol.name as usize)) == name
                {
                    let address = self.address.wrapping_add(symbol.value as usize);
                    if self.versions.is_null() || *self.versions.add(at) & VERSION_HIDDEN == 0 {
                        return Some(address);
                    }
                    older = Some(address);
                }
                if there & 1 != 0 {
                    return older;
                }
                at += 1;
            }
        }
    }

    /// Whether the file refers to `environ`, or that can't be told.
    unsafe fn refer_to_environment(&self) -> bool {
        // SAFETY: as above. Symbols that are only used stand before those that are found by hash; the first is none.
        unsafe {
            let n_used = *self.hashes.add(1) as usize;
            n_used <= 1
                || (1..n_used).any(|at| {
                    let symbol = &*self.table.add(at);
                    let name = CStr::from_ptr(self.names.add(symbol.name as usize)).to_bytes();
                    symbol.section == 0 && matches!(name, b"environ" | b"__environ" | b"_environ")
                })
        }
    }
}

impl Loaded {
    unsafe fn segments(&self) -> impl Iterator<Item = &Segment> {
        // SAFETY: the caller has this from the loader.
        (0..usize::from(self.n_segments)).map(|at| unsafe { &*self.segments.add(at) })
    }

    /// Whether this library is meant.
    unsafe fn is_this(&self) -> bool {
        let here = (&raw const LIBRARIES).addr();
        // SAFETY: as above.
        unsafe { self.segments() }.any(|segment| {
            let start = self.address.wrapping_add(segment.address as usize);
            segment.kind == PT_LOAD && (start..start.wrapping_add(segment.size as usize)).contains(&here)
        })
    }
}

/// Libraries behind this one that define functions of the C library: one, or two where the loader's functions have their own.
const MAX_LIBRARIES: usize = 8;
static LIBRARIES: [[AtomicUsize; 5]; MAX_LIBRARIES] = [const { [const { AtomicUsize::new(0) }; 5] }; MAX_LIBRARIES];
static N_LIBRARIES: AtomicUsize = AtomicUsize::new(0);
static SEARCHED: AtomicBool = AtomicBool::new(false);
static CHANGED: AtomicBool = AtomicBool::new(false);
/// The process that looks at what is loaded: a child of `fork` must not take the loader's lock, which another thread may have held.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// The libraries to look for functions in, in order.
pub(crate) fn libraries() -> impl Iterator<Item = Symbols> {
    if !SEARCHED.load(Ordering::Acquire) {
        let mut passed = false;
        // SAFETY: the function fits, and `passed` outlives the call.
        unsafe { dl_iterate_phdr(find_libraries, (&raw mut passed).cast()) };
        SEARCHED.store(true, Ordering::Release);
    }
    let n = N_LIBRARIES.load(Ordering::Acquire).min(MAX_LIBRARIES);
    LIBRARIES.iter().take(n).map(|parts| {
        let [address, names, table, versions, hashes] = parts.each_ref().map(|part| part.load(Ordering::Relaxed));
        Symbols {
            address,
            names: ptr::with_exposed_provenance(names),
            table: ptr::with_exposed_provenance(table),
            versions: ptr::with_exposed_provenance(versions),
            hashes: ptr::with_exposed_provenance(hashes),
        }
    })
}

unsafe extern "C" fn find_libraries(loaded: *const Loaded, _: usize, passed: *mut c_void) -> c_int {
    // SAFETY: the loader hands us a description of a loaded file, and our own flag back.
    unsafe {
        let (loaded, passed) = (&*loaded, &mut *passed.cast::<bool>());
        if loaded.is_this() {
            *passed = true;
        } else if *passed
            && let Some(symbols) = Symbols::of(loaded)
            && (symbols.function(c"getenv").is_some() || symbols.function(c"dlopen").is_some())
        {
            let n = N_LIBRARIES.load(Ordering::Relaxed);
            let Some(parts) = LIBRARIES.get(n) else { return 1 };
            let found = [
                symbols.address,
                symbols.names.expose_provenance(),
                symbols.table.expose_provenance(),
                symbols.versions.expose_provenance(),
                symbols.hashes.expose_provenance(),
            ];
            for (part, value) in parts.iter().zip(found) {
                part.store(value, Ordering::Relaxed);
            }
            N_LIBRARIES.store(n + 1, Ordering::Release);
        }
    }
    0
}

/// Notes which files are loaded. Those there from the start are the program's own; of `later` ones it counts what they could read.
pub(crate) fn look(mut later: bool) {
    if !later {
        LOOKING.store(kernel::process(), Ordering::Relaxed);
    }
    // SAFETY: the function fits, and `later` outlives the call.
    unsafe { dl_iterate_phdr(note, (&raw mut later).cast()) };
}

/// Something may have been loaded: to be looked at with the next thing that is noted.
pub(crate) fn changed() {
    CHANGED.store(true, Ordering::Release);
}

/// Looks if something was loaded.
pub(crate) fn look_again() {
    if CHANGED.load(Ordering::Acquire)
        && LOOKING.load(Ordering::Relaxed) == kernel::process()
        && CHANGED.swap(false, Ordering::AcqRel)
    {
        look(true);
    }
}

unsafe extern "C" fn note(loaded: *const Loaded, _: usize, later: *mut c_void) -> c_int {
    // SAFETY: the loader hands us a description of a loaded file, and our own flag back.
    unsafe {
        let (loaded, later) = (&*loaded, *later.cast::<bool>());
        if !is_on() || loaded.name.is_null() || loaded.is_this() {
            return 0;
        }
        let name = CStr::from_ptr(loaded.name).to_bytes();
        // The program itself has no name here, and what the kernel provides no folder.
        if name.first() == Some(&b'/') && log::is_first(Kind::Read, name) {
            log::always(Kind::Read, name);
        }
        if name.first() == Some(&b'/') && log::is_first(Kind::Loaded, name) && later {
            // Opened as a file by the program as well, perhaps, so that this has a memory of its own.
            let walks = Symbols::of(loaded).is_none_or(|symbols| symbols.refer_to_environment());
            if walks {
                log::always(Kind::Walker, name);
            }
        }
    }
    0
}
