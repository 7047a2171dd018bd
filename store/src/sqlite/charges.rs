//! Charges as rows, and the sums that reports add up, kept in the same transaction.

use bursar_model::{Charge, ChargeClass, ChargeLine};
use rusqlite::params;

use super::{rows, write::Writer};
use crate::StoreError;

const DAY_MILLIS: i64 = 86_400_000;

/// Writes the charge that the journal has under `seq`.
pub(super) fn write(writer: &mut Writer<'_>, seq: i64, charge: &Charge) -> Result<(), StoreError> {
    let Charge { instance, period, class, price, on_demand_price, lines } = charge;
    let connection = writer.connection;
    let instance = rows::number(*instance);
    let (since, until) = (period.from.as_millis(), period.to.as_millis());
    connection
        .prepare_cached(
            "INSERT INTO charges (seq, instance, since, until, correction, price, on_demand_price) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            seq,
            instance,
            since,
            until,
            *class == ChargeClass::Correction,
            price.as_nanos(),
            on_demand_price.as_nanos()
        ])?;
    let place: i64 = connection
        .prepare_cached("SELECT place FROM instances WHERE id = ?1")?
        .query_row([instance], |row| row.get(0))?;

    let mut insert = connection.prepare_cached(
        "INSERT INTO charge_lines (charge, line, experiment, account, category, amount, on_demand_amount, millis) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut add = connection.prepare_cached(
        "INSERT INTO sums (day, account, experiment, place, category, amount, on_demand_amount, millis) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT (day, account, experiment, place, category) DO UPDATE SET \
             amount = amount + ?6, on_demand_amount = on_demand_amount + ?7, millis = millis + ?8",
    )?;
    for ((number, line), millis) in lines.iter().enumerate().zip(shares_of_time(charge)) {
        let ChargeLine { payer, account, category, amount, on_demand_amount } = line;
        let payer = rows::number(*payer);
        let account = writer.account(account)?;
        let category = rows::category_number(*category);
        let (amount, on_demand_amount) = (amount.as_nanos(), on_demand_amount.as_nanos());
        insert.execute(params![
            seq,
            number as i64,
            payer,
            account,
            category,
            amount,
            on_demand_amount,
            millis
        ])?;
        add.execute(params![
            since / DAY_MILLIS,
            account,
            payer,
            place,
            category,
            amount,
            on_demand_amount,
            millis
        ])?;
    }
    Ok(())
}

/// Each line's part of the instance's time, by its part of the cost at the on-demand price, which is never 0 where the
/// line is not. The parts sum up to the period exactly; a correction mends money and has no time.
fn shares_of_time(charge: &Charge) -> Vec<i64> {
    let millis = match charge.class {
        ChargeClass::Usage => i128::from(charge.period.span().as_millis()),
        ChargeClass::Correction => 0,
    };
    let weight = |line: &ChargeLine| i128::from(line.on_demand_amount.as_nanos().max(0));
    let total: i128 = charge.lines.iter().map(weight).sum();
    let (mut weight_so_far, mut millis_so_far) = (0, 0);
    let mut shares = Vec::with_capacity(charge.lines.len());
    for (index, line) in charge.lines.iter().enumerate() {
        weight_so_far += weight(line);
        let is_last = index + 1 == charge.lines.len();
        let until_here = if is_last || total == 0 { millis } else { millis * weight_so_far / total };
        shares.push((until_here - millis_so_far) as i64);
        millis_so_far = until_here;
    }
    shares
}

#[cfg(test)]
mod tests {
    use bursar_model::{Account, Category, Period, Timestamp, TypedId, Usd, UsdPerHour};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_of_time_sum_up_to_the_period(millis in 0_i64..100_000_000, amounts in prop::collection::vec(0_i64..1_000_000, 1..8)) {
            let line = |amount: &i64| ChargeLine {
                payer: TypedId::from_u64(1),
                account: std::sync::Arc::new(Account { project: "p".into(), user: "u".into(), sweep: None }),
                category: Category::Run,
                amount: Usd::from_nanos(*amount),
                on_demand_amount: Usd::from_nanos(*amount),
            };
            let charge = Charge {
                instance: TypedId::from_u64(1),
                period: Period::new(Timestamp::from_millis(0), Timestamp::from_millis(millis)),
                class: ChargeClass::Usage,
                price: UsdPerHour::ZERO,
                on_demand_price: UsdPerHour::ZERO,
                lines: amounts.iter().map(line).collect(),
            };
            let shares = shares_of_time(&charge);
            prop_assert_eq!(shares.iter().sum::<i64>(), millis);
            prop_assert!(shares.iter().all(|share| *share >= 0));
        }
    }
}
