//! The machine's owner comes first: what is seen of them, what may be lent, and how what runs gives way.
//!
//! | module | job |
//! |---|---|
//! | [`signals`] | what is seen: one file for each kind, behind one trait |
//! | [`core`] | decides, without clock or files |
//! | [`watch`] | looks, asks the core, carries out |
//! | [`gate`] | where runs hear of it |
//! | [`hours`] | windows of the week |
//! | [`pause`] | what a person says by `buildbee-agent pause`, `resume`, and asks by `status` |
//! | [`words`] | what these say |
//! | [`history`] | who used the machine, for what, how much |

pub mod core;
pub mod gate;
pub mod history;
pub mod hours;
pub mod pause;
pub mod signals;
pub mod watch;
pub mod words;
