//! What is made of another crate.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct User {
    words: BTreeMap<String, usize>,
    pairs: Vec<probe::Pair<u8, Option<String>>>,
}

impl User {
    pub fn new(words: &[&str]) -> Self {
        Self { words: probe::count(words), pairs: vec![probe::Pair { one: 1, other: None }; 3] }
    }

    pub fn sorted(mut self) -> Vec<probe::Pair<u8, Option<String>>> {
        self.pairs.sort();
        self.pairs
    }

    pub fn total(&self) -> u64 {
        probe::sum(self.pairs.iter().map(|pair| pair.one)) + probe::twice!(self.words.len() as u64)
    }
}

pub fn shapes() -> f64 {
    let all: Vec<Box<dyn probe::Shape>> = vec![Box::new(probe::Circle(1.5)), Box::new(probe::Circle(2.5))];
    probe::all(&all) + f64::from(probe::small(3, 4)) + probe::divide(7, 2) as f64
}

pub async fn later() -> u32 {
    probe::later(1).await + probe::later(2).await
}

#[no_mangle]
pub extern "C" fn entry(n: u32) -> u64 {
    std::panic::catch_unwind(|| User::new(&["a", "b", "a"]).total() + u64::from(n)).unwrap_or(0)
}
