//! The whole program as its users meet it: real daemons, agents, processes, files and signals.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and the world of real files and clocks is what they test in"
)]

mod api;
mod asha;
mod books;
mod budgets;
mod commands;
mod containers;
mod data;
mod dead_man;
mod demo;
mod estimates;
mod exports;
mod fences;
mod files;
mod inputs;
mod logs;
mod metrics;
mod money;
mod nodes;
mod notifications;
mod outcomes;
mod queue;
mod reconcile;
mod reload;
mod reports;
mod restarts;
mod simulate;
mod workdirs;
