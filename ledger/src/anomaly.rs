//! Experiments that cost far more than anybody had reason to expect.
//!
//! Two things are known before an experiment ends: what its plan estimated, and what others of its sweep or project came
//! to. Either may be missing. Costs of peers have long tails (one that was interrupted ten times is no reason to expect
//! another), so what is usual is told by the median and the median distance from it, which no few outliers can move,
//! instead of mean and standard deviation, which they can.

use bursar_model::Usd;

/// With fewer peers than this, a few odd ones are a third of them and the median distance says nothing.
const PEERS_MIN: usize = 8;
/// Nobody wants to be told of less than this above what was to be expected.
const EXCESS_MIN: Usd = Usd::from_dollars(1);

/// What an experiment may be expected to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedCost {
    /// The single best guess.
    pub expected: Usd,
    /// What it should not exceed.
    pub high: Usd,
}

/// An experiment that costs too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anomaly {
    /// By what it was judged.
    pub kind: AnomalyKind,
    /// What was expected.
    pub expected: ExpectedCost,
    /// What was charged so far.
    pub spent: Usd,
}

/// By what an experiment was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnomalyKind {
    /// It passed the upper end of its own estimate.
    AboveEstimate,
    /// It passed what is usual among finished experiments of its sweep or project; the best guess is their median.
    OutlierAmongPeers,
}

impl ExpectedCost {
    /// What these costs of finished experiments let another expect: the median `m`, and at most
    /// `m + 3.5 * max(1.4826 * MAD, m / 10)` with the median absolute deviation `MAD`. Order does not matter. Nothing where
    /// they are fewer than eight.
    ///
    /// 1.4826 makes the deviation comparable to a standard deviation, and 3.5 of these is the usual bound for outliers
    /// (Iglewicz and Hoaglin; NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.17). Peers that cost nearly the same
    /// would make every cent an outlier, so a tenth of the median is the least spread that is assumed.
    #[must_use]
    pub fn among_peers(mut costs: Vec<Usd>) -> Option<Self> {
        if costs.len() < PEERS_MIN {
            return None;
        }
        let expected = median(&mut costs);
        for cost in &mut costs {
            *cost = Usd::from_nanos(cost.saturating_sub(expected).as_nanos().saturating_abs());
        }
        let by_deviation = thousandths(median(&mut costs), 5189);
        let by_median = thousandths(expected, 350);
        Some(Self { expected, high: expected.saturating_add(by_deviation.max(by_median)) })
    }
}

/// Whether what was charged to an experiment so far is out of line, by its own estimate first. It need not
/// have ended: what it will cost yet comes on top.
#[must_use]
pub fn anomaly(spent: Usd, estimate: Option<ExpectedCost>, peers: Option<ExpectedCost>) -> Option<Anomaly> {
    let by = |kind, expected: Option<ExpectedCost>| {
        expected
            .filter(|expected| spent.saturating_sub(expected.high) >= EXCESS_MIN)
            .map(|expected| Anomaly { kind, expected, spent })
    };
    by(AnomalyKind::AboveEstimate, estimate).or_else(|| by(AnomalyKind::OutlierAmongPeers, peers))
}

/// The middle of at least one amount; between the two middle ones, rounded towards zero, where their number is even.
fn median(amounts: &mut [Usd]) -> Usd {
    amounts.sort_unstable();
    let (low, high) = (amounts[(amounts.len() - 1) / 2], amounts[amounts.len() / 2]);
    Usd::from_nanos(low.as_nanos().midpoint(high.as_nanos()))
}

fn thousandths(amount: Usd, factor: i128) -> Usd {
    let nanos = i128::from(amount.as_nanos()) * factor / 1000;
    Usd::from_nanos(nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn peers(costs: &[&str]) -> Option<ExpectedCost> {
        ExpectedCost::among_peers(costs.iter().map(|cost| usd(cost)).collect())
    }

    #[test]
    fn peers_are_judged_by_median_and_median_deviation() {
        // Sorted: 4 5 6 7 9 10 12 90. The median is 8, the distances 1 1 2 2 3 4 4 82, their median 2.5.
        let expected = ExpectedCost { expected: usd("8"), high: usd("20.9725") };
        assert_eq!(peers(&["9", "4", "90", "6", "12", "7", "5", "10"]), Some(expected));
        // The ninth is an outlier, and its size changes nothing.
        assert_eq!(peers(&["9", "4", "9000", "6", "12", "7", "5", "10"]), Some(expected));
    }

    #[test]
    fn fewer_than_eight_peers_say_nothing() {
        assert_eq!(peers(&["5"; 7]), None);
        assert_eq!(peers(&[]), None);
    }

    #[test]
    fn peers_that_cost_the_same_leave_a_third_of_room() {
        let expected = peers(&["10"; 8]);
        assert_eq!(expected, Some(ExpectedCost { expected: usd("10"), high: usd("13.5") }));
        assert_eq!(anomaly(usd("14.49"), None, expected), None);
        let found = anomaly(usd("14.5"), None, expected).unwrap();
        assert_eq!((found.kind, found.spent), (AnomalyKind::OutlierAmongPeers, usd("14.5")));
    }

    #[test]
    fn cents_do_not_alarm() {
        let cheap = peers(&["0.01"; 8]);
        assert_eq!(
            anomaly(usd("0.9"), Some(ExpectedCost { expected: usd("0.01"), high: usd("0.02") }), cheap),
            None
        );
        assert_eq!(anomaly(usd("1.1"), None, cheap).map(|found| found.spent), Some(usd("1.1")));
        // Where nothing was paid so far, a dollar is news.
        assert!(anomaly(usd("1"), None, peers(&["0"; 8])).is_some());
    }

    #[test]
    fn an_estimate_counts_before_peers() {
        let (estimate, usual) = (ExpectedCost { expected: usd("10"), high: usd("15") }, peers(&["2"; 8]));
        let found = |spent| anomaly(usd(spent), Some(estimate), usual);
        assert_eq!(found("20").map(|found| found.kind), Some(AnomalyKind::AboveEstimate));
        assert_eq!(found("20").map(|found| found.expected), Some(estimate));
        // Within its estimate, and yet far above its peers: the estimate may have been wrong.
        assert_eq!(found("12").map(|found| found.kind), Some(AnomalyKind::OutlierAmongPeers));
        assert_eq!(found("3"), None);
    }

    #[test]
    fn without_anything_to_go_by_nothing_is_out_of_line() {
        assert_eq!(anomaly(usd("1000000"), None, None), None);
    }

    fn costs() -> impl Strategy<Value = Vec<Usd>> {
        prop::collection::vec((0_i64..100_000_000_000).prop_map(Usd::from_nanos), 8..60)
    }

    proptest! {
        #[test]
        fn what_is_out_of_line_stays_so_when_more_is_spent(
            costs in costs(), spent in 0_i64..200_000_000_000, more in 0_i64..100_000_000_000,
        ) {
            let peers = ExpectedCost::among_peers(costs);
            let (spent, more) = (Usd::from_nanos(spent), Usd::from_nanos(spent + more));
            prop_assert!(anomaly(spent, None, peers).is_none() || anomaly(more, None, peers).is_some());
        }

        #[test]
        fn at_least_half_of_the_peers_are_usual(costs in costs()) {
            let peers = ExpectedCost::among_peers(costs.clone());
            let unusual = costs.iter().filter(|cost| anomaly(**cost, None, peers).is_some()).count();
            prop_assert!(unusual * 2 <= costs.len(), "{} of {}", unusual, costs.len());
        }

        #[test]
        fn the_order_of_peers_does_not_matter(costs in costs(), by in 0_usize..60) {
            let mut turned = costs.clone();
            turned.rotate_left(by % costs.len());
            prop_assert_eq!(ExpectedCost::among_peers(turned), ExpectedCost::among_peers(costs));
        }
    }
}
