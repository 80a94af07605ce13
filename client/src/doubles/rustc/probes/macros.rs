//! Macros of each kind, which copy, count and make up names.

use proc_macro::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};

fn name_of(item: TokenStream) -> Ident {
    let mut words = item.into_iter().skip_while(|word| word.to_string() != "struct").skip(1);
    match words.next() {
        Some(TokenTree::Ident(name)) => name,
        _ => panic!("no struct"),
    }
}

#[proc_macro_derive(Counted, attributes(counted))]
pub fn counted(item: TokenStream) -> TokenStream {
    let n = item.clone().into_iter().count();
    let name = name_of(item);
    let mut made: TokenStream =
        format!("impl {} {{ pub const COUNT: usize = {}; pub fn made(n: u64) -> u64 {{ n.rotate_left({}) }} }}", name, n, n)
            .parse()
            .unwrap();
    let mut hidden = Ident::new("hidden", Span::mixed_site());
    hidden.set_span(Span::mixed_site().located_at(name.span()));
    let body: TokenStream = "{ 7u8 }".parse().unwrap();
    let words: Vec<TokenTree> = vec![
        TokenTree::Ident(Ident::new("const", Span::call_site())),
        TokenTree::Ident(hidden),
    ];
    made.extend(words);
    made.extend::<TokenStream>(": u8 =".parse().unwrap());
    made.extend(body);
    made.extend::<TokenStream>(";".parse().unwrap());
    made
}

#[proc_macro_attribute]
pub fn kept(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let words: Vec<String> = arguments.into_iter().map(|word| word.to_string()).collect();
    let doc = TokenTree::Literal(Literal::string(&words.join("-")));
    let mut inner: TokenStream = "doc =".parse().unwrap();
    inner.extend(vec![doc]);
    let mut made: TokenStream = "#".parse().unwrap();
    made.extend(vec![TokenTree::Group(Group::new(Delimiter::Bracket, inner))]);
    made.extend(item);
    made
}

#[proc_macro]
pub fn table(input: TokenStream) -> TokenStream {
    let n: u64 = input.to_string().trim().parse().unwrap();
    let numbers: Vec<String> = (0..n).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    format!("[{}u64]", numbers.join(", ")).parse().unwrap()
}
