//! Sentences 12 to 14: what readers add up, held against sums that are made here from the charges alone.

use std::{collections::BTreeMap, ops::ControlFlow};

use bursar_model::{Account, AttemptEnd, Category, ChargeClass, ChargeLine, Costs, Span, Timestamp, Usd};

use super::{begin, save, work};
use crate::{
    ChargeFilter, ChargeRow, Cursor, Dimension, Reader, ReportFilter, ReportQuery, SeriesUnit, Store,
};

/// Sentence 12, for the history that these numbers stand for.
pub async fn reports_equal_a_recount_after_any_commit<S: Store>(open: impl AsyncFn() -> S, steps: &[u64]) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    let reader = store.reader();
    let mut facts = Facts::default();
    let label = || Dimension::Label("team".to_owned());
    let dimensions: Vec<_> = Dimension::PLAIN.into_iter().chain([label()]).collect();
    for (turn, numbers) in steps.chunks(5).enumerate() {
        for number in numbers {
            script.step(*number);
            script.step(number / 20 * 20 + 15);
        }
        save(&mut store, &mut script).await;

        let pick = numbers[0] as usize;
        let first = &dimensions[turn % dimensions.len()];
        let second = &dimensions[pick % dimensions.len()];
        let moment = |hours: u64| {
            script.now + Span::from_hours(hours as i64 % 72) + Span::from_millis(pick as i64 % 7)
        };
        let midnight = Timestamp::from_millis(script.now.as_millis() / 86_400_000 * 86_400_000);
        let times = [
            (None, None),
            (Some(midnight), Some(midnight + Span::from_hours(24))),
            (Some(moment(0)), Some(moment(numbers[0] >> 20))),
            (Some(moment(numbers[0] >> 30)), None),
        ];
        let filters = [
            ReportFilter::default(),
            ReportFilter {
                labels: BTreeMap::from([("team".to_owned(), "2".to_owned())]),
                ..ReportFilter::default()
            },
            ReportFilter {
                experiment: script.fleet.experiments.keys().nth(pick % 3).copied(),
                sweep: script.fleet.sweeps.keys().next().copied(),
                project: Some("vision".into()),
                user: Some("ada".into()),
                provider: Some("aws".into()),
                labels: BTreeMap::new(),
            },
        ];
        facts.read_on(&reader);
        for (since, until) in times {
            for filter in &filters {
                let by = vec![first.clone(), second.clone()];
                let query = ReportQuery { by, since, until, filter: filter.clone() };
                let rows = reader.report(&query).expect("it reads");
                let read: Vec<_> = rows
                    .iter()
                    .map(|row| {
                        let keys = row.keys.iter().map(ToString::to_string).collect::<Vec<_>>();
                        (keys, (row.costs, row.by_category.costs().collect::<BTreeMap<_, _>>()))
                    })
                    .collect();
                assert!(rows.is_sorted_by(|a, b| a.keys < b.keys), "the rows are in the order of their keys");
                let recounted: BTreeMap<_, _> = read.into_iter().collect();
                assert_eq!(recounted, facts.recount(&query), "{query:?} in turn {turn} of {steps:?}");
                assert_eq!(rows.len(), recounted.len());
            }
            for unit in [SeriesUnit::Hour, SeriesUnit::Day] {
                for filter in &filters {
                    let series = reader.spend_series(filter, since, until, unit).expect("it reads");
                    let expected = facts.series(filter, since, until, unit);
                    let read: BTreeMap<_, _> = series.iter().map(|(step, cost)| (step.from, *cost)).collect();
                    assert_eq!((read, series.len()), (expected.clone(), expected.len()), "by {unit:?}");
                    assert!(series.is_sorted_by_key(|(step, _)| step.from));
                }
            }
        }
    }
    let integrity = reader.integrity().expect("it reads");
    assert!(integrity.is_sound(), "{integrity:?} after {steps:?}");
}

/// Sentence 13.
pub async fn a_walk_gives_every_charge_once_with_its_facts<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    work(&mut store, &mut script).await;
    script.correct(3);
    save(&mut store, &mut script).await;
    let corrected_at = script.now;
    // More events than a page has.
    for number in 0..2100 {
        script.queue("filler", number as u8 % 3, None);
    }
    let last = script.queue("last", 2, None);
    let instance = script.instance(&[last]);
    script.charge(instance, Span::from_secs(7), Category::Run);
    save(&mut store, &mut script).await;

    let reader = store.reader();
    let charges = reader.charges(&ChargeFilter::default(), None, 1000).expect("it reads").rows;
    let begins: Vec<_> = charges.iter().map(|row| row.charge.period.from).collect();
    let (second, latest) = (begins[1], *begins.iter().max().expect("there are charges"));
    for (since, until) in [(None, None), (Some(second), Some(latest)), (Some(latest), None)] {
        let mut walked = Vec::new();
        let ended = reader.walk_charges(since, until, |charge| {
            let row = charges.iter().find(|row| row.seq == charge.seq).expect("it is a charge");
            assert_eq!(
                Some(charge.instance),
                reader.instance(row.charge.instance).expect("it reads").as_ref()
            );
            assert_eq!((charge.period, charge.rates), (row.charge.period, row.charge.rates));
            let is_correction = row.charge.class == ChargeClass::Correction;
            assert_eq!(charge.corrected_at, is_correction.then_some(corrected_at));
            let lines = charge.lines.iter().map(|line| ChargeLine {
                payer: line.payer.id,
                account: line.payer.account.clone(),
                category: line.category,
                costs: line.costs,
            });
            assert_eq!(lines.collect::<Vec<_>>(), row.charge.lines);
            let time: i64 = charge.lines.iter().map(|line| line.time.as_millis()).sum();
            assert_eq!(time, if is_correction { 0 } else { row.charge.period.span().as_millis() });
            for line in charge.lines {
                let found = reader.experiment(line.payer.id).expect("it reads").expect("it is there");
                assert_eq!(
                    (&line.payer.name, &*line.payer.labels),
                    (&found.experiment.name, &found.spec.labels)
                );
            }
            walked.push(charge.seq);
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(ended.expect("it reads"), ControlFlow::Continue(()));
        let within = |row: &&ChargeRow| is_within(row.charge.period.from, since, until);
        assert_eq!(walked, charges.iter().filter(within).map(|row| row.seq).collect::<Vec<_>>());
    }
    let first = reader.walk_charges(None, None, |charge| ControlFlow::Break(charge.seq));
    assert_eq!(first.expect("it reads"), ControlFlow::Break(charges[0].seq), "a walk ends where it is told");
}

/// Sentence 14.
pub async fn what_was_paid_for_failed_attempts_is_the_run_of_their_time<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    let (fails, lives) = (script.queue("fails", 1, None), script.queue("lives", 2, None));
    let instance = script.instance(&[fails, lives]);
    let mut paid = Usd::ZERO;
    for end in
        [AttemptEnd::Exited { code: 0 }, AttemptEnd::Killed { signal: 9 }, AttemptEnd::Exited { code: 7 }]
    {
        let hour = Span::from_hours(1);
        script.now = script.fleet.instances[&instance].meter.through;
        let attempt = script.run(fails, instance);
        script.charge(instance, hour, Category::Drain);
        let run = script.charge(instance, hour, Category::Run);
        script.now = script.now + hour + hour;
        if end.is_failure() {
            let of_it = run.lines.iter().filter(|line| line.payer == fails);
            paid += of_it.map(|line| line.costs.effective).sum::<Usd>();
        }
        script.end_attempt(attempt, end);
        // Later, and of no attempt.
        script.charge(instance, hour, Category::Run);
        save(&mut store, &mut script).await;
    }
    let reader = store.reader();
    let costs =
        |filter: ReportFilter, since| reader.failed_run_costs(&filter, since, None).expect("it reads");
    assert!(paid > Usd::ZERO);
    let of_vision = BTreeMap::from([("vision".into(), paid)]);
    assert_eq!(costs(ReportFilter::default(), None), of_vision);
    let team = |value: &str| BTreeMap::from([("team".to_owned(), value.to_owned())]);
    assert_eq!(costs(ReportFilter { labels: team("1"), ..ReportFilter::default() }, None), of_vision);
    assert!(costs(ReportFilter { labels: team("2"), ..ReportFilter::default() }, None).is_empty());
    assert!(costs(ReportFilter { experiment: Some(lives), ..ReportFilter::default() }, None).is_empty());
    assert!(costs(ReportFilter::default(), Some(script.now)).is_empty());
}

fn is_within(at: Timestamp, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until)
}

/// Every charged line with what its keys are made of.
#[derive(Default)]
struct Facts {
    facts: Vec<Fact>,
    after: Option<Cursor>,
}

struct Fact {
    at: Timestamp,
    line: ChargeLine,
    labels: BTreeMap<String, String>,
    place: [String; 4],
}

type Recounted = BTreeMap<Vec<String>, (Costs, BTreeMap<Category, Usd>)>;

impl Facts {
    /// Reads on from where it was.
    fn read_on(&mut self, reader: &Reader) {
        // Ends because every page moves on.
        loop {
            let page = reader.charges(&ChargeFilter::default(), self.after, 1000).expect("it reads");
            for ChargeRow { seq, charge } in page.rows {
                self.after = Some(Cursor(seq as i64));
                let offering =
                    reader.instance(charge.instance).expect("it reads").expect("it is there").offering;
                for line in charge.lines {
                    let experiment = reader.experiment(line.payer).expect("it reads").expect("it is there");
                    let place = [
                        offering.provider.to_string(),
                        offering.region.to_string(),
                        offering.instance_type.name.to_string(),
                        offering.capacity_type.to_string(),
                    ];
                    let labels = experiment.spec.labels.clone();
                    self.facts.push(Fact { at: charge.period.from, line, labels, place });
                }
            }
            if page.next.is_none() {
                return;
            }
        }
    }

    fn recount(&self, query: &ReportQuery) -> Recounted {
        let mut sums = Recounted::new();
        for fact in self.within(&query.filter, query.since, query.until) {
            let keys = query.by.iter().map(|dimension| fact.key(dimension)).collect();
            let (costs, by_category) = sums.entry(keys).or_default();
            *costs += fact.line.costs;
            *by_category.entry(fact.line.category).or_default() += fact.line.costs.effective;
        }
        for (_, by_category) in sums.values_mut() {
            by_category.retain(|_, cost| *cost != Usd::ZERO);
        }
        sums
    }

    fn series(
        &self,
        filter: &ReportFilter,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        unit: SeriesUnit,
    ) -> BTreeMap<Timestamp, Usd> {
        let mut sums = BTreeMap::new();
        for fact in self.within(filter, since, until) {
            let step = unit.span().as_millis();
            let from = Timestamp::from_millis(fact.at.as_millis() / step * step);
            *sums.entry(from).or_default() += fact.line.costs.effective;
        }
        sums
    }

    fn within(
        &self,
        filter: &ReportFilter,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> impl Iterator<Item = &Fact> {
        let ReportFilter { experiment, sweep, project, user, provider, labels } = filter.clone();
        self.facts.iter().filter(move |fact| {
            let Account { project: of_project, user: of_user, sweep: of_sweep } = &*fact.line.account;
            is_within(fact.at, since, until)
                && experiment.is_none_or(|id| id == fact.line.payer)
                && sweep.is_none_or(|id| Some(id) == *of_sweep)
                && project.as_ref().is_none_or(|name| name == of_project)
                && user.as_ref().is_none_or(|name| name == of_user)
                && provider.as_ref().is_none_or(|name| name.as_str() == fact.place[0])
                && labels.iter().all(|(key, value)| fact.labels.get(key) == Some(value))
        })
    }
}

impl Fact {
    fn key(&self, dimension: &Dimension) -> String {
        let ChargeLine { payer, account, category, costs: _ } = &self.line;
        let date = |form| {
            chrono::DateTime::from_timestamp_millis(self.at.as_millis())
                .expect("it is a date")
                .format(form)
                .to_string()
        };
        match dimension {
            Dimension::Experiment => payer.to_string(),
            Dimension::Sweep => account.sweep.map_or_else(String::new, |id| id.to_string()),
            Dimension::Project => account.project.to_string(),
            Dimension::User => account.user.to_string(),
            Dimension::Provider => self.place[0].clone(),
            Dimension::Region => self.place[1].clone(),
            Dimension::InstanceType => self.place[2].clone(),
            Dimension::CapacityType => self.place[3].clone(),
            Dimension::Category => category.to_string(),
            Dimension::Day => date("%Y-%m-%d"),
            Dimension::Week => date("%G-W%V"),
            Dimension::Month => date("%Y-%m"),
            Dimension::Label(key) => self.labels.get(key).cloned().unwrap_or_default(),
        }
    }
}
