//! Images: where they come from and where they are kept.
//!
//! [`Store`] keeps images as a list of layers, each an EROFS file ready to be mounted; [`load()`] fills it from archives and
//! folders, and [`pull()`] from registries. All of it is hostile input: [`tarball`] and [`erofs`] turn a layer into a file system
//! without the host ever seeing one of its paths.
//!
//! Everything here is synchronous and may be called from any thread; processes that share a store keep out of each other's
//! way by locks on files.

mod blob;
mod compression;
mod config;
mod digest;
pub mod erofs;
mod error;
mod load;
mod platform;
mod progress;
mod pull;
mod reference;
mod store;
pub mod tarball;

#[cfg(test)]
mod fixture;

pub use digest::Digest;
pub use erofs::Limits;
pub use error::Error;
pub use load::{Source, load};
pub use progress::{Event, Progress, Silent};
pub use pull::{PullOptions, Pulled, pull};
pub use reference::{Reference, Version};
pub use store::{Image, Layer, Pin, Removed, Store, Use, abandon};
