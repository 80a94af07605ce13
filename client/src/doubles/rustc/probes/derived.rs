//! What is made with macros of another crate.

#[derive(macros::Counted)]
pub struct Told {
    pub one: u32,
    #[counted]
    pub other: Vec<Option<String>>,
}

#[macros::kept(a, 1, "two")]
pub fn shown(told: &Told) -> String {
    format!("{} {:?} {}", told.one, told.other, Told::made(Told::COUNT as u64))
}

pub static TABLE: [u64; 8] = macros::table!(8);

pub fn generic<T: Clone>(it: &T) -> (T, u64) {
    (it.clone(), macros::table!(3)[2])
}
