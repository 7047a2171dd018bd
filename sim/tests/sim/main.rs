//! The whole daemon on virtual time.

mod asha;
mod chaos;
mod notifications;
mod scenarios;
