//! The `bursar` program: the daemon, and everything that people do with it.

mod args;
mod client;
mod commands;
mod demo;
mod exit;
mod git;
mod output;
mod plot;
mod source;
mod terminal;
mod workdir;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

fn main() -> ExitCode {
    // The start of an attempt's process: what follows is somebody else's command line and not ours to parse.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == bursar_agent::EXEC_COMMAND) {
        return bursar_agent::exec_shim(args);
    }
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::note(&failure.to_string());
            ExitCode::from(failure.code)
        }
    }
}
