//! The `buildbee` executable against a daemon's side of the socket played by a thread, with real compilers and scripts.

#[cfg(test)]
mod conversation;
#[cfg(test)]
mod dispatch;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod local_runs;
#[cfg(test)]
mod stage;
