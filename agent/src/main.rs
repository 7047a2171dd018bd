//! The agent as a program of its own: `bursar-agent SETTINGS.json`. It is also its own shim (`bursar-agent agent-exec`).

use std::{env, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let Some(first) = args.next() else {
        eprintln!("usage: bursar-agent SETTINGS.json");
        return ExitCode::from(2);
    };
    if first == "--version" {
        #[expect(clippy::print_stdout, reason = "what a program answers when asked for its version")]
        {
            println!("bursar-agent {}", env!("CARGO_PKG_VERSION"));
        }
        return ExitCode::SUCCESS;
    }
    if first == bursar_agent::EXEC_COMMAND {
        return bursar_agent::exec_shim(args);
    }
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let outcome = bursar_agent::AgentSettings::read(&PathBuf::from(first)).and_then(bursar_agent::run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bursar-agent: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprintln!("  because {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}
