//! The command line and the wrapper with the real daemon, each test with one of its own.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod drop_in;
#[cfg(test)]
mod explaining;
#[cfg(test)]
mod home;
#[cfg(test)]
mod questions;
#[cfg(test)]
mod starting;
