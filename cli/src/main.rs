//! The `bursar` program: the daemon, and everything that people do with it.

mod args;
mod client;
mod commands;
mod demo;
mod exit;
mod output;
mod source;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::note(&failure.to_string());
            ExitCode::from(failure.code)
        }
    }
}
