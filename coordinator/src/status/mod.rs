//! What people and monitoring see of the coordinator: a page, the same as JSON, and `/metrics`.
//!
//! [`document`] is what is shown, made from a copy of the scheduler's state; [`metrics`] the same in Prometheus' text format; [`respond`]
//! answers one request, after [`host`] has looked whom it was meant for; [`server`] is the thread with its sockets. `page.html` is the
//! whole page: it polls the JSON and loads nothing from anywhere.
//!
//! Nothing here changes anything, and nothing here is on the path of a heartbeat: the thread asks the scheduler for a copy at most twice
//! a second, however many look.

pub mod document;
pub mod host;
pub mod metrics;
pub mod respond;
pub mod server;
