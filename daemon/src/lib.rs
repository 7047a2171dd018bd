//! The service: the reconciler, effects, intake, and the HTTP API.

pub mod agent_binaries;
pub mod blobs;
pub mod clock;
pub mod configuration;
mod data;
pub mod effects;
pub mod http;
pub mod inbox;
pub mod logs;
mod nodes;
pub mod notify;
pub mod providers;
pub mod reconciler;
pub mod reports;
pub mod rerun;
pub mod rules;
pub mod secrets;
pub mod series;
pub mod serve;
mod setup;
pub mod views;
mod waiters;
