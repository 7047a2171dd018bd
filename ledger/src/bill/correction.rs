//! Splitting what a bill adds or takes away among those who paid.

use bursar_model::Usd;

use crate::allocate;

/// Splits the difference between what was billed and what was charged for an instance among the lines of its charges,
/// in proportion to what each was charged; in equal parts where nothing was charged. A line that gave money back (work
/// that became `lost`, under its own key) takes no part.
///
/// The lines sum to the difference exactly, and each is in proportion to within one part in two thousand million:
/// `allocate` weighs in 32 bits.
///
/// # Panics
/// When nothing was ever charged to anybody: money needs a payer.
#[must_use]
pub fn correction_lines<Key: Clone>(difference: Usd, charged: &[(Key, Usd)]) -> Vec<(Key, Usd)> {
    let paid = |amount: Usd| amount.as_nanos().max(0) as u64;
    let most = charged.iter().map(|(_, amount)| paid(*amount)).max().unwrap_or(0);
    let weights: Vec<u32> = match most {
        0 => vec![1; charged.len()],
        most => {
            let excess_bits = 32_u32.saturating_sub(most.leading_zeros());
            charged.iter().map(|(_, amount)| (paid(*amount) >> excess_bits) as u32).collect()
        }
    };
    let parts = allocate(difference, &weights);
    charged.iter().zip(parts).map(|((key, _), part)| (key.clone(), part)).collect()
}

#[cfg(test)]
mod tests {
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

    proptest! {
        #[test]
        fn lines_sum_to_the_difference_and_are_in_proportion(
            difference in -1_000_000_000_000_000_i64..1_000_000_000_000_000,
            charged in prop::collection::vec(-1_000_000_i64..1_000_000_000_000_000, 1..12),
        ) {
            let keyed: Vec<(usize, Usd)> = charged.iter().copied().map(Usd::from_nanos).enumerate().collect();
            let lines = correction_lines(Usd::from_nanos(difference), &keyed);
            prop_assert_eq!(lines.iter().map(|(_, part)| *part).sum::<Usd>(), Usd::from_nanos(difference));
            let total: i128 = charged.iter().map(|c| i128::from((*c).max(0))).sum();
            if total > 0 {
                for ((_, part), charged) in lines.iter().zip(&charged) {
                    let exact = i128::from(difference) * i128::from((*charged).max(0)) / total;
                    let off = (i128::from(part.as_nanos()) - exact).abs();
                    // A weight is short by less than one of 2^31, and so is the sum for each line.
                    let bound = ((i128::from(difference).abs() * (1 + lines.len() as i128)) >> 31) + 2;
                    prop_assert!(off <= bound, "{off} nano-dollars off");
                }
            }
        }
    }
}
