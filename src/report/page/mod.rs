//! Reports as pages to look at: one file each, that asks for nothing, drawn here as SVG.
//!
//! Holds: text from outside is escaped ([`html::Html`]); a page's size does not grow with the volume; nothing is told by
//! colour alone. Not here: files, and how anything was measured.

mod bench;
mod effect;
mod html;
mod latency;
mod map;
mod panels;
mod parts;
mod svg;
mod sweep;
mod warm;

pub(super) use bench::evidence;
pub use bench::page as bench_page;
pub use effect::page as effect_page;
pub(super) use parts::dollars;
pub(super) use svg::{count, span, us};
pub use warm::page as warm_page;
pub(super) use warm::rate;

#[cfg(test)]
mod tests;
