//! Documents as they were written: serde types of the file and the wire. What they mean is decided in `check`.
//!
//! The doc comments here are what users read: they become the descriptions in the JSON Schemas. Every field may be
//! missing, so that checking can report all that is missing at once; whole numbers are `i64`, so that bounds are
//! checked with a message of ours.

mod budget;
mod config;
mod data;
mod notifications;
mod pricing;
mod providers;
mod spec;
mod sweep;
mod values;
mod workdir;

pub use self::{
    budget::{RawBudget, RawWorkBudget},
    config::{RawConfig, RawLogs, RawPolicy, RawProject, RawUser},
    data::{RawOutputs, RawStorage},
    notifications::{RawNotifications, RawReport, RawWebhook},
    pricing::{RawBilling, RawDiscount, RawPricing},
    providers::{RawLocalType, RawProvider},
    spec::{
        RawCheckpoint, RawEstimate, RawRegistryAuth, RawResources, RawRetry, RawSecret, RawSource, RawSpec,
        RawUtilizationPolicy,
    },
    sweep::{RawAsha, RawDimension, RawSpace, RawSweep},
    values::{LimitOr, OneOrMany, Written},
    workdir::{RawWorkdir, RawWorkdirMap},
};
