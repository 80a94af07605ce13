//! What must hold the board's word.

pub static LANES: u8 = asking::lanes!();
