//! What end-to-end tests work with: the built program, and installations of it that live in folders of their own.
//!
//! Everything is done as a user does it: by the command line, by files, by signals. Nothing is shared between two
//! installations, so tests run side by side; and nothing of one is left when it is dropped.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking, and the world of real files and clocks is what they test in"
)]

pub mod aws;
pub mod installation;
pub mod machine;
pub mod metadata;
pub mod money;
pub mod moto;
pub mod processes;
pub mod program;
pub mod wait;
pub mod webhook;

pub use self::{
    aws::AwsPeer,
    installation::Installation,
    metadata::MetadataServer,
    money::nanos,
    program::Said,
    wait::{PATIENCE, until},
    webhook::{Answer, Received, WebhookServer},
};
