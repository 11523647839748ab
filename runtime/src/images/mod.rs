//! Images.
pub mod erofs;
pub mod tarball;
