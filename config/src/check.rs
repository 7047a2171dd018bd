//! What documents mean: raw types into checked ones, with all problems at once. Pure, and fast enough for the wire.
//!
//! Problems carry key paths only; `load` adds the lines where there is a file.

mod accelerators;
mod asha;
mod aws;
mod budget;
mod config;
mod data;
mod expand;
mod image;
mod notifications;
mod pricing;
mod provenance;
mod providers;
mod quantities;
mod spec;
mod sweep;
mod words;
mod workdir;

pub(crate) use self::{
    config::{Surroundings, check_config},
    workdir::take_source,
};
pub use self::{providers::Machine, spec::Submission, sweep::TRIALS_MAX, workdir::WorkdirSource};
