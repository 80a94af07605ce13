//! Questions for variables.

use core::ffi::{c_char, c_int};
use core::ptr::null_mut;

use crate::interpose::interpose;
use crate::log::{self, Kind};

interpose! {
    fn getenv(name: *const c_char) -> *mut c_char, else null_mut();
        first log::text(Kind::Variable, name);
    fn secure_getenv(name: *const c_char) -> *mut c_char, else null_mut();
        first log::text(Kind::Variable, name);
    fn setlocale(category: c_int, locale: *const c_char) -> *mut c_char, else null_mut();
        first if !locale.is_null() && *locale == 0 { locales() };
}

/// An empty locale is the one that these name.
fn locales() {
    let names =
        ["LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LC_COLLATE", "LC_TIME", "LC_NUMERIC", "LC_MONETARY", "LANG", "LANGUAGE"];
    for name in names {
        log::once(Kind::Variable, name.as_bytes());
    }
}
