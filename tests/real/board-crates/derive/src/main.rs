//! Writes what it has read.

fn main() {
    let text = r#"{"name":"a","pins":{"one":{"kind":"Input","pull_up":true},"two":{"kind":"Output","volts":3.5}}}"#;
    let board: derive::Board = serde_json::from_str(text).expect("it is well-formed");
    assert_eq!(serde_json::to_string(&board).expect("it can be written"), text);
    println!("{board:?}");
}
