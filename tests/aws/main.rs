//! The provider for Amazon EC2 against a peer that plays AWS: moto, with what it lacks in front of it (`tests/peers/aws`).
//! Nothing here was ever asked of AWS itself; docs/aws.md says so too.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and the world of real files and clocks is what they test in"
)]

mod account;
mod catalog;
mod conformance;
mod crashes;
mod crowds;
mod doctor;
mod experiments;
mod figures;
mod interruptions;
mod lab;
mod launches;
mod leftovers;
mod permissions;
