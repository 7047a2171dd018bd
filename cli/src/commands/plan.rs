//! `bursar plan` and `bursar explain`: what would be chosen, and why not the others.

use bursar_daemon::http::{PlanAnswer, PlanRequest};

use super::{Context, submit};
use crate::{
    args::{Named, Plan, Submit},
    exit::{Failure, OK, Outcome, REFUSED},
    output::{json, line, note, render},
    source::segment,
};

/// Candidates shown unless all are asked for: the chosen one and those that came close.
const SHOWN: usize = 10;

pub(super) async fn run(context: Context, wanted: Plan) -> Outcome {
    let options = Submit {
        files: Vec::new(),
        wait: false,
        name: None,
        project: None,
        env: Vec::new(),
        key: None,
        dry_run: true,
    };
    let spec = submit::read(&context, &options, &wanted.file, false)?;
    show(&context, spec, wanted.all).await
}

/// Plans a spec and shows the candidates. Refused when none can be chosen.
pub(super) async fn show(context: &Context, spec: bursar_config::RawSpec, all: bool) -> Outcome {
    let name = spec.name.clone().unwrap_or_else(|| "this".to_owned());
    let request = PlanRequest { user: submit::user(), spec };
    let answer: PlanAnswer = context.client.post("/v1/plan", &request, None).await?;
    let is_possible = answer.candidates.first().is_some_and(bursar_policies::Candidate::is_chosen);
    if context.json {
        json(&answer)?;
    } else {
        if answer.trials > 1 {
            note(&format!("{name}: {} trials; each on its own would go here", answer.trials));
        }
        candidates(&answer, all)?;
    }
    Ok(if is_possible { OK } else { REFUSED })
}

pub(super) async fn explain(context: Context, named: Named) -> Outcome {
    let path = format!("/v1/experiments/{}/explain", segment(&named.name));
    let answer: PlanAnswer = context.client.get(&path).await?;
    if context.json {
        json(&answer)?;
        return Ok(OK);
    }
    let state = answer.state.as_deref().unwrap_or("unknown");
    match &answer.waiting {
        Some(why) => line(&format!("{} is {state}: {why}", named.name))?,
        None => line(&format!("{} is {state}", named.name))?,
    }
    if !answer.candidates.is_empty() {
        line("")?;
        candidates(&answer, false)?;
    }
    Ok(OK)
}

fn candidates(answer: &PlanAnswer, all: bool) -> Result<(), Failure> {
    if answer.candidates.is_empty() {
        note(
            "no machine on offer has any of the accelerators that it asks for; `bursar offers` lists what there is",
        );
        return Ok(());
    }
    let shown = if all { answer.candidates.len() } else { SHOWN };
    let rows = answer
        .candidates
        .iter()
        .take(shown)
        .map(|candidate| {
            vec![
                if candidate.is_chosen() { "->".to_owned() } else { String::new() },
                candidate.offering.to_string(),
                candidate.price.map_or_else(|| "unknown".to_owned(), |price| price.rounded()),
                format!("{:.2}x", candidate.speed),
                format!("{:.2}h", candidate.expected_hours),
                candidate.expected_cost.map_or_else(|| "-".to_owned(), |cost| cost.rounded()),
                candidate.hold.map_or_else(|| "-".to_owned(), |hold| hold.rounded()),
                candidate.verdict.to_string(),
            ]
        })
        .collect();
    line(&render(
        &["", "offering", "price", "speed", "time", "cost", "hold", "verdict"],
        rows,
        &[2, 3, 4, 5, 6],
    ))?;
    let hidden = answer.candidates.len().saturating_sub(shown);
    if hidden > 0 {
        note(&format!("{hidden} more; see them with --all or --json"));
    }
    Ok(())
}
