//! The whole daemon on virtual time.

mod asha;
mod bills;
mod chaos;
mod clocks;
mod crash_points;
mod mutations;
mod notifications;
mod reload;
mod replay;
mod scenarios;
mod stories;
