//! The provider for Amazon EC2 against a peer that plays AWS: moto, with what it lacks in front of it (`tests/peers/aws`).
//! Nothing here was ever asked of AWS itself; docs/aws.md says so too.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod account;
mod catalog;
mod conformance;
mod doctor;
mod interruptions;
mod launches;
mod leftovers;
mod permissions;
