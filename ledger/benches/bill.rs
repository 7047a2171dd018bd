//! How fast a bill is read: rows of a CUR 2.0 a second.
//!
//! `cargo bench -p bursar-ledger`. One row in ten is ours, as in a company that does more than train models; then all
//! of them, which is the worst.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should stop")]

use std::fmt::Write;

use bursar_ledger::bill::Bill;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ROWS: u64 = 100_000;

fn report(ours_one_in: u64) -> String {
    let mut text = "identity_line_item_id,bill_billing_period_start_date,line_item_usage_account_id,\
         line_item_line_item_type,line_item_usage_start_date,line_item_usage_end_date,line_item_product_code,\
         line_item_usage_type,line_item_resource_id,line_item_usage_amount,line_item_currency_code,\
         line_item_unblended_cost,line_item_net_unblended_cost,pricing_unit,pricing_public_on_demand_cost,\
         product_region_code,product_instance_type,resource_tags\n"
        .to_owned();
    for row in 0..ROWS {
        let (day, hour, machine) = (row % 28 + 1, row % 23, row % 9_973);
        let tags = match row % ours_one_in {
            0 => format!(
                r#"{{""user_bursar_installation"":""lab"",""user_bursar_instance"":""ins_{machine:013}""}}"#
            ),
            _ => r#"{""user_team"":""web"",""user_environment"":""production""}"#.to_owned(),
        };
        writeln!(
            text,
            "line{row},2026-10-01T00:00:00.000Z,111122223333,Usage,2026-10-{day:02}T{hour:02}:00:00.000Z,\
             2026-10-{day:02}T{:02}:00:00.000Z,AmazonEC2,SpotUsage:g5.xlarge,i-{machine:017x},1,USD,0.3018{row:06},,\
             Hrs,1.006,us-east-1,g5.xlarge,\"{tags}\"",
            hour + 1,
        )
        .unwrap();
    }
    text
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read_cur");
    group.throughput(Throughput::Elements(ROWS)).sample_size(10);
    for (name, ours_one_in) in [("one_row_in_ten_is_ours", 10), ("all_rows_are_ours", 1)] {
        let text = report(ours_one_in);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut bill = Bill::default();
                let read = bill.read(text.as_bytes(), |_| false).unwrap();
                assert_eq!(read.rows, ROWS);
                bill
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
