//! `bursar explain`: why an experiment waits or runs where it does; or how it ended, what was tried, and what can be done.

use bursar_daemon::{
    http::PlanAnswer,
    views::{ExperimentDetail, ExperimentView},
};

use super::{Context, plan, show};
use crate::{
    args::Named,
    exit::{Failure, OK, Outcome},
    output::{json, line, note},
    source::segment,
};

pub(super) async fn run(context: Context, named: Named) -> Outcome {
    let path = format!("/v1/experiments/{}", segment(&named.name));
    let answer: PlanAnswer = context.client.get(&format!("{path}/explain")).await?;
    if context.json {
        json(&answer)?;
        return Ok(OK);
    }
    let state = answer.state.as_deref().unwrap_or("unknown");
    match &answer.waiting {
        Some(why) => line(&format!("{} is {state}: {why}", named.name))?,
        None => line(&format!("{} is {state}", named.name))?,
    }
    if let Some(estimate) = &answer.estimate {
        line(&format!("expected to cost {} when it was accepted", estimate.each))?;
    }
    let detail: ExperimentDetail = context.client.get(&path).await?;
    if detail.experiment.ended_at.is_some() {
        ended(&detail)?;
        return Ok(OK);
    }
    if !answer.candidates.is_empty() {
        line("")?;
        plan::candidates(&answer, false)?;
    }
    if let Some(text) = plan::without_price(&answer.candidates) {
        note(&text);
    }
    Ok(OK)
}

/// What was tried, what is left of it, and what can be done.
fn ended(detail: &ExperimentDetail) -> Result<(), Failure> {
    let ExperimentDetail { experiment, attempts, uncharged, .. } = detail;
    let so_far = if uncharged.is_some() { " so far" } else { "" };
    line(&format!("it cost {}{so_far}", experiment.cost.rounded()))?;
    match (attempts.is_empty(), experiment.checkpoint_at) {
        (true, _) => line("it never ran")?,
        (false, Some(saved)) => line(&format!("what it saved last is of {saved}"))?,
        (false, None) => line("it saved nothing")?,
    }
    if !attempts.is_empty() {
        line("")?;
        line(&show::attempt_table(attempts))?;
    }
    line("")?;
    for (command, what) in next(detail) {
        line(&format!("{command:<40}  {what}"))?;
    }
    Ok(())
}

/// Commands that help now, each with what it does.
fn next(detail: &ExperimentDetail) -> Vec<(String, String)> {
    let ExperimentDetail { experiment, spec, attempts, .. } = detail;
    let ExperimentView { id, state, .. } = experiment;
    let mut commands = Vec::new();
    let mut add = |command: String, what: &str| commands.push((command, what.to_owned()));
    if !attempts.is_empty() {
        let all = if attempts.len() > 1 { " --attempt all" } else { "" };
        add(format!("bursar logs{all} {id}"), "what it wrote");
    }
    if !spec.data.outputs.is_empty() && !attempts.is_empty() {
        add(format!("bursar outputs {id}"), "what it left behind");
    }
    match state.as_str() {
        "refused" | "stopped" => {
            add("bursar budgets".to_owned(), "which limits there are, and what is left");
            add(format!("bursar rerun {id}"), "the same once more, from its beginning, once that is mended");
        }
        "failed" => {
            add(format!("bursar rerun {id}"), "the same once more, from its beginning, once that is mended")
        }
        _ => add(format!("bursar rerun {id}"), "the same once more, from its beginning"),
    }
    commands
}
