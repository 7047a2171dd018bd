//! All that a local instance needs, as a program of its own for where there is no `bursar` binary, such as the tests:
//! `bursar-local-host host DIR` plays the machine, `bursar-local-host agent SETTINGS.json` is its agent.

use std::{env, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let (Some(mode), rest) = (args.next(), args) else {
        eprintln!("usage: bursar-local-host host DIR | agent SETTINGS.json");
        return ExitCode::from(2);
    };
    if mode == bursar_agent::EXEC_COMMAND {
        return bursar_agent::exec_shim(rest);
    }
    let path: PathBuf = rest.collect();
    let outcome = match mode == "agent" {
        true => bursar_agent::AgentSettings::read(&path)
            .and_then(bursar_agent::run)
            .map_err(|error| error.to_string()),
        false => bursar_providers::local::host::run(&path).map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bursar-local-host: {error}");
            ExitCode::FAILURE
        }
    }
}
