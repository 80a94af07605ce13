//! How a function is taken over.

/// Defines functions of the C library. Each calls the next of its name with the same arguments, with `first` done before and `then` after,
/// which sees the result. `else` is the result where there is no next one.
macro_rules! interpose {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result_type:ty, else $missing:expr;
        $(first $before:expr;)? $(then |$result:ident| $after:expr;)?)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> $result_type {
            static NEXT: $crate::next::Next = {
                const NAME: &core::ffi::CStr = match core::ffi::CStr::from_bytes_with_nul(
                    concat!(stringify!($name), "\0").as_bytes()
                ) {
                    Ok(name) => name,
                    Err(_) => c"",
                };
                $crate::next::Next::new(NAME)
            };
            let Some(address) = NEXT.address() else {
                $crate::kernel::set_errno($crate::kernel::ENOSYS);
                return $missing;
            };
            // SAFETY: the C library's function of this name takes and returns what this one does.
            let next = unsafe {
                core::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> $result_type>(address)
            };
            // SAFETY: what is read of the arguments here, the function itself reads too.
            unsafe {
                $($before;)?
                let outcome = next($($argument),*);
                $({
                    let $result = outcome;
                    $after;
                })?
                outcome
            }
        }
    )*};
}

pub(crate) use interpose;
