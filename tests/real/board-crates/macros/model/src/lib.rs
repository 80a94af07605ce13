//! What is made with macros, for this machine.

#[derive(Clone, Debug, naming::Named)]
pub struct BoardState {
    pub n_pins: u32,
    pub names: Vec<String>,
}

impl BoardState {
    pub fn told(&self) -> String {
        format!("{} of {} words: {} {:?}", Self::NAME, Self::WORDS, self.n_pins, self.names)
    }
}
