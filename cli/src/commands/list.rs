//! Lists: experiments, sweeps, offers, instances.

use bursar_daemon::{
    http::{EndAnswer, EndRequest, OfferView},
    views::{ExperimentView, ListWanted},
};
use bursar_model::Usd;

use super::Context;
use crate::{
    args::{Instances, InstancesCommand, Limit, List, Offers},
    exit::{OK, Outcome},
    output::{json, line, note, table},
    source::{Rows, segment},
};

pub(super) async fn experiments(context: Context, wanted: List) -> Outcome {
    let List { state, project, sweep, user, live, text, limit } = wanted;
    let is_filtered =
        state.is_some() || project.is_some() || sweep.is_some() || user.is_some() || text.is_some() || live;
    let wanted = ListWanted { state, project, sweep, user, text, live, ..ListWanted::default() };
    let Rows { rows, more } = context.source().await?.experiments(wanted, limit.limit.get()).await?;
    if context.json {
        json(&rows)?;
    } else if rows.is_empty() && is_filtered {
        note("no experiment is like that; `bursar ls` shows all");
    } else if rows.is_empty() {
        note("no experiments; queue one with `bursar submit FILE`");
    } else {
        experiment_table(&rows)?;
    }
    tell_of_more(more, &limit);
    Ok(OK)
}

/// Experiments for people.
pub(super) fn experiment_table(rows: &[ExperimentView]) -> Result<(), crate::exit::Failure> {
    let cells = rows
        .iter()
        .map(|row| {
            vec![
                row.id.to_string(),
                row.name.clone(),
                row.project.clone(),
                row.state.clone(),
                row.attempts.to_string(),
                row.cost.rounded(),
                row.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["id", "name", "project", "state", "tries", "cost", "reason"], cells, &[4, 5])
}

pub(super) async fn sweeps(context: Context, limit: Limit) -> Outcome {
    let Rows { rows, more } = context.source().await?.sweeps(limit.limit.get()).await?;
    if context.json {
        json(&rows)?;
    } else if rows.is_empty() {
        note("no sweeps; queue one with `bursar sweep FILE`");
    } else {
        let cells = rows
            .iter()
            .map(|row| {
                vec![
                    row.id.to_string(),
                    row.name.clone(),
                    row.project.clone(),
                    row.state.clone(),
                    format!("{}/{}", row.trials - row.open, row.trials),
                    row.running.to_string(),
                    row.spent.rounded(),
                    row.held.rounded(),
                    amount(row.budget),
                ]
            })
            .collect();
        table(
            &["id", "name", "project", "state", "ended", "running", "spent", "held", "budget"],
            cells,
            &[4, 5, 6, 7, 8],
        )?;
    }
    tell_of_more(more, &limit);
    Ok(OK)
}

pub(super) async fn offers(context: Context, wanted: Offers) -> Outcome {
    let mut rows: Vec<OfferView> = context.client.get("/v1/offers").await?;
    if let Some(name) = &wanted.accelerator {
        let name = name.to_lowercase();
        rows.retain(|row| {
            row.accelerators.as_ref().is_some_and(|have| have.to_lowercase().split(':').next() == Some(&name))
        });
    }
    rows.sort_by_key(|row| (row.price.is_none(), row.price));
    let found = rows.len();
    rows.truncate(wanted.limit.limit.get());
    if found > rows.len() {
        note(&format!("{} more; see them with --limit {found}", found - rows.len()));
    }
    if context.json {
        json(&rows)?;
        return Ok(OK);
    }
    let cells = rows
        .iter()
        .map(|row| {
            vec![
                row.provider.clone(),
                row.zone.clone(),
                row.instance_type.clone(),
                row.capacity_type.clone(),
                row.accelerators.clone().unwrap_or_else(|| "-".to_owned()),
                row.cpus.clone(),
                row.memory_gib.clone(),
                row.price.map_or_else(|| "unknown".to_owned(), |price| price.rounded()),
                row.refused_until.map_or_else(String::new, |until| until.to_string()),
            ]
        })
        .collect();
    table(
        &["provider", "zone", "type", "capacity", "accelerators", "cpus", "gib", "price", "refused until"],
        cells,
        &[5, 6, 7],
    )?;
    Ok(OK)
}

pub(super) async fn instances(context: Context, wanted: Instances) -> Outcome {
    let Instances { command, live, limit } = wanted;
    if let Some(InstancesCommand::End { ids, force }) = command {
        return end_instances(&context, &ids, force).await;
    }
    let Rows { rows, more } = context.source().await?.instances(live, limit.limit.get()).await?;
    if context.json {
        json(&rows)?;
    } else if rows.is_empty() {
        note("no instances");
    } else {
        let cells = rows
            .iter()
            .map(|row| {
                vec![
                    row.id.to_string(),
                    row.offering.clone(),
                    row.state.clone(),
                    row.price.rounded(),
                    row.cost.rounded(),
                    row.held.rounded(),
                    row.lease_until.to_string(),
                    row.reason.clone().unwrap_or_default(),
                ]
            })
            .collect();
        table(
            &["id", "offering", "state", "price", "cost", "held", "lease until", "reason"],
            cells,
            &[3, 4, 5],
        )?;
    }
    tell_of_more(more, &limit);
    Ok(OK)
}

/// All that can be ended are, though one of them cannot.
async fn end_instances(context: &Context, ids: &[String], force: bool) -> Outcome {
    let mut first_refusal = None;
    let mut answers = Vec::new();
    for id in ids {
        let path = format!("/v1/instances/{}/end", segment(id));
        match context.client.post::<EndAnswer>(&path, &EndRequest { force }, None).await {
            Ok(EndAnswer { stopping }) => {
                answers.push(serde_json::json!({ "instance": id, "stopping": stopping }));
                if !context.json {
                    line(&match stopping {
                        0 => format!("{id}: ends"),
                        1 => format!("{id}: ends once what runs there has saved and stopped"),
                        count => format!("{id}: ends once the {count} that run there have saved and stopped"),
                    })?;
                }
            }
            Err(refusal) if first_refusal.is_none() => first_refusal = Some(refusal),
            Err(refusal) => note(&refusal.to_string()),
        }
    }
    if context.json {
        json(&answers)?;
    }
    first_refusal.map_or(Ok(OK), Err)
}

/// Says that a list was cut, in JSON as well: a script that counts rows should not be wrong without a word.
pub(super) fn tell_of_more(more: bool, shown: &Limit) {
    if more {
        note(&format!("there are more than these {0}; see them with --limit N", shown.limit));
    }
}

/// A limit for people.
pub(super) fn amount(limit: Option<Usd>) -> String {
    limit.map_or_else(|| "none".to_owned(), Usd::rounded)
}
