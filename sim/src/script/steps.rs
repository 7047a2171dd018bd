//! What happens in a story: work comes in, time goes by, and the bill comes.

use std::sync::Arc;

use bursar_ledger::bill::{Month, correction};
use bursar_model::{
    AshaMode, AshaRules, BudgetTerms, Deadline, Estimate, ExperimentSpec, ProjectName, Retry, Span,
    SpotPolicy, Usd,
};
use bursar_store::ChargeFilter;

use super::{
    Command, Play, SETTLES_WITHIN, Wrong,
    names::{clock, is_instance_name},
    setup::on_exhausted,
    words::Words,
};
use crate::job::Job;

/// How often a state that is waited for is looked for.
const LOOK_EVERY: Span = Span::from_secs(5);

/// A state is waited for no longer, where nobody says how long.
const WAITS_FOR: Span = Span::from_hours(24);

/// Charges of one instance that are read: a story has a few hundred.
const CHARGES_MAX: u32 = 1000;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        usage: "submit NAME duration SPAN [spot|on-demand] [gpus N] [nodes N] [project NAME] [save-every SPAN] [exit CODE] \
                [retry N] [priority N] [budget $LIMIT [on-exhausted WORD]] [max-price $PRICE] [max-duration SPAN] \
                [deadline SPAN] [estimate SPAN]",
        does: "Somebody submits an experiment that works for so long and saves every five minutes. The name is the \
               key as well: submitted again it is the same.",
        run: submit,
    },
    Command {
        usage: "sweep NAME trials N duration SPAN [max-parallel N] [losses N,N,… [asha eta N min N max N]] [budget $LIMIT] …",
        does: "Somebody submits a sweep; its trials are called NAME-1, NAME-2 and so on. A trial with a loss reports \
               it, with the minutes that it has worked as `step`. The rest is as for `submit`.",
        run: sweep,
    },
    Command { usage: "cancel NAME", does: "Somebody cancels an experiment or a sweep.", run: cancel },
    Command { usage: "advance SPAN", does: "Time goes by.", run: advance },
    Command {
        usage: "until NAME STATE [within SPAN]",
        does: "Time goes by until an experiment is in this state, a day at most.",
        run: until,
    },
    Command {
        usage: "correct iN $DIFFERENCE",
        does: "The bill of an instance that is gone came and asks for so much more, or less; it is corrected.",
        run: correct,
    },
    Command {
        usage: "settle [within SPAN]",
        does: "Time goes by until all work is over and nothing runs, and an hour more in which nothing may happen.",
        run: settle,
    },
    Command {
        usage: "no-settle",
        does: "The story ends with its last line. Otherwise it settles at its end, within two days.",
        run: no_settle,
    },
];

fn submit(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let name = new_name(words)?;
    let (_, spec) = job(words)?;
    // Nothing is submitted by a line that is not understood.
    words.end()?;
    let stored = play.world().submit(&name, spec).is_some();
    play.tell_unless(stored, "nothing is stored");
    Ok(())
}

fn sweep(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let name = new_name(words)?;
    let budget: Option<Usd> = words.after("budget")?;
    let max_parallel = words.after("max-parallel")?;
    let losses = words.after::<String>("losses")?.map(|list| losses(&list)).transpose()?;
    let asha = if words.has("asha") { Some(asha(words)?) } else { None };
    let trials: usize = match &losses {
        Some(losses) => losses.len(),
        None => words.needed("trials")?,
    };
    let (job, spec) = job(words)?;
    words.end()?;
    let jobs: Vec<Job> = match losses {
        Some(losses) => losses.into_iter().map(|loss| Job { loss: Some(loss), ..job }).collect(),
        None => vec![job; trials],
    };
    let stored = play.world().submit_sweep(&name, spec, &jobs, budget, max_parallel, asha).is_some();
    play.tell_unless(stored, "nothing is stored");
    Ok(())
}

fn losses(list: &str) -> Result<Vec<i32>, Wrong> {
    list.split(',')
        .map(|loss| loss.parse().map_err(|_| format!("losses: `{loss}` is no whole number")))
        .collect()
}

fn asha(words: &mut Words<'_>) -> Result<AshaRules, Wrong> {
    Ok(AshaRules {
        metric: "loss".to_owned(),
        mode: AshaMode::Min,
        resource: "step".to_owned(),
        eta: words.needed("eta")?,
        min: words.needed("min")?,
        max: words.needed("max")?,
    })
}

fn new_name(words: &mut Words<'_>) -> Result<String, Wrong> {
    let name: String = words.next("a name")?;
    if is_instance_name(&name) {
        return Err(format!("`{name}` is what an instance is called"));
    }
    Ok(name)
}

/// What experiments and trials have in common.
fn job(words: &mut Words<'_>) -> Result<(Job, ExperimentSpec), Wrong> {
    let mut job = Job::lasting(words.needed("duration")?);
    job.save_every = words.after("save-every")?.unwrap_or(job.save_every);
    job.exit_code = words.after("exit")?.unwrap_or(job.exit_code);
    let mut spec = job.spec();
    let policies = [("spot", SpotPolicy::Spot), ("on-demand", SpotPolicy::OnDemand)];
    spec.spot_policy = words.one_of(&policies).unwrap_or_default();
    if let Some(count) = words.after("gpus")? {
        spec.resources.accelerators.iter_mut().for_each(|accelerators| accelerators.count = count);
    }
    spec.num_nodes = words.after("nodes")?.unwrap_or(spec.num_nodes);
    if let Some(project) = words.after::<String>("project")? {
        spec.project = ProjectName::new(&project);
    }
    if let Some(limit) = words.after::<Usd>("budget")? {
        let on_exhausted = on_exhausted(words)?;
        spec.budget = Some(Arc::new(BudgetTerms { on_exhausted, ..BudgetTerms::of(limit) }));
    }
    spec.retry = Retry { limit: words.after("retry")?.unwrap_or(spec.retry.limit) };
    spec.priority = words.after("priority")?.unwrap_or(spec.priority);
    spec.max_price = words.after("max-price")?;
    spec.max_duration = words.after("max-duration")?;
    spec.deadline = words.after("deadline")?.map(Deadline::After);
    let estimate = |duration| Estimate { duration, on: None, speeds: Default::default() };
    spec.estimate = words.after("estimate")?.map(estimate);
    Ok((job, spec))
}

fn cancel(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let name: String = words.next("a name")?;
    let cancelled = match play.names.sweep(&name) {
        Some(sweep) => play.world().cancel_sweep(sweep),
        None => {
            let experiment = play.names.experiment(&name)?;
            play.world().cancel(experiment)
        }
    };
    play.tell_unless(cancelled, "nothing is cancelled");
    Ok(())
}

fn advance(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let span = words.next("how long")?;
    words.end()?;
    play.pass(span);
    Ok(())
}

fn until(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let name: String = words.next("a name")?;
    let state: String = words.next("a state")?;
    let within = words.after("within")?.unwrap_or(WAITS_FOR);
    words.end()?;
    let until = play.world().now() + within;
    loop {
        let found = play.state_of(&name)?;
        if found == state {
            return Ok(());
        }
        // A state changes with a commit, and most looks find none.
        let commits = play.world().commits();
        while play.world().commits() == commits {
            if play.world().now() >= until {
                return Err(format!("{name} is {found} after {within}"));
            }
            play.pass(LOOK_EVERY);
        }
    }
}

fn correct(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let difference: Usd = words.amount()?;
    let instance = play.instance_of(words)?;
    let filter = ChargeFilter { instance: Some(instance), ..ChargeFilter::default() };
    let page = play.world().reader().charges(&filter, None, CHARGES_MAX);
    let charges: Vec<_> =
        page.map_err(|error| error.to_string())?.rows.into_iter().map(|row| row.charge).collect();
    let began = charges.first().map(|charge| charge.period.from);
    let month = Month::of(began.ok_or("nothing was charged for it")?);
    let mended = correction(instance, month, difference, &charges).ok_or("nobody is there to pay")?;
    match play.world().correct(vec![mended]) {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            let error = error.to_string();
            play.say(error);
        }
        None => play.tell_unless(false, "nothing is corrected"),
    }
    Ok(())
}

fn settle(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let within = words.after("within")?.unwrap_or(SETTLES_WITHIN);
    play.world().settle(within);
    match play.world().findings().first() {
        Some(finding) => Err(finding.to_string()),
        None => Ok(()),
    }
}

fn no_settle(play: &mut Play, _: &mut Words<'_>) -> Result<(), Wrong> {
    play.leaves_open = true;
    Ok(())
}

impl Play {
    /// Lets time go by. Where the daemon dies at a commit the rest of it goes by without one.
    pub(super) fn pass(&mut self, span: Span) {
        let until = self.world().now() + span;
        // It dies once at most: nothing starts it again here.
        while self.world().now() < until {
            let left = until.since(self.world().now());
            if !self.world().run_for(left) {
                let at = clock(self.world().now());
                self.say(format!("the daemon is dead at {at}"));
            }
        }
    }

    /// Says what did not come about, where it did not.
    pub(super) fn tell_unless(&mut self, done: bool, otherwise: &str) {
        if !done {
            let why = if self.world().is_up() { "" } else { ": the daemon is down" };
            self.say(format!("{otherwise}{why}"));
        }
    }

    /// `queued`, `running`, or how an experiment ended.
    pub(super) fn state_of(&mut self, name: &str) -> Result<String, Wrong> {
        let experiment = self.names.experiment(name)?;
        let row = self.world().reader().experiment(experiment).map_err(|error| error.to_string())?;
        let row = row.ok_or_else(|| format!("the store has lost {name}"))?;
        Ok(row.experiment.state_name().to_owned())
    }
}
