//! Charges as rows, and the sums that reports add up, kept in the same transaction.

use bursar_model::{ByBasis, Change, Changes, Charge, ChargeClass, ChargeLine, Instance, Usd};
use rusqlite::params;

use super::{rows, write::Writer};
use crate::StoreError;

const DAY_MILLIS: i64 = 86_400_000;

/// Writes the charge that the journal has under `seq`.
pub(super) fn write(writer: &mut Writer<'_>, seq: i64, charge: &Charge) -> Result<(), StoreError> {
    let Charge { instance, period, class, rates, lines } = charge;
    let connection = writer.connection;
    let instance = rows::number(*instance);
    let (since, until) = (period.from.as_millis(), period.to.as_millis());
    connection
        .prepare_cached(
            "INSERT INTO charges (seq, instance, since, until, correction, effective_price, contracted_price, \
                 list_price, on_demand_price) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            seq,
            instance,
            since,
            until,
            *class == ChargeClass::Correction,
            rates.effective.as_nanos(),
            rates.contracted.as_nanos(),
            rates.list.as_nanos(),
            rates.on_demand.as_nanos()
        ])?;
    let place: i64 = connection
        .prepare_cached("SELECT place FROM instances WHERE id = ?1")?
        .query_row([instance], |row| row.get(0))?;

    let mut insert = connection.prepare_cached(
        "INSERT INTO charge_lines (charge, line, experiment, account, category, effective, contracted, list, \
             on_demand, millis) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let mut add = connection.prepare_cached(
        "INSERT INTO sums (day, account, experiment, place, category, effective, contracted, list, on_demand, \
             millis) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
         ON CONFLICT (day, account, experiment, place, category) DO UPDATE SET \
             effective = effective + ?6, contracted = contracted + ?7, list = list + ?8, \
             on_demand = on_demand + ?9, millis = millis + ?10",
    )?;
    for ((number, line), millis) in lines.iter().enumerate().zip(shares_of_time(charge)) {
        let ChargeLine { payer, account, category, costs } = line;
        let payer = rows::number(*payer);
        let account = writer.account(account)?;
        let category = rows::category_number(*category);
        let ByBasis { effective, contracted, list, on_demand } = costs.map(Usd::as_nanos);
        insert.execute(params![
            seq,
            number as i64,
            payer,
            account,
            category,
            effective,
            contracted,
            list,
            on_demand,
            millis
        ])?;
        add.execute(params![
            since / DAY_MILLIS,
            account,
            payer,
            place,
            category,
            effective,
            contracted,
            list,
            on_demand,
            millis
        ])?;
    }
    Ok(())
}

/// Writes a charge that a bill corrects, and adds it to what is over: the live state does not have that any more. What
/// this commit changes was written with the correction in it.
pub(super) fn write_correction(
    writer: &mut Writer<'_>,
    seq: i64,
    charge: &Charge,
    changes: &Changes,
) -> Result<(), StoreError> {
    write(writer, seq, charge)?;
    let connection = writer.connection;
    let in_commit = |Change { row, .. }: &Change<Instance>| row.id == charge.instance;
    if !changes.instances.iter().any(in_commit) {
        let id = rows::number(charge.instance);
        let mut instance: Instance = connection
            .prepare_cached("SELECT body FROM instances WHERE id = ?1")?
            .query_row([id], |row| rows::json(row, 0))?;
        instance.meter.costs += charge.costs();
        connection
            .prepare_cached("UPDATE instances SET body = ?2 WHERE id = ?1")?
            .execute(params![id, rows::to_json(&instance)])?;
    }
    let mut add = connection
        .prepare_cached("UPDATE budgets SET spent = spent + ?3 WHERE kind = ?1 AND key = ?2 AND NOT live")?;
    for line in &charge.lines {
        for key in line.account.budgets(line.payer) {
            if !changes.budgets.iter().any(|Change { row: (changed, _), .. }| *changed == key) {
                let (kind, value) = rows::budget_key(&key);
                add.execute(params![kind, value, line.costs.effective.as_nanos()])?;
            }
        }
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
    let weight = |line: &ChargeLine| i128::from(line.costs.on_demand.as_nanos().max(0));
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
    use bursar_model::{Account, Category, Costs, Period, Rates, Timestamp, TypedId};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_of_time_sum_up_to_the_period(millis in 0_i64..100_000_000, amounts in prop::collection::vec(0_i64..1_000_000, 1..8)) {
            let line = |amount: &i64| ChargeLine {
                payer: TypedId::from_u64(1),
                account: std::sync::Arc::new(Account { project: "p".into(), user: "u".into(), sweep: None }),
                category: Category::Run,
                costs: Costs::all(Usd::from_nanos(*amount)),
            };
            let charge = Charge {
                instance: TypedId::from_u64(1),
                period: Period::new(Timestamp::from_millis(0), Timestamp::from_millis(millis)),
                class: ChargeClass::Usage,
                rates: Rates::default(),
                lines: amounts.iter().map(line).collect(),
            };
            let shares = shares_of_time(&charge);
            prop_assert_eq!(shares.iter().sum::<i64>(), millis);
            prop_assert!(shares.iter().all(|share| *share >= 0));
        }
    }
}
