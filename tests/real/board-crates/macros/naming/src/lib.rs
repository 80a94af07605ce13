//! Macros that a compiler loads.

use proc_macro::{TokenStream, TokenTree};

/// Gives a struct its name, and the number of words that it is made of.
#[proc_macro_derive(Named)]
pub fn named(item: TokenStream) -> TokenStream {
    let n_words = item.clone().into_iter().count();
    let mut words = item.into_iter().skip_while(|word| word.to_string() != "struct").skip(1);
    let Some(TokenTree::Ident(name)) = words.next() else { panic!("no struct") };
    let told = words::snake(&name.to_string());
    format!("impl {name} {{ pub const NAME: &'static str = {told:?}; pub const WORDS: usize = {n_words}; }}").parse().unwrap()
}
