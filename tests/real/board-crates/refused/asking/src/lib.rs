//! A macro that comes out otherwise on another kind of host.

/// The width of vectors where the compiler runs.
#[proc_macro]
pub fn lanes(_: proc_macro::TokenStream) -> proc_macro::TokenStream {
    if cfg!(target_arch = "x86_64") { "4u8" } else { "2u8" }.parse().unwrap()
}
