//! The whole daemon on virtual time.

mod chaos;
mod scenarios;
