//! The client: wrapper, command line, per-user daemon and compiler front-ends.
//!
//! | module | job |
//! |---|---|
//! | [`compiler`] | front-end for C and C++: what a compiler command line means; pure |
//! | [`rust`] | front-end for rustc; pure |
//! | [`reason`] | why a command runs locally, for both front-ends |
//! | [`toolchain`] | from a compiler's path to the toolchain that it is part of |
//! | [`portable`] | results shared between checkouts in different folders; pure |
//! | [`inputs`] | what a compile reads, as read set and as Merkle tree |
//! | [`dispatch`] | agents, leases, attempts |
//! | [`daemon`] | answers wrappers and the command line; ties the others together |
//! | [`doubles`] | compilers that run on agents of another architecture in place of this machine's |
//! | [`entries`] | the cache as ccache and sccache use it, over HTTP |
//! | [`storage_helper`] | what ccache starts to reach it |
//! | [`journal`] | counts and reasons |
//! | [`config`] | settings: the one reader of the environment |
//! | [`locale`] | in which common locale messages come out as in the user's |
//! | [`cli`] | the command line: questions to the daemon, joining a farm, starting the daemon |
//! | [`ui`], [`exit`] | how answers look; exit codes |
//! | [`doctor`] | what keeps this machine from building well |
//! | [`farm_up`], [`guest`] | throw-away farms on one machine; commands run in the foreground |
//! | [`top`], [`trace`] | the farm at work, live and as a file for trace viewers |
//! | [`wrapper`] | the millisecond path, shared with the wrapper's executable |
//!
//! The wrapper itself (`src/bin/buildbee.rs`) uses none of this but [`wrapper`]: it starts for every compile and links no runtime.

pub mod cli;
pub mod compiler;
pub mod config;
pub mod daemon;
pub mod dispatch;
pub mod doctor;
pub mod doubles;
pub mod entries;
pub mod exit;
pub mod farm_up;
pub mod guest;
pub mod inputs;
pub mod journal;
pub mod locale;
pub mod portable;
pub mod reason;
pub mod rust;
pub mod storage_helper;
pub mod toolchain;
pub mod top;
pub mod trace;
pub mod ui;
pub mod wrapper;
