//! What the program does on real kernels: one binary, one link, a module a room, shared fixtures.

mod bench;
#[cfg(all(feature = "people", feature = "control"))]
mod examples;
mod fiemap;
mod golden;
mod install;
mod lab;
mod lab_life;
mod page;
mod place;
mod probe;
mod profile;
mod record;
mod support;
mod tidy;
mod warm;
