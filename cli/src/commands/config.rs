//! `bursar config`: a configuration checked, its schema, and the daemon told to read it again.

use std::path::Path;

use bursar_config::{
    Checked, Problem, Problems, ReadError, SpecFile, Submission,
    read::{environment, read_text},
    read_config, read_spec, schema_config, schema_experiment,
};
use bursar_daemon::configuration::Reloaded;
use bursar_model::SecretRef;

use super::{CONFIGURATION, Context, block_on, show_warnings, unreadable};
use crate::{
    args::{ConfigCommand, Global, SchemaOf},
    client::Client,
    exit::{Failure, OK, Outcome, USAGE},
    output::{json, line, note},
};

pub(super) fn run(global: &Global, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Check { file } => check(global, file.as_deref()),
        ConfigCommand::Reload => block_on(reload(global)),
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
        read_spec(file, config.as_ref()).map(|checked| {
            let absent = absent_secrets(&checked.value);
            checked.warnings.into_iter().chain(absent).collect()
        })
    } else {
        read_config(Some(file)).map(|checked| checked.warnings)
    };
    match result {
        Ok(warnings) => accepted(global, warnings, &format!("{} is fine", file.display())),
        Err(error) => refused(global, error),
    }
}

/// The secrets of a spec that are not found here. The daemon may well find them, so nothing is wrong yet.
fn absent_secrets(file: &SpecFile) -> Vec<Problem> {
    let spec = match &file.submission {
        Submission::Experiment { spec, .. } => spec,
        Submission::Sweep { spec, .. } => &spec.experiment,
    };
    let environment = environment();
    let absent = spec.secrets.iter().filter_map(|(name, secret)| {
        let (key, message) = match secret {
            SecretRef::Env(variable) if !environment.contains_key(variable) => {
                ("env", format!("there is no environment variable {variable} here"))
            }
            SecretRef::File(path) if !Path::new(path).is_file() => {
                ("file", format!("there is no file {path} here"))
            }
            SecretRef::Env(_) | SecretRef::File(_) => return None,
        };
        let problem = file.problem(&format!("secrets.{name}.{key}"), message);
        Some(problem.hint("it has to be there where `bursar serve` runs"))
    });
    absent.collect()
}

/// The daemon reads its own file, which need not be the one that is found here: an address says enough.
async fn reload(global: &Global) -> Outcome {
    let client = match &global.url {
        Some(url) => Client::new(url)?,
        None => Context::new(global)?.client,
    };
    let reloaded: Reloaded = client.post("/v1/config/reload", &(), None).await?;
    if global.json {
        json(&reloaded)?;
        return Ok(OK);
    }
    let Reloaded { file, changed, needs_restart, standing, warnings } = reloaded;
    show_warnings(&warnings);
    let file = file.map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    if changed.is_empty() {
        line(&format!("the daemon went by {file} already"))?;
    } else {
        line(&format!("the daemon goes by {file} from now on"))?;
    }
    for (what, entries) in [("changed", changed), ("needs a restart", needs_restart), ("stands", standing)] {
        for entry in entries {
            line(&format!("{what:<16}{entry}"))?;
        }
    }
    Ok(OK)
}

fn accepted(global: &Global, warnings: Vec<Problem>, message: &str) -> Outcome {
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
