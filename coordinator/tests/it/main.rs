//! The coordinator with real peers over TCP on the loopback interface, in this process and as a program.

#![expect(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

mod fixture;
mod leases;
mod membership;
mod program;
mod status;
