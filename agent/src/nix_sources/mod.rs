//! Where files of Nix store paths in a toolchain may be had besides from peers: before them out of this machine's own store, after them (and
//! the client, who is asked last of all peers) out of binary caches, and by a command of the owner's.
//!
//! An action names each file by its own digest, and nothing is stored under another: no source is believed, and none can put bytes into a
//! toolchain that the client did not name. What a cache says must be signed by a key of the owner's, or the path's name follow from its
//! content: else the size that it names would bound nothing. [`lacking`] says which files of which paths are not there; [`folder`] copies them
//! out of a folder; [`description`], [`archive`], [`http`], [`tls`] and [`caches`] are binary caches; [`hook`] is the command; [`sources`] has them in
//! their order, each with its deadline. Not here: directories, which only peers have.

pub mod archive;
pub mod caches;
pub mod description;
pub mod folder;
pub mod hook;
pub mod http;
pub mod lacking;
pub mod sources;
pub mod tls;
