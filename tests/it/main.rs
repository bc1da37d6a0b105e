//! All integration tests, in one binary: one link, shared fixtures.

mod support;

#[cfg(feature = "lab")]
mod lab;
#[cfg(feature = "lab")]
mod lab_life;
