//! `bursar plan`: what would be chosen, and why not the others.

use bursar_daemon::http::{PaysFor, PlanAnswer, PlanEstimate, PlanRequest};
use bursar_policies::{Candidate, Verdict};

use super::{Context, submit};
use crate::{
    args::{Plan, Submit},
    exit::{Failure, OK, Outcome, REFUSED},
    output::{json, line, note, render},
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
    let spec = submit::read(&context, &options, &wanted.file, false)?.raw;
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
        line("")?;
        for text in expectation(&answer) {
            line(&text)?;
        }
    }
    Ok(if is_possible { OK } else { REFUSED })
}

/// What it is expected to cost, and how far the money goes.
fn expectation(answer: &PlanAnswer) -> Vec<String> {
    let Some(PlanEstimate { each, all, pays_for }) = &answer.estimate else {
        return vec![
            "expected cost: unknown; say how long it takes (`estimate: {duration: 3h}`), or let three of that name finish"
                .to_owned(),
        ];
    };
    let mut lines = Vec::new();
    if answer.trials == 1 {
        lines.push(format!("expected cost: {each}"));
    } else {
        lines.push(format!("expected cost: {each} a trial, {all} for all {}", answer.trials));
    }
    if let Some(PaysFor { budget, left, trials }) = pays_for {
        let whose = match (budget.as_str(), answer.trials) {
            ("own", 1) => "its own budget".to_owned(),
            ("own", _) => "the sweep's budget".to_owned(),
            (other, _) => format!("the budget of {other}"),
        };
        lines.push(match (*trials, answer.trials) {
            (paid, wanted) if paid >= wanted => {
                format!("{whose} has {} left, which pays for it", left.rounded())
            }
            (_, 1) => format!("{whose} has {} left, which does not pay for all of it", left.rounded()),
            (paid, wanted) => {
                format!("{whose} has {} left, which pays for about {paid} of {wanted} trials", left.rounded())
            }
        });
    }
    lines
}

/// The offerings that are listed without a price, which is why they are never chosen.
pub(super) fn without_price(candidates: &[Candidate]) -> Option<String> {
    /// More names than these are not read; all of them are among the candidates.
    const NAMED_MAX: usize = 5;
    let without = candidates.iter().filter(|candidate| candidate.verdict == Verdict::UnknownPrice);
    let names: Vec<String> = without.map(|candidate| candidate.offering.to_string()).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("no price is known of {named}{more}: such are never chosen"))
}

pub(super) fn candidates(answer: &PlanAnswer, all: bool) -> Result<(), Failure> {
    if answer.candidates.is_empty() {
        note(
            "no machine on offer has any of the accelerators that it asks for; `bursar offers` lists what there is",
        );
        return Ok(());
    }
    let shown = if all { answer.candidates.len() } else { SHOWN };
    // Of which nothing says how long it takes, an hour is compared.
    let time = if answer.time_assumed { "time (assumed)" } else { "time" };
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
        &["", "offering", "price", "speed", time, "cost", "hold", "verdict"],
        rows,
        &[2, 3, 4, 5, 6],
    ))?;
    let hidden = answer.candidates.len().saturating_sub(shown);
    if hidden > 0 {
        note(&format!("{hidden} more; see them with --all or --json"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bursar_model::{CapacityType, InstanceType, OfferingKey};

    use super::*;

    fn candidate(zone: &str, verdict: Verdict) -> Candidate {
        let kind = InstanceType {
            name: "t4".into(),
            accelerators: None,
            cpus_milli: 1000,
            memory_mib: 1024,
            disk_gib: 10,
        };
        Candidate {
            offering: OfferingKey {
                provider: "cloud".into(),
                region: "r1".into(),
                zone: zone.into(),
                instance_type: "t4".into(),
                capacity_type: CapacityType::Spot,
            },
            instance_type: kind,
            price: None,
            speed: 1.0,
            expected_hours: 1.0,
            expected_cost: None,
            hold: None,
            verdict,
        }
    }

    #[test]
    fn offerings_without_a_price_are_named_and_only_those() {
        let dearer = candidate("r1a", Verdict::TooSmall { missing: "4 CPUs".to_owned() });
        assert_eq!(without_price(std::slice::from_ref(&dearer)), None);
        let two = [dearer, candidate("r1b", Verdict::UnknownPrice), candidate("r1c", Verdict::UnknownPrice)];
        assert_eq!(
            without_price(&two).unwrap(),
            "no price is known of cloud/r1b/t4/spot, cloud/r1c/t4/spot: such are never chosen"
        );
        let many: Vec<Candidate> =
            (0..7).map(|zone| candidate(&format!("z{zone}"), Verdict::UnknownPrice)).collect();
        assert!(without_price(&many).unwrap().contains("z4/t4/spot and 2 more: "));
    }
}
