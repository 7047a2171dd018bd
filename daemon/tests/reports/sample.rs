//! A made-up November of a laboratory, and a first day on which nothing was spent.

use std::collections::BTreeMap;

use bursar_daemon::{
    reports::{
        Breakdown, BudgetReport, EstimateLine, ProjectSpend, Projection, SpendReport, TimeBin, TopExperiment,
        Totals,
    },
    views::{ReportLine, ReportView},
};
use bursar_model::{Category, ExperimentId, Period, Timestamp, TypedId, Usd, UsdPerHour};

const DAY_MS: i64 = 86_400_000;
const PROJECTS: [(&str, i64); 9] = [
    ("vision-pretrain", 212),
    ("speech", 118),
    ("rl-agents", 74),
    ("ranking", 61),
    ("protein-folding", 40),
    ("distillation", 33),
    ("eval", 14),
    ("onboarding", 6),
    ("scratch", 3),
];

/// 22 days of November, the last not over yet.
pub(crate) fn november() -> SpendReport {
    let period = Period::new(at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"));
    let now = at("2026-11-22T15:42:00Z");
    let timeline = timeline(period.from);
    let mut projects = Vec::new();
    for (name, _) in PROJECTS {
        let spent = timeline.iter().filter_map(|bin| bin.by_project.get(name)).copied().sum();
        projects.push(ProjectSpend { project: name.to_owned(), spent: breakdown(name, spent) });
    }
    projects.sort_by_key(|project| std::cmp::Reverse(project.spent.total()));
    let mut spent = Breakdown::default();
    for project in &projects {
        spent.add(&project.spent);
    }
    let on_demand: Usd = timeline.iter().map(|bin| bin.on_demand).sum();
    let total = spent.total();
    let rows: Vec<ReportLine> = projects.iter().map(line).collect();
    SpendReport {
        title: "Spend in November 2026".to_owned(),
        installation: "Acme Research".to_owned(),
        period,
        generated_at: now,
        totals: Totals { contracted: total, list: part(total, 109), on_demand, spent },
        table: ReportView {
            by: vec!["project".to_owned()],
            total: ReportLine {
                keys: Vec::new(),
                cost: total,
                contracted_cost: Usd::ZERO,
                list_cost: Usd::ZERO,
                on_demand_cost: on_demand,
                by_category: sum_categories(&rows),
                seconds: rows.iter().map(|row| row.seconds).sum(),
                expected_cost: None,
            },
            rows,
            names: BTreeMap::new(),
        },
        budgets: budgets(period, now, &timeline),
        estimates: estimates(),
        top: top(),
        projects,
        timeline,
    }
}

/// The first of November, before anything ran.
pub(crate) fn first_day() -> SpendReport {
    let period = Period::new(at("2026-11-01T00:00:00Z"), at("2026-11-02T00:00:00Z"));
    let nothing = ReportLine {
        keys: Vec::new(),
        cost: Usd::ZERO,
        contracted_cost: Usd::ZERO,
        list_cost: Usd::ZERO,
        on_demand_cost: Usd::ZERO,
        by_category: BTreeMap::new(),
        seconds: 0.0,
        expected_cost: None,
    };
    let bin = TimeBin { label: "2026-11-01".to_owned(), by_project: BTreeMap::new(), on_demand: Usd::ZERO };
    SpendReport {
        title: "Spend on the first day".to_owned(),
        installation: "Acme Research".to_owned(),
        period,
        generated_at: at("2026-11-01T09:00:00Z"),
        totals: Totals { spent: Breakdown::default(), ..Totals::default() },
        timeline: vec![bin],
        table: ReportView {
            by: vec!["project".to_owned()],
            rows: Vec::new(),
            total: nothing,
            names: BTreeMap::new(),
        },
        projects: Vec::new(),
        budgets: vec![BudgetReport {
            name: "installation".to_owned(),
            window: "month".to_owned(),
            period: Period::new(period.from, at("2026-12-01T00:00:00Z")),
            limit: Some(Usd::from_dollars(20_000)),
            spent: Usd::ZERO,
            held: Usd::ZERO,
            thresholds: vec![50, 80, 100],
            series: Vec::new(),
            projection: None,
        }],
        estimates: Vec::new(),
        top: Vec::new(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment is written as in RFC 3339")
}

fn usd(text: &str) -> Usd {
    text.parse().expect("an amount is written in dollars")
}

/// So many percent of an amount.
fn part(amount: Usd, percent: i64) -> Usd {
    Usd::from_nanos(amount.as_nanos() / 100 * percent)
}

/// Weekends are quiet, one project starts late, one has a big week.
fn timeline(from: Timestamp) -> Vec<TimeBin> {
    let mut seed = 20_261_101_i64;
    let mut percent = move || {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        60 + seed / 65_536 % 80
    };
    let mut bins = Vec::new();
    for day in 0..22 {
        let label = Timestamp::from_millis(from.as_millis() + day * DAY_MS).to_string()[..10].to_owned();
        let mut by_project = BTreeMap::new();
        for (name, dollars) in PROJECTS {
            let weekend = if day % 7 == 0 || day % 7 == 6 { 35 } else { 100 };
            let burst = if name == "speech" && (9..13).contains(&day) { 260 } else { 100 };
            let late = if name == "protein-folding" && day < 8 { 0 } else { 100 };
            let today = if day == 21 { 62 } else { 100 };
            let nanos = dollars * 1_000_000 * percent() * weekend * burst / 100 * late / 100 * today / 1000;
            by_project.insert(name.to_owned(), Usd::from_nanos(nanos + nanos.signum() * 137 * day));
        }
        let on_demand = by_project.iter().map(|(name, spent)| part(*spent, on_demand_percent(name))).sum();
        bins.push(TimeBin { label, by_project, on_demand });
    }
    bins
}

/// What the work of a project would have cost on demand, in percent of what it cost.
fn on_demand_percent(name: &str) -> i64 {
    match name {
        "vision-pretrain" => 231,
        "rl-agents" => 142,
        "scratch" => 64,
        _ => 175,
    }
}

fn breakdown(name: &str, spent: Usd) -> Breakdown {
    let (boot, idle, drain, lost, failed) = match name {
        "vision-pretrain" => (2, 1, 1, 4, 3),
        "rl-agents" => (5, 6, 2, 9, 11),
        "scratch" => (11, 32, 4, 0, 20),
        "eval" => (14, 9, 2, 0, 1),
        _ => (3, 2, 1, 2, 4),
    };
    let mut by_category: BTreeMap<Category, Usd> = [
        (Category::Boot, part(spent, boot)),
        (Category::Idle, part(spent, idle)),
        (Category::Drain, part(spent, drain)),
        (Category::Lost, part(spent, lost)),
    ]
    .into();
    let rest = spent - by_category.values().copied().sum();
    by_category.insert(Category::Run, rest);
    Breakdown { by_category, failed_attempts: part(spent, failed) }
}

fn line(project: &ProjectSpend) -> ReportLine {
    let cost = project.spent.total();
    ReportLine {
        keys: vec![project.project.clone()],
        cost,
        contracted_cost: Usd::ZERO,
        list_cost: Usd::ZERO,
        on_demand_cost: part(cost, on_demand_percent(&project.project)),
        by_category: project.spent.by_category.clone(),
        seconds: (cost.as_nanos() / 400_000) as f64,
        expected_cost: None,
    }
}

fn sum_categories(rows: &[ReportLine]) -> BTreeMap<Category, Usd> {
    let mut sums = BTreeMap::new();
    for (category, amount) in rows.iter().flat_map(|row| &row.by_category) {
        *sums.entry(*category).or_default() += *amount;
    }
    sums
}

fn budgets(period: Period, now: Timestamp, timeline: &[TimeBin]) -> Vec<BudgetReport> {
    let series = |of: &dyn Fn(&TimeBin) -> Usd| {
        let mut sum = Usd::ZERO;
        let mut series = Vec::new();
        for (day, bin) in timeline.iter().enumerate() {
            sum += of(bin);
            let end = Timestamp::from_millis(period.from.as_millis() + (day as i64 + 1) * DAY_MS);
            series.push((end.min(now), sum));
        }
        series
    };
    let all = series(&TimeBin::spent);
    let speech = series(&|bin| bin.by_project.get("speech").copied().unwrap_or_default());
    let last = |series: &[(Timestamp, Usd)]| series.last().map_or(Usd::ZERO, |(_, spent)| *spent);
    let (all_spent, speech_spent) = (last(&all), last(&speech));
    vec![
        BudgetReport {
            name: "installation".to_owned(),
            window: "month".to_owned(),
            period,
            limit: Some(Usd::from_dollars(20_000)),
            spent: all_spent,
            held: usd("412.5"),
            thresholds: vec![50, 80, 100],
            series: all,
            projection: Some(Projection {
                rate: UsdPerHour::from_nanos(21_400_000_000),
                expected: all_spent + usd("4250"),
                low: all_spent + usd("3600"),
                high: all_spent + usd("5100"),
                breach_at: None,
            }),
        },
        BudgetReport {
            name: "project speech".to_owned(),
            window: "month".to_owned(),
            period,
            limit: Some(Usd::from_dollars(4_500)),
            spent: speech_spent,
            held: usd("88.2"),
            thresholds: vec![50, 80, 100],
            series: speech,
            projection: Some(Projection {
                rate: UsdPerHour::from_nanos(10_520_000_000),
                expected: speech_spent + usd("2103"),
                low: speech_spent + usd("1690"),
                high: speech_spent + usd("2575"),
                breach_at: Some(at("2026-11-29T14:00:00Z")),
            }),
        },
        BudgetReport {
            name: "user ines".to_owned(),
            window: "total".to_owned(),
            period,
            limit: None,
            spent: usd("1903.441"),
            held: Usd::ZERO,
            thresholds: Vec::new(),
            series: Vec::new(),
            projection: None,
        },
    ]
}

fn estimates() -> Vec<EstimateLine> {
    let line = |name: &str, [expected, low, high, actual]: [&str; 4]| EstimateLine {
        name: name.to_owned(),
        expected: usd(expected),
        low: usd(low),
        high: usd(high),
        actual: usd(actual),
    };
    vec![
        line("vit-l16-imagenet", ["640", "520", "810", "702.18"]),
        line("asr-conformer-sweep", ["1200", "950", "1500", "1411.6"]),
        line("ppo-humanoid", ["85", "60", "120", "201.07"]),
        line("ranker-ablation", ["42", "36", "50", "31.44"]),
        line("tokenizer-eval", ["0.8", "0.5", "1.4", "0.7731"]),
    ]
}

fn top() -> Vec<TopExperiment> {
    let line = |index: u64, name: &str, project: &str, state: &str, cost: &str| TopExperiment {
        id: ExperimentId::from_u64(911_402_558_112_313 + index * 7_919_113),
        name: name.to_owned(),
        project: project.to_owned(),
        state: state.to_owned(),
        cost: usd(cost),
    };
    vec![
        line(1, "vit-l16-imagenet", "vision-pretrain", "succeeded", "702.18"),
        line(2, "asr-conformer-xl", "speech", "running", "611.902"),
        line(3, "mae-huge-800ep", "vision-pretrain", "running", "588.4"),
        line(4, "ppo-humanoid", "rl-agents", "failed", "201.07"),
        line(5, "esm-finetune", "protein-folding", "stopped", "164.33"),
        line(6, "two-tower-v9", "ranking", "succeeded", "120.5"),
        line(7, "student-160m", "distillation", "queued", "18.25"),
    ]
}
