//! Paths as they are noted: absolute, otherwise as the program spelled them. The reader takes `.` and `..` away.

use core::ffi::{CStr, c_char, c_int};

use crate::kernel::{self, AT_FDCWD};
use crate::log::{self, Kind};

/// The longest path noted: a folder's and a relative one.
pub(crate) const MAX_BYTES: usize = 2 * kernel::PATH_MAX;

/// Notes `kind` of `path` as it is seen from the open folder `folder`.
pub(crate) unsafe fn note(kind: Kind, folder: c_int, path: *const c_char) {
    if path.is_null() || !log::is_on() {
        return;
    }
    // SAFETY: the caller's promise: a text that ends with NUL.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    match path.first() {
        // The descriptor itself is asked, or nothing.
        None => {}
        Some(b'/') => log::once(kind, path),
        Some(_) => relative(kind, folder, path),
    }
}

/// Notes `kind` of an open folder.
pub(crate) fn note_folder(kind: Kind, folder: c_int) {
    if log::is_on() {
        relative(kind, folder, b".");
    }
}

fn relative(kind: Kind, folder: c_int, path: &[u8]) {
    let mut buffer = [0; MAX_BYTES];
    let found = buffer.get_mut(..kernel::PATH_MAX).and_then(|start| folder_name(folder, start));
    let joined = found.and_then(|n| {
        let end = n + 1 + path.len();
        *buffer.get_mut(n)? = b'/';
        buffer.get_mut(n + 1..end)?.copy_from_slice(path);
        buffer.get(..end)
    });
    match joined {
        Some(whole) => log::once(kind, whole),
        None => log::unrecorded("a path whose folder has no name"),
    }
}

fn folder_name(folder: c_int, buffer: &mut [u8]) -> Option<usize> {
    if folder == AT_FDCWD {
        return kernel::working_directory(buffer);
    }
    let mut link = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0";
    let digits = decimal(u32::try_from(folder).ok()?);
    let digits = digits.as_slice().trim_ascii_start();
    link.get_mut(14..14 + digits.len())?.copy_from_slice(digits);
    kernel::link_target(&link, buffer).filter(|_| buffer.first() == Some(&b'/'))
}

/// Padded with blanks in front.
fn decimal(mut number: u32) -> [u8; 10] {
    let mut digits = [b' '; 10];
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits
}
