//! The requests, by what they are about. `FileSystem::dispatch` (in `file_system`) says which is which; each function reads
//! its own structure of the protocol from the request's body.

mod attr;
mod create;
mod dir;
mod io;
mod names;
mod xattr;
