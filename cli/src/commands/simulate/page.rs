//! The page: what policies cost over time, what ran, and who waited.

use bursar_daemon::reports::comparison::{Comparison, Curve, CurveChart, Unit};
use bursar_model::Timestamp;
use bursar_sim::replay::Curves;

use super::{
    fleet::{Compared, Run},
    show::{ROWS, duration},
};

/// As many colours as can be told apart, less the reference.
const POLICIES_MAX: usize = 6;

/// All of it as a page.
pub(super) fn html(compared: &Compared) -> String {
    let runs = &compared.runs;
    let mut charts = vec![cost(runs), queue(runs)];
    charts.extend(runs.iter().take(POLICIES_MAX).enumerate().map(|(number, run)| fleet(number, run)));
    charts.extend(prices(compared));
    let rows = ROWS.iter().map(|(name, of)| (name.trim().to_owned(), runs.iter().map(of).collect()));
    let page = Comparison {
        title: "Policies compared".to_owned(),
        over: format!("{} jobs on {} offerings", compared.jobs, compared.offerings),
        meta: format!(
            "{} – {} · amounts in US dollars (USD) · seed {} · time goes by in steps of {} s",
            day(compared.period.from),
            day(compared.period.to),
            compared.seed,
            compared.pace_s
        ),
        headlines: runs.first().map(headlines).unwrap_or_default(),
        rows: rows.collect(),
        policies: runs.iter().map(|run| run.config.clone()).collect(),
        charts,
        notes: compared.notes.clone(),
    };
    page.html()
}

fn headlines(first: &Run) -> Vec<[String; 3]> {
    let figures = &first.figures;
    let saved = first.saved_percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1}%"));
    vec![
        [
            format!("Cost of {}", first.config),
            figures.cost_usd.rounded(),
            format!(
                "{} spot, {} on-demand",
                figures.cost_spot_usd.rounded(),
                figures.cost_on_demand_usd.rounded()
            ),
        ],
        [
            "Saved against on-demand".to_owned(),
            saved,
            format!("of {} without spot and budgets", first.on_demand_alone.cost_usd.rounded()),
        ],
        [
            "Jobs finished".to_owned(),
            format!("{} of {}", figures.jobs_finished, figures.jobs),
            format!(
                "half wait {} at most, 95% {}",
                duration(figures.wait_median_s),
                duration(figures.wait_p95_s)
            ),
        ],
    ]
}

/// What was spent by when, on the time axis of the run that took longest.
fn cost(runs: &[Run]) -> CurveChart {
    let of = |name: &str, curves: &Curves| Named {
        name: name.to_owned(),
        at: curves.at.clone(),
        values: curves.cost_usd.iter().map(|cost| cost.as_nanos()).collect(),
    };
    let mut named: Vec<Named> =
        runs.iter().take(POLICIES_MAX).map(|run| of(&run.config, &run.curves)).collect();
    named.extend(runs.first().map(|run| of("on-demand alone", &run.reference.curves)));
    let lead = runs.iter().map(|run| format!("{} came to {}", run.config, run.figures.cost_usd.rounded()));
    let lead: Vec<String> = lead.collect();
    chart("cost", "Cost over time", format!("{}.", lead.join(", ")), Unit::Money, named, AfterEnd::Stands)
}

fn queue(runs: &[Run]) -> CurveChart {
    let of = |run: &Run| Named {
        name: run.config.clone(),
        at: run.curves.at.clone(),
        values: run.curves.queue_milli.clone(),
    };
    let lead = "Jobs that waited for a machine, on average between two moments.".to_owned();
    let named = runs.iter().take(POLICIES_MAX).map(of).collect();
    chart("queue", "Jobs that waited", lead, Unit::Count, named, AfterEnd::Nothing)
}

fn fleet(number: usize, run: &Run) -> CurveChart {
    let of = |name: &str, values: &[i64]| Named {
        name: name.to_owned(),
        at: run.curves.at.clone(),
        values: values.to_vec(),
    };
    let named = vec![
        of("spot", &run.curves.spot_instances_milli),
        of("on-demand", &run.curves.on_demand_instances_milli),
    ];
    let figures = &run.figures;
    let lead = format!(
        "{} instances at most, {:.1} on average; the cloud took {} back and refused {} launches.",
        figures.fleet_peak, figures.fleet_mean, figures.interruptions, figures.launches_refused
    );
    let heading = format!("Instances of {}", run.config);
    chart(&format!("fleet{number}"), &heading, lead, Unit::Count, named, AfterEnd::Nothing)
}

fn prices(compared: &Compared) -> Option<CurveChart> {
    let first = compared.runs.first()?;
    let prices = compared.replay.prices(&first.replayed);
    let named: Vec<Named> = prices
        .into_iter()
        .map(|(key, points)| Named {
            name: format!("{} {}", key.zone, key.instance_type),
            at: points.iter().map(|(at, _)| *at).collect(),
            values: points.iter().map(|(_, price)| price.as_nanos()).collect(),
        })
        .collect();
    let lead = format!("US dollars an hour, of what {} spent the most on.", first.config);
    (!named.is_empty())
        .then(|| chart("prices", "Prices that moved", lead, Unit::Money, named, AfterEnd::Stands))
}

struct Named {
    name: String,
    at: Vec<Timestamp>,
    values: Vec<i64>,
}

/// What a curve is after its own end, where another goes on.
#[derive(Clone, Copy, PartialEq)]
enum AfterEnd {
    Stands,
    Nothing,
}

/// Curves with moments of their own on the moments of the longest.
fn chart(
    id: &str,
    heading: &str,
    lead: String,
    unit: Unit,
    named: Vec<Named>,
    after_end: AfterEnd,
) -> CurveChart {
    let longest = named.iter().max_by_key(|curve| curve.at.last().copied());
    let at = longest.map(|curve| curve.at.clone()).unwrap_or_default();
    let on = |curve: Named| {
        let value = |moment: &Timestamp| {
            let next = curve.at.partition_point(|at| at < moment);
            match curve.values.get(next) {
                Some(value) => *value,
                None if after_end == AfterEnd::Nothing => 0,
                None => curve.values.last().copied().unwrap_or_default(),
            }
        };
        Curve { values: at.iter().map(value).collect(), name: curve.name }
    };
    let curves = named.into_iter().map(on).collect();
    CurveChart { id: id.to_owned(), heading: heading.to_owned(), lead, unit, at, curves }
}

fn day(at: Timestamp) -> String {
    at.to_string().get(..10).unwrap_or_default().to_owned()
}
