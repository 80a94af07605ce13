//! Uses what was made with macros.

fn main() {
    let state = model::BoardState { n_pins: 40, names: vec!["a".to_owned(), "b".to_owned()] };
    assert_eq!(state.told(), "board_state of 4 words: 40 [\"a\", \"b\"]");
    println!("{}", state.told());
}
