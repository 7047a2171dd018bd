//! `bursar reconcile`: a cloud's bill against what was charged.
//!
//! The bill is read here and not by the daemon: it may be large, and lies on the machine of whoever fetched it. Without
//! `--apply` nothing changes and the store of a daemon that is down will do.

mod files;
mod show;

use std::collections::{BTreeMap, BTreeSet};

use bursar_daemon::http::{CORRECTIONS_MAX, CorrectAnswer, CorrectRequest, Health, WantedCorrection};
use bursar_ledger::bill::{Basis, OwnCost, OwnMonth, Reconciliation, compare};
use bursar_model::InstanceId;
use serde::Serialize;

use self::files::{NamedFile, read_bill};
use super::Context;
use crate::{
    args::Reconcile,
    client::Client,
    exit::{FAILED, Failure, OK, Outcome, UNREACHABLE},
    output::{json, note},
    source::Source,
};

/// What is shown, to people and programs.
#[derive(Debug, Serialize)]
struct Found<'a> {
    installation: &'a str,
    basis: Basis,
    files: &'a [NamedFile],
    #[serde(flatten)]
    compared: &'a Reconciliation,
    /// How many months of instances differ from a bill that has all of them.
    differing: usize,
    /// How many of these were corrected now.
    corrected: usize,
}

pub(super) async fn run(context: Context, wanted: Reconcile) -> Outcome {
    let Reconcile { files, apply, basis } = wanted;
    let source = context.source().await?;
    let installation = match &source {
        Source::Daemon(client) => client.get::<Health>("/v1/health").await?.installation,
        Source::Store(_) if apply => {
            let message = format!(
                "corrections are entered by the daemon, and none answers at {}",
                context.client.url()
            );
            return Err(Failure::new(UNREACHABLE, message)
                .hint("start it with `bursar serve`, or leave out --apply to see what would change"));
        }
        Source::Store(_) => context.config.installation.clone(),
    };
    let ours = source.own_costs().await?;
    let cloud_ids: BTreeSet<&str> =
        ours.iter().filter_map(|own| Some(own.cloud_id.as_ref()?.as_str())).collect();
    let (bill, files) = read_bill(&files, |name| cloud_ids.contains(name))?;
    let basis = basis.into();
    let compared = compare(&bill, &installation, basis, ours.iter().cloned());

    let corrections = corrections(&compared, &ours);
    let unread: u64 = files.iter().map(|file| file.read.bad_row_count).sum();
    let corrected = if apply { correct(&context.client, &corrections).await? } else { 0 };
    let found = Found {
        installation: &installation,
        basis,
        files: &files,
        compared: &compared,
        differing: corrections.len(),
        corrected,
    };
    if context.json {
        json(&found)?;
    } else {
        show::text(&source, &found, bill.total(), bill.period()).await?;
    }
    if unread > 0 {
        note(&format!(
            "warning: {unread} rows of the bill were not understood: what they cost is missing from it"
        ));
    }
    if compared.leaks.is_empty() {
        return Ok(if unread > 0 { FAILED } else { OK });
    }
    note("warning: the bill has resources with our tag that nobody here knows: look whether they still run");
    Ok(FAILED)
}

/// What the daemon is to change, with what was charged when it was compared.
fn corrections(compared: &Reconciliation, ours: &[OwnCost]) -> Vec<WantedCorrection> {
    let ours: BTreeMap<InstanceId, &OwnCost> = ours.iter().map(|own| (own.instance, own)).collect();
    let mut corrections = Vec::new();
    for (instance, found) in &compared.instances {
        for (month, difference) in found.wanted_corrections() {
            let charged =
                ours.get(instance).and_then(|own| own.months.get(&month)).copied().unwrap_or_default();
            let OwnMonth { metered, corrected } = charged;
            corrections.push(WantedCorrection {
                instance: *instance,
                month,
                charged: metered + corrected,
                difference,
            });
        }
    }
    corrections
}

/// Has it changed, a batch at a time. What was changed before a batch is refused stays: the next run finds the rest.
async fn correct(client: &Client, corrections: &[WantedCorrection]) -> Result<usize, Failure> {
    let mut done = 0;
    for batch in corrections.chunks(CORRECTIONS_MAX) {
        let request = CorrectRequest { corrections: batch.to_vec() };
        match client.post::<CorrectAnswer>("/v1/reconcile", &request, None).await {
            Ok(answer) => done += answer.corrected,
            Err(failure) => {
                let of = corrections.len();
                return Err(failure
                    .hint(format!("{done} of {of} corrections were entered; run it again for the rest")));
            }
        }
    }
    Ok(done)
}
