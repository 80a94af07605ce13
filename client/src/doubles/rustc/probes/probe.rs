//! What targets, versions and builds of rustc differ in, in one crate.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};

#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pair<T, U> {
    pub one: T,
    pub other: U,
}

pub trait Shape {
    fn area(&self) -> f64;
    fn name(&self) -> String {
        String::from("shape")
    }
}

pub struct Circle(pub f64);

impl Shape for Circle {
    fn area(&self) -> f64 {
        std::f64::consts::PI * self.0.powi(2)
    }
}

impl Drop for Circle {
    fn drop(&mut self) {
        SEEN.with(|seen| seen.borrow_mut().push(self.0 as u8));
    }
}

thread_local! {
    static SEEN: RefCell<Vec<u8>> = RefCell::new(Vec::new());
}

pub static TABLE: [u64; 64] = {
    let mut table = [0u64; 64];
    let mut at = 0;
    while at < 64 {
        table[at] = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        at += 1;
    }
    table
};

pub fn sum<I: IntoIterator<Item = T>, T: Copy + Into<u64>>(all: I) -> u64 {
    all.into_iter().map(Into::into).sum()
}

pub fn count(words: &[&str]) -> BTreeMap<String, usize> {
    let mut all = HashMap::new();
    for word in words {
        *all.entry(word.to_string()).or_insert(0usize) += 1;
    }
    all.into_iter().collect()
}

#[inline]
pub fn small(a: u32, b: u32) -> u32 {
    a.rotate_left(b & 31) ^ b
}

pub fn divide(a: i64, b: i64) -> i64 {
    if b == 0 {
        panic!("{} by zero", a)
    }
    a / b
}

pub fn show<T: Display + Debug>(it: &T) -> String {
    format!("{} {:?}", it, it)
}

pub fn wide(a: u128, b: u128) -> Option<u128> {
    a.checked_mul(b)
}

pub fn all(shapes: &[Box<dyn Shape>]) -> f64 {
    shapes.iter().map(|shape| shape.area()).sum()
}

pub async fn later(n: u32) -> u32 {
    std::future::ready(n).await + 1
}

pub fn lanes(a: &[f32; 16], b: &mut [f32; 16]) {
    for (one, other) in a.iter().zip(b.iter_mut()) {
        *other += one * 2.5;
    }
}

/// What LLVM makes of such calls at compile time comes of the C library of the machine that it runs on.
pub fn folded() -> ([f64; 24], [f32; 8]) {
    let wide = [
        0.1f64.sin(), 0.7f64.cos(), 1.3f64.tan(), 0.3f64.asin(), 0.3f64.acos(), 2.5f64.atan(), 1.5f64.sinh(), 1.5f64.cosh(),
        0.5f64.tanh(), 1.7f64.exp(), 0.3f64.exp2(), 0.01f64.exp_m1(), 2.9f64.ln(), 3.3f64.log2(), 7.7f64.log10(), 0.003f64.ln_1p(),
        1.1f64.powf(2.2), 7.3f64.cbrt(), 3.0f64.hypot(4.1), 1.0f64.atan2(3.0), 5.5f64.sqrt(), 100.5f64.sin(), 1e10f64.cos(), 30.0f64.exp(),
    ];
    let narrow = [
        0.1f32.sin(), 0.7f32.cos(), 1.7f32.exp(), 2.9f32.ln(), 1.1f32.powf(2.2), 0.3f32.tan(), 7.3f32.log2(), 5.1f32.exp2(),
    ];
    (wide, narrow)
}

pub fn warned() -> u8 {
    let unused = TABLE[3];
    1
}

#[macro_export]
macro_rules! twice {
    ($it:expr) => {
        $it + $it
    };
}
