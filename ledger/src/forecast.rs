//! Where a budget's spending leads if it goes on as it did lately.
//!
//! Nothing is decided by a forecast: caps are kept by holds. It warns people early, so it has to be plain enough to be
//! checked by hand, and to say how sure it is. Like AWS's forecasts of bills, it goes by past spending alone and gives the
//! interval that should hold four times out of five; where it has too few days to go by, it gives none
//! (<https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/ce-forecast.html>).
//!
//! **Rate.** The mean of what was spent in each moment `a` hours ago, weighted by `2^(-a / 24)`, over the last seven days.
//! The mean of the last day alone would jump with every burst of experiments, and the mean of the window would need days
//! to see that a large sweep has begun or ended; here half of it is seen after a day. Times without a row count
//! as times without spending.
//!
//! **Projection.** `spent + rate * hours left`.
//!
//! **Interval.** Taking the totals of days as independent and alike, with standard deviation `s` in the last `n` whole days
//! (UTC), the sum of the next `D` days is off by `t * s * sqrt(D + D^2 / m)` at most, four times out of five: the first
//! term for the days to come, the second for the rate, which knows as much as the plain mean of `m` days. `t` is Student's
//! quantile. Experiments come in runs, so days are not independent, and the true coverage is somewhat lower.

use bursar_model::{Period, Span, Timestamp, Usd, UsdPerHour};

/// How far back spending counts. Older than this it would weigh less than a hundredth.
const LOOK_BACK_DAYS: i64 = 7;
/// The age at which spending has half its weight.
const HALF_LIFE_HOURS: f64 = 24.0;
/// Records shorter than this are taken to be this long: a budget's first minutes say little about its hours.
const RECORD_MIN: Span = Span::from_hours(1);
/// How far a budget without a window is looked ahead.
const LOOK_AHEAD: Span = Span::from_hours(30 * 24);
const DAY: Span = Span::from_hours(24);

/// What is known of a budget's spending.
#[derive(Debug, Clone, Copy)]
pub struct Spending<'a> {
    /// The most that may be spent in the window.
    pub limit: Option<Usd>,
    /// Charged in the window so far.
    pub spent: Usd,
    /// Reserved for leases that run.
    pub held: Usd,
    /// The window; `None` where the limit is for all time.
    pub window: Option<Period>,
    /// What was charged in each hour or day, in any window, oldest first. A row that is not over has what was charged so
    /// far; rows of whole hours or days UTC make the best interval.
    pub recent: &'a [(Period, Usd)],
    /// The moment from which on `recent` is complete: when the budget or the installation began.
    pub since: Timestamp,
    /// The time now.
    pub now: Timestamp,
}

/// Where spending leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BurnDown {
    /// How fast money is spent.
    pub rate: UsdPerHour,
    /// How far this looks: to the window's end, or 30 days where there is none.
    pub until: Timestamp,
    /// What will have been spent by then if no limit stops it.
    pub projected: Usd,
    /// Between what the projection should be, four times out of five. `None` with fewer than three whole days to go by.
    pub interval: Option<Interval>,
    /// When spending and holds fill the limit, so that nothing more is launched. `None` where that is not before `until`.
    pub full_at: Option<Timestamp>,
    /// When spending reaches the limit. `None` where that is not before `until`.
    pub breach_at: Option<Timestamp>,
}

/// Amounts between which another should lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Not less than this.
    pub low: Usd,
    /// Not more than this.
    pub high: Usd,
}

impl BurnDown {
    /// Of this spending.
    #[must_use]
    pub fn of(spending: &Spending<'_>) -> Self {
        let Spending { limit, spent, held, window, recent: _, since: _, now } = *spending;
        let rate = rate(spending);
        let until = window.map_or(now + LOOK_AHEAD, |window| window.to.max(now));
        let left = until.since(now);
        let projected = spent.saturating_add(rate.cost_rounded_up(left));
        let interval = margin(&daily_totals(spending), left).map(|margin| Interval {
            low: projected.saturating_sub(margin).max(spent),
            high: projected.saturating_add(margin),
        });
        let reached = |room: Usd| time_to_spend(room, rate).map(|time| now + time).filter(|at| *at < until);
        let unspent = limit.map(|limit| limit.saturating_sub(spent));
        Self {
            rate,
            until,
            projected,
            interval,
            full_at: unspent.and_then(|unspent| reached(unspent.saturating_sub(held))),
            breach_at: unspent.and_then(reached),
        }
    }
}

/// How long an amount lasts at a rate, rounded up; for ever at no rate.
fn time_to_spend(room: Usd, rate: UsdPerHour) -> Option<Span> {
    const HOUR_MS: i128 = 3_600_000;
    if room <= Usd::ZERO {
        return Some(Span::ZERO);
    }
    if rate <= UsdPerHour::ZERO {
        return None;
    }
    let product = i128::from(room.as_nanos()) * HOUR_MS;
    let millis = -(-product).div_euclid(i128::from(rate.as_nanos()));
    i64::try_from(millis).ok().map(Span::from_millis)
}

/// The weighted mean of recent spending, never negative: corrections may take back more than was charged.
#[expect(clippy::float_arithmetic, reason = "a forecast for people; no charge or hold is made of it")]
fn rate(spending: &Spending<'_>) -> UsdPerHour {
    let Spending { recent, since, now, .. } = *spending;
    let begin = since.max(now - DAY.times(LOOK_BACK_DAYS)).min(now - RECORD_MIN);
    let weighted: f64 = rows_until(recent, now)
        .filter(|(period, _)| period.to > begin)
        .map(|(period, amount)| {
            amount.as_nanos() as f64 / hours(period.span()) * weight(period.from.max(begin), period.to, now)
        })
        .sum();
    UsdPerHour::from_nanos((weighted / weight(begin, now, now)).max(0.0).round() as i64)
}

/// The integral of `2^(-age / half-life)` over a period, in hours.
#[expect(clippy::float_arithmetic, reason = "a forecast for people; no charge or hold is made of it")]
fn weight(from: Timestamp, to: Timestamp, now: Timestamp) -> f64 {
    let decayed = |t: Timestamp| (-hours(now.since(t)) / HALF_LIFE_HOURS).exp2();
    (decayed(to) - decayed(from)) * HALF_LIFE_HOURS / std::f64::consts::LN_2
}

/// The rows with a past, each as far as it is past.
fn rows_until(recent: &[(Period, Usd)], now: Timestamp) -> impl Iterator<Item = (Period, Usd)> {
    recent
        .iter()
        .map(move |(period, amount)| (Period::new(period.from, period.to.min(now)), *amount))
        .filter(|(period, _)| period.span() > Span::ZERO)
}

/// What was spent on each of the last whole days (UTC) of which there are records, in nano-dollars. A row that reaches
/// over midnight is split by time.
#[expect(clippy::float_arithmetic, reason = "a forecast for people; no charge or hold is made of it")]
fn daily_totals(spending: &Spending<'_>) -> Vec<f64> {
    let Spending { recent, since, now, .. } = *spending;
    let today = Timestamp::from_millis(now.as_millis().div_euclid(DAY.as_millis()) * DAY.as_millis());
    (1..=LOOK_BACK_DAYS)
        .map(|ago| today - DAY.times(ago))
        .filter(|day| *day >= since)
        .map(|day| {
            rows_until(recent, now)
                .map(|(period, amount)| {
                    let within = period.to.min(day + DAY).since(period.from.max(day));
                    amount.as_nanos() as f64 * (hours(within) / hours(period.span()))
                })
                .sum()
        })
        .collect()
}

/// By how much spending in the time left may differ from the projection, four times out of five.
#[expect(clippy::float_arithmetic, reason = "a forecast for people; no charge or hold is made of it")]
fn margin(daily_totals: &[f64], left: Span) -> Option<Usd> {
    // Student's t for a two-sided interval of 80 % with n - 1 degrees of freedom, from n = 3
    // (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2). Two days would need 3.078: wider than any use.
    const T_FROM_3_DAYS: [f64; 5] = [1.886, 1.638, 1.533, 1.476, 1.440];
    let t = T_FROM_3_DAYS.get(daily_totals.len().checked_sub(3)?)?;
    let n = daily_totals.len() as f64;

    let mean = daily_totals.iter().sum::<f64>() / n;
    let squares: f64 = daily_totals.iter().map(|total| (total - mean) * (total - mean)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    // (sum of weights)^2 / sum of (weights^2), where each day weighs half as much as the one after it.
    let oldest = (-n).exp2();
    let mean_of_days = 3.0 * (1.0 - oldest) / (1.0 + oldest);
    let days_left = hours(left) / hours(DAY);
    let off = t * deviation * (days_left + days_left * days_left / mean_of_days).sqrt();
    Some(Usd::from_nanos(off.round() as i64))
}

#[expect(clippy::float_arithmetic, reason = "a forecast for people; no charge or hold is made of it")]
fn hours(span: Span) -> f64 {
    span.as_millis() as f64 / 3_600_000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    /// 2026-11-22T12:00:00Z.
    const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000);
    const HOUR: Span = Span::from_hours(1);

    fn november() -> Option<Period> {
        Some(Period::new(at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z")))
    }

    /// One row an hour, the last of them just over.
    fn hourly(amounts: impl DoubleEndedIterator<Item = Usd>) -> Vec<(Period, Usd)> {
        let mut rows: Vec<_> = (0_i64..)
            .zip(amounts.rev())
            .map(|(ago, amount)| (Period::new(NOW - HOUR.times(ago + 1), NOW - HOUR.times(ago)), amount))
            .collect();
        rows.reverse();
        rows
    }

    fn spending<'a>(limit: &str, spent: &str, recent: &'a [(Period, Usd)]) -> Spending<'a> {
        Spending {
            limit: Some(usd(limit)),
            spent: usd(spent),
            held: Usd::ZERO,
            window: november(),
            recent,
            since: at("2026-01-01T00:00:00Z"),
            now: NOW,
        }
    }

    #[test]
    fn what_was_spent_evenly_goes_on_evenly() {
        let recent = hourly((0..200).map(|_| usd("2")));
        let forecast = BurnDown::of(&Spending { held: usd("60"), ..spending("1000", "800", &recent) });
        // 204 hours are left of November, and $200, or $140 without what is held.
        assert_eq!(
            forecast,
            BurnDown {
                rate: UsdPerHour::from_nanos(2_000_000_000),
                until: at("2026-12-01T00:00:00Z"),
                projected: usd("1208"),
                interval: Some(Interval { low: usd("1208"), high: usd("1208") }),
                full_at: Some(NOW + HOUR.times(70)),
                breach_at: Some(NOW + HOUR.times(100)),
            }
        );
    }

    #[test]
    fn what_is_a_day_old_has_half_the_weight() {
        let day = |amount: &str| std::iter::repeat_n(usd(amount), 24);
        let rate = |recent: &[(Period, Usd)]| BurnDown::of(&spending("1", "0", recent)).rate.as_nanos();
        let all = rate(&hourly((0..7 * 24).map(|_| usd("1"))));
        let last = rate(&hourly(day("1")));
        let before = rate(&hourly(day("1").chain(day("0"))));
        assert_eq!(all, 1_000_000_000);
        assert!((last - 2 * before).abs() <= 2, "{last} {before}");
        // Half of it all, but for the weight of what lies more than seven days back.
        assert!((503_900_000..504_000_000).contains(&last), "{last}");
    }

    #[test]
    fn days_and_hours_give_the_same_rate() {
        let hours = hourly((0..48).map(|hour| if hour < 24 { usd("1") } else { usd("3") }));
        let days = [
            (Period::new(NOW - DAY.times(2), NOW - DAY), usd("24")),
            (Period::new(NOW - DAY, NOW), usd("72")),
        ];
        let rate = |recent| BurnDown::of(&spending("1", "0", recent)).rate.as_nanos();
        assert!((rate(&hours) - rate(&days)).abs() <= 1);
    }

    #[test]
    fn a_row_that_is_not_over_counts_for_the_time_that_is() {
        let half = [(Period::new(NOW - HOUR.divided_by(2), NOW + HOUR.divided_by(2)), usd("1"))];
        let over = [(Period::new(NOW - HOUR.divided_by(2), NOW), usd("1"))];
        assert_eq!(BurnDown::of(&spending("9", "1", &half)), BurnDown::of(&spending("9", "1", &over)));
    }

    #[test]
    fn a_row_that_reaches_further_back_counts_for_the_part_that_is_looked_at() {
        let fortnight = [(Period::new(NOW - DAY.times(14), NOW), usd("336"))];
        assert_eq!(BurnDown::of(&spending("9", "1", &fortnight)).rate.as_nanos(), 1_000_000_000);
    }

    #[test]
    fn a_young_budget_is_judged_by_its_own_time_but_not_by_its_first_minutes() {
        let minutes = Span::from_secs(360);
        let recent = [(Period::new(NOW - minutes, NOW), usd("1"))];
        let young = Spending { since: NOW - minutes, ..spending("100", "1", &recent) };
        let forecast = BurnDown::of(&young);
        assert!((1_000_000_000..1_020_000_000).contains(&forecast.rate.as_nanos()), "{forecast:?}");
        assert_eq!(forecast.interval, None);
    }

    #[test]
    fn days_that_differ_widen_the_interval() {
        // Sunday noon: the last three whole days had $10, $20 and $30, so s = $10, and the rate knows as much as 7/3 days.
        let midnight = at("2026-11-22T00:00:00Z");
        let day = |ago, amount| {
            (Period::new(midnight - DAY.times(ago), midnight - DAY.times(ago - 1)), usd(amount))
        };
        let recent = [day(3, "10"), day(2, "20"), day(1, "30")];
        let since = midnight - DAY.times(3);
        let window = Some(Period::new(since, NOW + DAY.times(2)));
        let forecast = BurnDown::of(&Spending { since, window, ..spending("1000", "60", &recent) });
        let Interval { low, high } = forecast.interval.unwrap();
        // 1.886 * $10 * sqrt(2 + 4 / (7/3)) = $36.3479
        let margin = high - forecast.projected;
        assert!((usd("36.3479")..usd("36.348")).contains(&margin), "{margin}");
        assert_eq!(low, (forecast.projected - margin).max(usd("60")));

        let two_days =
            Spending { since: since + Span::from_millis(1), window, ..spending("1000", "60", &recent) };
        assert_eq!(BurnDown::of(&two_days).interval, None);
    }

    #[test]
    fn a_budget_without_a_window_is_looked_ahead_thirty_days() {
        let recent = hourly((0..200).map(|_| usd("1")));
        let endless = |limit| BurnDown::of(&Spending { window: None, ..spending(limit, "0", &recent) });
        assert_eq!(endless("719").breach_at, Some(NOW + HOUR.times(719)));
        assert_eq!(endless("720").breach_at, None);
        assert_eq!(endless("720").projected, usd("720"));
    }

    #[test]
    fn a_limit_that_is_reached_is_breached_now_and_an_idle_budget_never() {
        assert_eq!(BurnDown::of(&spending("5", "5", &[])).breach_at, Some(NOW));
        let idle = BurnDown::of(&Spending { held: usd("1"), ..spending("5", "4", &[]) });
        assert_eq!((idle.rate, idle.projected), (UsdPerHour::ZERO, usd("4")));
        assert_eq!((idle.full_at, idle.breach_at), (Some(NOW), None));
        let over = Spending { window: Some(Period::new(NOW - DAY, NOW)), ..spending("5", "5", &[]) };
        assert_eq!(BurnDown::of(&over).breach_at, None);
    }

    #[test]
    fn corrections_do_not_make_a_negative_rate() {
        let recent = hourly([usd("1"), usd("-5")].into_iter());
        assert_eq!(BurnDown::of(&spending("5", "0", &recent)).rate, UsdPerHour::ZERO);
    }

    #[test]
    fn about_four_of_five_months_end_within_the_interval() {
        // A linear congruential generator (Knuth's MMIX); twelve of its numbers sum to a nearly normal one.
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut day = || {
            let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            Usd::from_nanos(((100.0 + 15.0 * normal) * 1e9) as i64)
        };
        let midnight = at("2026-11-22T00:00:00Z");
        let mut within = 0;
        for _ in 0..2000 {
            let recent: Vec<_> = (1..=7)
                .rev()
                .map(|ago| (Period::new(midnight - DAY.times(ago), midnight - DAY.times(ago - 1)), day()))
                .collect();
            let forecast = BurnDown::of(&Spending {
                limit: None,
                spent: Usd::ZERO,
                held: Usd::ZERO,
                window: november(),
                recent: &recent,
                since: midnight - DAY.times(7),
                now: midnight,
            });
            let actual: Usd = (0..9).map(|_| day()).sum();
            let Interval { low, high } = forecast.interval.unwrap();
            within += i32::from((low..=high).contains(&actual));
        }
        assert!((1550..=1650).contains(&within), "{within} of 2000");
    }

    // The rows stand apart, since the spending borrows them.
    prop_compose! {
        fn histories()(
            amounts in prop::collection::vec(0_i64..50_000_000_000, 1..200),
            limit in prop::option::of(0_i64..10_000_000_000_000),
            spent in 0_i64..5_000_000_000_000,
            held in 0_i64..500_000_000_000,
            window_hours in prop::option::of(0_i64..2000),
            known_hours in 0_i64..300,
        ) -> (Spending<'static>, Vec<(Period, Usd)>) {
            let spending = Spending {
                limit: limit.map(Usd::from_nanos),
                spent: Usd::from_nanos(spent),
                held: Usd::from_nanos(held),
                window: window_hours.map(|hours| Period::new(NOW - DAY, NOW + HOUR.times(hours))),
                recent: &[],
                since: NOW - HOUR.times(known_hours),
                now: NOW,
            };
            (spending, hourly(amounts.into_iter().map(Usd::from_nanos)))
        }
    }

    /// `None` is never.
    fn moment(at: Option<Timestamp>) -> Timestamp {
        at.unwrap_or(Timestamp::from_millis(i64::MAX))
    }

    proptest! {
        #[test]
        fn more_spending_never_moves_the_breach_later(
            (less, rows) in histories(), row in any::<prop::sample::Index>(), extra in 0_i64..100_000_000_000,
        ) {
            let less = Spending { recent: &rows, ..less };
            let mut recent = rows.clone();
            recent[row.index(rows.len())].1 += Usd::from_nanos(extra);
            let more = Spending { spent: less.spent + Usd::from_nanos(extra), recent: &recent, ..less };
            let (less, more) = (BurnDown::of(&less), BurnDown::of(&more));
            prop_assert!(more.rate >= less.rate);
            prop_assert!(more.projected >= less.projected);
            prop_assert!(moment(more.breach_at) <= moment(less.breach_at));
            prop_assert!(moment(more.full_at) <= moment(less.full_at));
        }

        #[test]
        fn a_breach_lies_ahead_within_sight_and_only_where_there_is_a_limit((spending, recent) in histories()) {
            let spending = Spending { recent: &recent, ..spending };
            let forecast = BurnDown::of(&spending);
            prop_assert!(spending.limit.is_some() || forecast.breach_at.is_none() && forecast.full_at.is_none());
            prop_assert!(moment(forecast.full_at) <= moment(forecast.breach_at));
            for at in [forecast.full_at, forecast.breach_at].into_iter().flatten() {
                prop_assert!(spending.now <= at && at < forecast.until);
            }
            // A breach before the end and a projection above the limit are the same claim, but for rounding.
            if let Some(limit) = spending.limit.filter(|_| forecast.until > spending.now) {
                let rounding = forecast.rate.cost_rounded_up(Span::from_millis(2)) + Usd::from_nanos(2);
                match forecast.breach_at {
                    Some(_) => prop_assert!(forecast.projected + rounding >= limit),
                    None => prop_assert!(forecast.projected <= limit + rounding),
                }
            }
        }

        #[test]
        fn the_projection_lies_within_its_interval((spending, recent) in histories()) {
            let forecast = BurnDown::of(&Spending { recent: &recent, ..spending });
            prop_assert!(spending.spent <= forecast.projected);
            if let Some(Interval { low, high }) = forecast.interval {
                prop_assert!(spending.spent <= low && low <= forecast.projected && forecast.projected <= high);
            }
        }
    }
}
