//! The whole daemon on virtual time.

mod asha;
mod chaos;
mod crash_points;
mod notifications;
mod reload;
mod scenarios;
mod stories;
