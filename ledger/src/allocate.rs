//! Splitting an amount by weights without losing a nano-dollar.

use bursar_model::Usd;

/// Splits `amount` by `weights`, by largest remainder (Hamilton's method): each part is its exact share rounded down,
/// and what rounding left over goes, one nano-dollar each, to the largest remainders, the first of equals first.
///
/// The parts sum to `amount`, and each is less than one nano-dollar from its exact share. Weights of up to 64 bits have
/// room in every product; none is below 0.
///
/// # Panics
/// When `weights` is empty or all are 0: money needs a payer.
#[must_use]
pub fn allocate<W: Copy + Into<i128>>(amount: Usd, weights: &[W]) -> Vec<Usd> {
    let total: i128 = weights.iter().map(|weight| (*weight).into()).sum();
    assert!(total > 0, "an amount is split among at least one payer with a weight");
    let nanos = i128::from(amount.as_nanos());

    let mut parts: Vec<i64> = Vec::with_capacity(weights.len());
    let mut remainders: Vec<(i128, usize)> = Vec::with_capacity(weights.len());
    let mut left = nanos;
    for (index, weight) in weights.iter().enumerate() {
        let product = nanos * (*weight).into();
        let part = product.div_euclid(total);
        left -= part;
        parts.push(part as i64);
        remainders.push((product.rem_euclid(total), index));
    }
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, index) in remainders.into_iter().take(left as usize) {
        parts[index] += 1;
    }
    parts.into_iter().map(Usd::from_nanos).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_sum_to_the_whole_and_are_fair(
            nanos in -1_000_000_000_000_i64..1_000_000_000_000,
            weights in prop::collection::vec(prop_oneof![0_i64..10_000, 0..i64::MAX], 1..20)
                .prop_filter("a payer", |w| w.iter().any(|w| *w > 0)),
        ) {
            let parts = allocate(Usd::from_nanos(nanos), &weights);
            prop_assert_eq!(parts.iter().copied().sum::<Usd>(), Usd::from_nanos(nanos));
            let total: i128 = weights.iter().map(|w| i128::from(*w)).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let off = i128::from(part.as_nanos()) * total - i128::from(nanos) * i128::from(*weight);
                prop_assert!(off.abs() < total, "a part is a nano-dollar or more from its share");
            }
        }
    }

    #[test]
    fn the_first_of_equals_gets_the_odd_nano() {
        let parts = allocate(Usd::from_nanos(10), &[1, 1, 1]);
        assert_eq!(parts.iter().map(|p| p.as_nanos()).collect::<Vec<_>>(), [4, 3, 3]);
    }
}
