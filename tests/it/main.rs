//! What the program does on real kernels: one binary, a module a room.

mod fiemap;
mod golden;
mod profile;
mod record;
mod tidy;
