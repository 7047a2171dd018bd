//! `bursar rerun`: the same experiment once more, and in what it can differ.

use std::collections::BTreeMap;

use bursar_daemon::http::{RerunAnswer, RerunRequest};

use super::{Context, submit, wait};
use crate::{
    args::Rerun,
    exit::{OK, Outcome},
    output::{json, line},
    source::segment,
};

pub(super) async fn run(context: Context, rerun: Rerun) -> Outcome {
    let Rerun { name, set, wait: waits, key } = rerun;
    let mut envs = BTreeMap::new();
    for pair in &set {
        let (name, value) = submit::variable("--set", pair)?;
        envs.insert(name.to_owned(), value.to_owned());
    }
    let request = RerunRequest { user: submit::user(), envs };
    let path = format!("/v1/experiments/{}/rerun", segment(&name));
    let answer: RerunAnswer = context.client.post(&path, &request, key.as_deref()).await?;
    if !context.json {
        let waiting = answer.waiting.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let again = if answer.repeated { " (the same as before)" } else { "" };
        line(&format!("{}  repeats {}{again}{waiting}", answer.experiment, answer.of))?;
        for difference in &answer.differs {
            line(&format!("  {difference}"))?;
        }
    }
    if !waits {
        if context.json {
            json(&answer)?;
        }
        return Ok(OK);
    }
    let (code, end) = wait::experiment(&context.client, answer.experiment).await?;
    if context.json {
        json(&end)?;
    }
    Ok(code)
}
