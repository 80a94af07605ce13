//! The functions that ours stand before.

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::objects;

const NONE: usize = 1;

/// One function of the C library, found when it is first needed and remembered.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicUsize,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicUsize::new(0) }
    }

    /// Its address; `None` where the process has no such function.
    pub(crate) fn address(&self) -> Option<usize> {
        let known = match self.found.load(Ordering::Relaxed) {
            0 => {
                // SAFETY: the libraries were there when the process began, and stay.
                let found = objects::libraries().find_map(|symbols| unsafe { symbols.function(self.name) });
                let found = found.unwrap_or(NONE);
                self.found.store(found, Ordering::Relaxed);
                found
            }
            known => known,
        };
        (known != NONE).then_some(known)
    }
}
