//! The charges that make what was charged for an instance equal to what was billed for it.
//!
//! One correction mends one instance in one calendar month, the unit that clouds invoice. Where in that month the
//! difference arose nobody can say from the sums, so all of it is put on the last UTC day that was charged there: one
//! day of the reports changes and not all, and a month that is over in a budget with windows stays over. What the bill
//! has in a month without any charge (a disk that was billed on after midnight) is put on the day of that month which
//! is nearest to the instance's life.

use std::{collections::BTreeMap, sync::Arc};

use bursar_model::{
    Account, Category, Charge, ChargeClass, ChargeLine, Costs, ExperimentId, InstanceId, Period, Rates, Span,
    Timestamp, Usd,
};

use super::Month;
use crate::allocate;

/// A day, by which charges are cut.
const DAY: Span = Span::from_hours(24);

/// Splits the difference between what was billed and what was charged for an instance among the lines of its charges,
/// in proportion to what each was charged; in equal parts where nothing was charged. A line that gave money back (work
/// that became `lost`, under its own key) takes no part.
///
/// The lines sum to the difference exactly, and each is less than one nano-dollar from its exact share.
///
/// # Panics
/// When nothing was ever charged to anybody: money needs a payer.
#[must_use]
pub fn correction_lines<Key: Clone>(difference: Usd, charged: &[(Key, Usd)]) -> Vec<(Key, Usd)> {
    let mut weights: Vec<i64> = charged.iter().map(|(_, amount)| amount.as_nanos().max(0)).collect();
    if weights.iter().all(|weight| *weight == 0) {
        weights.fill(1);
    }
    let parts = allocate(difference, &weights);
    charged.iter().zip(parts).map(|((key, _), part)| (key.clone(), part)).collect()
}

/// What was charged for an instance in each month, as a bill would say it: contracted, corrections included.
#[must_use]
pub fn charged_by_month(charges: &[Charge]) -> BTreeMap<Month, Usd> {
    let mut months: BTreeMap<Month, Usd> = BTreeMap::new();
    for charge in charges {
        *months.entry(Month::of(charge.period.from)).or_default() += charge.costs().contracted;
    }
    months
}

/// The charge that adds a difference to what was charged for an instance in a month. It is paid by those who paid in
/// that month, or by all who ever paid where nobody did; it changes what things cost us and what the cloud asks for,
/// and leaves the prices of the list alone. None where nothing was ever charged to anybody.
///
/// `charges` are all charges of the instance so far.
#[must_use]
pub fn correction(instance: InstanceId, month: Month, difference: Usd, charges: &[Charge]) -> Option<Charge> {
    type Payer = (ExperimentId, Category);
    let charged = |only_then: bool| {
        let mut charged: BTreeMap<Payer, (Arc<Account>, Usd)> = BTreeMap::new();
        let then = charges.iter().filter(|charge| !only_then || Month::of(charge.period.from) == month);
        for line in then.flat_map(|charge| &charge.lines) {
            let entry = charged.entry((line.payer, line.category));
            entry.or_insert_with(|| (line.account.clone(), Usd::ZERO)).1 += line.costs.contracted;
        }
        charged
    };
    let payers = Some(charged(true)).filter(|then| !then.is_empty()).unwrap_or_else(|| charged(false));
    if payers.is_empty() {
        return None;
    }
    let weighed: Vec<_> =
        payers.into_iter().map(|(payer, (account, paid))| ((payer, account), paid)).collect();
    let lines = correction_lines(difference, &weighed).into_iter();
    let lines = lines.filter(|(_, part)| *part != Usd::ZERO).map(|(((payer, category), account), part)| {
        let costs = Costs { effective: part, contracted: part, ..Costs::default() };
        ChargeLine { payer, account, category, costs }
    });
    Some(Charge {
        instance,
        period: day_to_mend(month, charges),
        class: ChargeClass::Correction,
        rates: Rates::default(),
        lines: lines.collect(),
    })
}

/// The part of the last charged day of a month that was charged; where none was, the day of the month that is nearest
/// to what was.
fn day_to_mend(month: Month, charges: &[Charge]) -> Period {
    let metered =
        || charges.iter().filter(|charge| charge.class == ChargeClass::Usage).map(|charge| charge.period);
    let then = || metered().filter(|period| Month::of(period.from) == month);
    if let Some(last) = then().map(|period| period.from).max() {
        let day = day_of(last);
        let on_it = then().filter(|period| period.from >= day.from);
        return on_it
            .reduce(|all, period| Period::new(all.from.min(period.from), all.to.max(period.to)))
            .unwrap_or(day);
    }
    let is_later = metered().all(|period| Month::of(period.from) < month);
    if is_later { day_of(month.begin()) } else { day_of(month.next().begin() - Span::from_millis(1)) }
}

fn day_of(at: Timestamp) -> Period {
    let from = Timestamp::from_millis(at.as_millis() - at.as_millis().rem_euclid(DAY.as_millis()));
    Period::new(from, from + DAY)
}

#[cfg(test)]
mod tests {
    use bursar_model::TypedId;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_difference_is_split_as_the_cost_was() {
        let usd = Usd::from_dollars;
        let charged = [("run", usd(300)), ("boot", usd(100)), ("lost", usd(0))];
        let lines = correction_lines(usd(-40), &charged);
        assert_eq!(lines, [("run", usd(-30)), ("boot", usd(-10)), ("lost", usd(0))]);
    }

    #[test]
    fn where_nothing_was_charged_all_pay_the_same() {
        let lines = correction_lines(Usd::from_nanos(5), &[('a', Usd::ZERO), ('b', Usd::from_nanos(-7))]);
        assert_eq!(lines, [('a', Usd::from_nanos(3)), ('b', Usd::from_nanos(2))]);
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-{text}:00Z").parse().unwrap()
    }

    fn month(month: u32) -> Month {
        Month { year: 2026, month }
    }

    /// A charge of these nano-dollars to each of these payers.
    fn charge(class: ChargeClass, from: &str, to: &str, lines: &[(u64, Category, i64)]) -> Charge {
        let line = |(payer, category, nanos): &(u64, Category, i64)| ChargeLine {
            payer: ExperimentId::from_u64(*payer),
            account: Arc::new(Account { project: "p".into(), user: "u".into(), sweep: None }),
            category: *category,
            costs: Costs::all(Usd::from_nanos(*nanos)),
        };
        let period = Period::new(at(from), at(to));
        let lines = lines.iter().map(line).collect();
        Charge { instance: InstanceId::from_u64(1), period, class, rates: Rates::default(), lines }
    }

    /// Charged by two in October, and by one of them after midnight in November.
    fn two_months() -> Vec<Charge> {
        use ChargeClass::{Correction, Usage};
        vec![
            charge(Usage, "10-30T22:00", "10-31T00:00", &[(1, Category::Boot, 30), (2, Category::Run, 10)]),
            charge(Usage, "10-31T00:00", "10-31T12:00", &[(1, Category::Run, 30)]),
            charge(Usage, "10-31T12:00", "11-01T00:00", &[(2, Category::Run, 30)]),
            charge(
                Correction,
                "10-31T13:00",
                "11-01T00:00",
                &[(2, Category::Run, -20), (2, Category::Lost, 20)],
            ),
            charge(Usage, "11-01T00:00", "11-01T01:00", &[(2, Category::Run, 50)]),
        ]
    }

    fn corrected(difference: i64, of: Month) -> Charge {
        correction(InstanceId::from_u64(1), of, Usd::from_nanos(difference), &two_months()).unwrap()
    }

    fn parts(charge: &Charge) -> Vec<(u64, Category, i64)> {
        let part = |line: &ChargeLine| (line.payer.as_u64(), line.category, line.costs.effective.as_nanos());
        charge.lines.iter().map(part).collect()
    }

    #[test]
    fn a_month_is_mended_on_its_last_charged_day_by_those_who_paid_in_it() {
        let october = corrected(-10, month(10));
        assert_eq!(october.period, Period::new(at("10-31T00:00"), at("11-01T00:00")));
        assert_eq!(
            parts(&october),
            [
                (1, Category::Run, -3),
                (1, Category::Boot, -3),
                (2, Category::Run, -2),
                (2, Category::Lost, -2)
            ]
        );
        let november = corrected(7, month(11));
        assert_eq!(november.period, Period::new(at("11-01T00:00"), at("11-01T01:00")));
        assert_eq!(parts(&november), [(2, Category::Run, 7)]);
        let Costs { effective, contracted, list, on_demand } = november.costs();
        assert_eq!(
            (effective, contracted, list, on_demand),
            (Usd::from_nanos(7), Usd::from_nanos(7), Usd::ZERO, Usd::ZERO)
        );
        assert_eq!(november.class, ChargeClass::Correction);
    }

    #[test]
    fn a_month_without_charges_is_mended_on_its_day_nearest_to_them_by_all_who_ever_paid() {
        let later = corrected(140, month(12));
        assert_eq!(later.period, Period::new(at("12-01T00:00"), at("12-02T00:00")));
        assert_eq!(later.lines.len(), 4);
        assert_eq!(later.costs().contracted, Usd::from_nanos(140));
        let earlier = corrected(1, month(9));
        assert_eq!(earlier.period, Period::new(at("09-30T00:00"), at("10-01T00:00")));
    }

    #[test]
    fn what_was_never_charged_has_no_payer_to_correct() {
        assert_eq!(correction(InstanceId::from_u64(1), month(10), Usd::from_nanos(5), &[]), None);
    }

    #[test]
    fn once_corrected_each_month_has_been_charged_what_was_billed() {
        let mut charges = two_months();
        let before = charged_by_month(&charges);
        assert_eq!(before, [(month(10), Usd::from_nanos(100)), (month(11), Usd::from_nanos(50))].into());
        for (of, difference) in [(month(10), 11), (month(11), -50), (month(12), 3)] {
            let mended = correction(InstanceId::from_u64(1), of, Usd::from_nanos(difference), &charges);
            charges.extend(mended);
        }
        let after = [(month(10), 111), (month(11), 0), (month(12), 3)];
        assert_eq!(charged_by_month(&charges), after.map(|(of, nanos)| (of, Usd::from_nanos(nanos))).into());
    }

    proptest! {
        #[test]
        fn lines_sum_to_the_difference_and_are_in_proportion_to_the_nano_dollar(
            difference in any::<i64>(),
            charged in prop::collection::vec(-1_000_000_i64..i64::MAX, 1..12),
        ) {
            let keyed: Vec<(usize, Usd)> = charged.iter().copied().map(Usd::from_nanos).enumerate().collect();
            let lines = correction_lines(Usd::from_nanos(difference), &keyed);
            prop_assert_eq!(lines.iter().map(|(_, part)| i128::from(part.as_nanos())).sum::<i128>(), i128::from(difference));
            let total: i128 = charged.iter().map(|c| i128::from((*c).max(0))).sum();
            if total > 0 {
                for ((_, part), charged) in lines.iter().zip(&charged) {
                    let off = i128::from(part.as_nanos()) * total - i128::from(difference) * i128::from((*charged).max(0));
                    prop_assert!(off.abs() < total, "a line is a nano-dollar or more from its share");
                }
            }
        }
    }
}
