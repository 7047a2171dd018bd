//! What a story shows: what people would be shown by the command line, in columns.

use bursar_daemon::views::{
    AttemptView, ExperimentView, InstanceView, ListWanted, ReportLine, ReportWanted, ViewError,
};
use bursar_model::{Category, ExperimentId, Usd};
use bursar_store::StoreError;

use super::{
    Command, Play, Wrong, events,
    names::{STRAYS, clock, dollars, whole_seconds},
    table::lines,
    words::Words,
};

/// Rows of a list that are shown: a story with more is not one that people read.
const ROWS_MAX: u32 = 1000;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        usage: "status",
        does: "All experiments, with what they wait for or how they ended, and the instances that may exist.",
        run: status,
    },
    Command {
        usage: "attempts NAME",
        does: "Where an experiment ran, for how long, and how each attempt ended.",
        run: attempts,
    },
    Command {
        usage: "instances",
        does: "All instances that there ever were, with what they cost.",
        run: instances,
    },
    Command {
        usage: "report by DIMENSION",
        does: "What was spent by experiment, sweep, project, user, category, zone and so on, in whole nano-dollars.",
        run: report,
    },
    Command {
        usage: "budgets",
        does: "All budgets that have a limit: what is spent, held and left.",
        run: budgets,
    },
    Command {
        usage: "bill",
        does: "What the cloud wants for each instance by its own clock and prices, beside what was charged.",
        run: bill,
    },
    Command {
        usage: "machine NAME|iN|stray|foreign",
        does: "What the cloud says of a machine, whatever the daemon knows.",
        run: machine,
    },
    Command {
        usage: "events [all]",
        does: "What happened since the last `events`; `all` has charges, leases, checkpoints and metrics too.",
        run: happened,
    },
    Command {
        usage: "expect NAME STATE [attempts N]",
        does: "An experiment has to be in this state now, after so many attempts.",
        run: expect,
    },
];

fn status(play: &mut Play, _: &mut Words<'_>) -> Result<(), Wrong> {
    let world = play.world();
    let daemon = if world.is_up() { "up" } else { "down" };
    let (now, views) = (world.now(), world.views());
    play.say(format!("{}, the daemon is {daemon}", clock(now)));
    let wanted = ListWanted { limit: Some(ROWS_MAX), ..ListWanted::default() };
    let mut rows = Vec::new();
    for experiment in views.experiments(&wanted).map_err(told)?.rows.into_iter().rev() {
        let place = match experiment.state.as_str() {
            "running" => attempt_of(play, experiment.id)?,
            _ => experiment.reason.unwrap_or_default(),
        };
        let ExperimentView { name, state, .. } = experiment;
        rows.push(vec![name, state, place]);
    }
    let live = ListWanted { live: true, ..wanted };
    for instance in views.instances(&live).map_err(told)?.rows.into_iter().rev() {
        let InstanceView { id, offering, state, reason, lease_until, .. } = instance;
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        rows.push(vec![id.to_string(), state + &reason, format!("{offering}, lease until {lease_until}")]);
    }
    play.show(&rows)
}

/// Where a running experiment is, and what of it.
fn attempt_of(play: &mut Play, experiment: ExperimentId) -> Result<String, Wrong> {
    let detail = play.world().views().experiment(experiment).map_err(unread)?;
    let newest = detail.and_then(|detail| detail.attempts.into_iter().next_back());
    let attempt = newest.ok_or_else(|| format!("{experiment} runs without an attempt"))?;
    let state = match attempt.reason {
        Some(ref reason) => format!("{}: {reason}", attempt.state),
        None => attempt.state.clone(),
    };
    Ok(format!("on {}, attempt {} {state}", instances_of(&attempt), attempt.number))
}

/// Where it runs, by rank.
fn instances_of(attempt: &AttemptView) -> String {
    attempt.nodes.iter().map(|node| node.instance.to_string()).collect::<Vec<_>>().join(", ")
}

fn attempts(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let experiment = play.names.experiment(&words.next::<String>("an experiment")?)?;
    let detail = play.world().views().experiment(experiment).map_err(unread)?;
    let attempts = detail.map(|detail| detail.attempts).unwrap_or_default();
    let row = |attempt: AttemptView| {
        let ran = attempt.started_at.zip(attempt.ended_at).map(|(from, to)| to.since(from));
        vec![
            attempt.number.to_string(),
            instances_of(&attempt),
            attempt.nodes.into_iter().next().and_then(|node| node.offering).unwrap_or_default(),
            ran.map_or_else(|| "did not end".to_owned(), |ran| format!("ran {}", whole_seconds(ran))),
            attempt.reason.unwrap_or(attempt.state),
        ]
    };
    let rows: Vec<_> = attempts.into_iter().map(row).collect();
    play.show(&rows)
}

fn instances(play: &mut Play, _: &mut Words<'_>) -> Result<(), Wrong> {
    let wanted = ListWanted { limit: Some(ROWS_MAX), ..ListWanted::default() };
    let rows = play.world().views().instances(&wanted).map_err(told)?.rows;
    let row = |instance: InstanceView| {
        let InstanceView { id, offering, state, reason, cost, .. } = instance;
        vec![id.to_string(), offering, state, dollars(cost), reason.unwrap_or_default()]
    };
    let rows: Vec<_> = rows.into_iter().rev().map(row).collect();
    play.show(&rows)
}

fn report(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let by: String = words.needed("by")?;
    let wanted = ReportWanted { by: Some(by.clone()), ..ReportWanted::default() };
    let report = play.world().views().report(&wanted).map_err(told)?;
    // By category the columns would say the same again.
    let categories: &[Category] = if by == "category" { &[] } else { &Category::ALL };
    let mut head = vec![by, "cost".to_owned()];
    head.extend(categories.iter().map(ToString::to_string));
    let row = |name: String, line: &ReportLine| {
        let of = |category| line.by_category.get(category).copied().unwrap_or_default();
        let mut cells = vec![name, dollars(line.cost)];
        cells.extend(categories.iter().map(|category| part(of(category))));
        cells
    };
    let mut rows = vec![head];
    rows.extend(report.rows.iter().map(|line| row(line.keys.join(" "), line)));
    rows.push(row("in all".to_owned(), &report.total));
    play.show(&rows)
}

fn budgets(play: &mut Play, _: &mut Words<'_>) -> Result<(), Wrong> {
    let budgets = play.world().views().budgets().map_err(unread)?;
    let head = ["budget", "limit", "spent", "held", "left"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for budget in budgets {
        let Some(limit) = budget.limit else { continue };
        let per = budget.per.map(|per| format!(" per {per}")).unwrap_or_default();
        rows.push(vec![
            budget.budget,
            format!("{}{per}", dollars(limit)),
            dollars(budget.spent),
            dollars(budget.held),
            dollars(budget.left.unwrap_or_default()),
        ]);
    }
    play.show(&rows)
}

fn bill(play: &mut Play, _: &mut Words<'_>) -> Result<(), Wrong> {
    let reader = play.world().reader();
    let mut rows = vec![["instance", "billed", "charged"].map(str::to_owned).to_vec()];
    let (mut billed_in_all, mut charged_in_all) = (Usd::ZERO, Usd::ZERO);
    for id in play.world().with_cloud(|cloud| cloud.launched()) {
        let (billed, _) = play.world().with_cloud(|cloud| cloud.bill(id));
        let known = reader.instance(id).map_err(unread)?;
        let charged = known.map(|instance| instance.meter.costs.contracted).unwrap_or_default();
        billed_in_all += billed;
        charged_in_all += charged;
        rows.push(vec![id.to_string(), dollars(billed), dollars(charged)]);
    }
    rows.push(vec!["in all".to_owned(), dollars(billed_in_all), dollars(charged_in_all)]);
    play.show(&rows)
}

fn machine(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let instance = play.instance_of(words)?;
    let (launched, ended) = play.world().with_cloud(|cloud| (cloud.launched(), cloud.ended(instance)));
    let is_stray = STRAYS.iter().any(|name| play.names.instance(name) == Some(instance));
    let state = match ended {
        Some(at) => format!("ended at {}", clock(at)),
        None if is_stray || launched.contains(&instance) => "runs".to_owned(),
        None => "was never launched".to_owned(),
    };
    play.say(format!("{instance} {state}"));
    Ok(())
}

fn happened(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let all = words.has("all");
    for (at, event) in play.names.take_news() {
        if all || !events::is_bookkeeping(&event) {
            play.say(format!("{} {}", clock(at), events::line(&event)));
        }
    }
    Ok(())
}

fn expect(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let name: String = words.next("an experiment")?;
    let state: String = words.next("a state")?;
    let attempts: Option<usize> = words.after("attempts")?;
    let found = play.state_of(&name)?;
    if found != state {
        return Err(format!("{name} is {found}"));
    }
    let experiment = play.names.experiment(&name)?;
    let made = play.world().reader().attempts_of(experiment).map_err(unread)?.len();
    match attempts {
        Some(wanted) if wanted != made => Err(format!("{name} had {made} attempts")),
        Some(_) | None => Ok(()),
    }
}

impl Play {
    fn show(&mut self, rows: &[Vec<String>]) -> Result<(), Wrong> {
        // Short names are shorter than ids: columns are aligned by what is shown.
        let told: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| self.names.tell(cell)).collect()).collect();
        lines(&told).into_iter().for_each(|line| self.say(line));
        Ok(())
    }
}

fn part(amount: Usd) -> String {
    if amount == Usd::ZERO { "-".to_owned() } else { dollars(amount) }
}

fn told(error: ViewError) -> Wrong {
    error.to_string()
}

fn unread(error: StoreError) -> Wrong {
    error.to_string()
}
