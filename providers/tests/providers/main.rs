//! The providers that need nothing but this machine: their contract, and what is special about each.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests, and they look at real files")]

mod conformance;
mod liars;
mod local;
mod support;
