//! `bursar config`.

use std::path::Path;

use bursar_config::{
    Checked, Problems, ReadError, read::read_text, read_config, read_spec, schema_config, schema_experiment,
};

use super::{CONFIGURATION, show_warnings, unreadable};
use crate::{
    args::{ConfigCommand, Global, SchemaOf},
    exit::{Failure, OK, Outcome, USAGE},
    output::{json, line, note},
};

pub(super) fn run(global: &Global, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Check { file } => check(global, file.as_deref()),
        ConfigCommand::Schema { of } => {
            let schema = match of {
                SchemaOf::Experiment => schema_experiment(),
                SchemaOf::Config => schema_config(),
            };
            line(&serde_json::to_string_pretty(&schema)?)?;
            Ok(OK)
        }
    }
}

fn check(global: &Global, file: Option<&Path>) -> Outcome {
    let Some(file) = file else {
        let Checked { value, warnings } = match read_config(global.config.as_deref()) {
            Ok(checked) => checked,
            Err(error) => return refused(global, error),
        };
        return accepted(
            global,
            warnings,
            &value.file.map_or_else(
                || "no configuration found: the defaults are fine".to_owned(),
                |file| format!("{} is fine", file.display()),
            ),
        );
    };
    // A spec has a `run`; everything else is held to be a configuration.
    let text = read_text(file).map_err(unreadable(CONFIGURATION))?;
    let is_spec =
        text.lines().any(|line| line.starts_with("run:") || line.trim_start().starts_with("\"run\""));
    let result = if is_spec {
        let config = read_config(global.config.as_deref()).ok().map(|checked| checked.value.config);
        read_spec(file, config.as_ref()).map(|checked| checked.warnings)
    } else {
        read_config(Some(file)).map(|checked| checked.warnings)
    };
    match result {
        Ok(warnings) => accepted(global, warnings, &format!("{} is fine", file.display())),
        Err(error) => refused(global, error),
    }
}

fn accepted(global: &Global, warnings: Vec<bursar_config::Problem>, message: &str) -> Outcome {
    if global.json {
        json(&serde_json::json!({ "ok": true, "warnings": warnings }))?;
    } else {
        show_warnings(&warnings);
        note(message);
    }
    Ok(OK)
}

fn refused(global: &Global, error: ReadError) -> Outcome {
    match error {
        ReadError::Invalid(Problems(problems)) => {
            if global.json {
                json(&serde_json::json!({ "ok": false, "problems": problems }))?;
                return Ok(USAGE);
            }
            for problem in &problems {
                note(&problem.to_string());
            }
            let count = problems.len();
            Err(Failure::new(USAGE, format!("{count} problem{}", if count == 1 { "" } else { "s" })))
        }
        ReadError::NotFound(_)
        | ReadError::TooLarge(_)
        | ReadError::NotUtf8 { .. }
        | ReadError::Unreadable { .. } => Err(unreadable(CONFIGURATION)(error)),
    }
}
