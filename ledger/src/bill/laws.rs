//! The laws of reading and comparing, over random bills.

use std::fmt::Write;

use bursar_model::{CloudId, InstanceId, Period, ProviderName, Timestamp, TypedId, Usd};
use proptest::prelude::*;

use super::*;

/// One row of usage: whose tags it has, what it cost, and when.
#[derive(Debug, Clone)]
struct Usage {
    owner: Owner,
    nanos: i64,
    day: u32,
}

#[derive(Debug, Clone, Copy)]
enum Owner {
    /// An instance of ours, known while the number is below 4.
    Tagged(u64),
    /// Without tags, but with the cloud id of one of ours.
    Untagged(u64),
    /// Another installation, with ids that may be ours.
    Elsewhere(u64),
    Nobody,
}

fn usages() -> impl Strategy<Value = Vec<Usage>> {
    let owner = prop_oneof![
        3 => (1_u64..7).prop_map(Owner::Tagged),
        1 => (1_u64..7).prop_map(Owner::Untagged),
        1 => (1_u64..7).prop_map(Owner::Elsewhere),
        1 => Just(Owner::Nobody),
    ];
    let usage = (owner, -1_000_000_000_i64..100_000_000_000, 1_u32..29)
        .prop_map(|(owner, nanos, day)| Usage { owner, nanos, day });
    prop::collection::vec(usage, 0..40)
}

fn csv(usages: &[Usage]) -> String {
    let mut text =
        "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ResourceId,Tags\n"
            .to_owned();
    for Usage { owner, nanos, day } in usages {
        let cost = Usd::from_nanos(*nanos);
        let tags = |installation, number: u64| {
            let instance = InstanceId::from_u64(number);
            format!(r#""{{""bursar:installation"":""{installation}"",""bursar:instance"":""{instance}""}}""#)
        };
        let (resource, tags) = match owner {
            Owner::Tagged(number) => (format!("vol-{number}"), tags("lab", *number)),
            Owner::Untagged(number) => (format!("arn:instance/i-{number}"), String::new()),
            Owner::Elsewhere(number) => (format!("i-{number}"), tags("elsewhere", *number)),
            Owner::Nobody => ("bucket".to_owned(), String::new()),
        };
        let date = format!("2026-10-{day:02}");
        writeln!(text, "{cost},USD,Usage,{date}T03:00:00Z,{date}T04:00:00Z,{resource},{tags}").unwrap();
    }
    text
}

fn ours() -> Vec<OwnCost> {
    let at = |day: i64, hour: i64| -> Timestamp {
        let first: Timestamp = "2026-10-01T00:00:00Z".parse().unwrap();
        first + Span::from_hours((day - 1) * 24 + hour)
    };
    let own = |number: u64| OwnCost {
        instance: InstanceId::from_u64(number),
        cloud_id: Some(CloudId::new(&format!("i-{number}"))),
        provider: ProviderName::new(if number == 1 { "aws" } else { "aws-west" }),
        period: Some(Period::new(at(number as i64, 3), at(number as i64 + 9, 4))),
        over: number != 3,
        months: BTreeMap::from([(
            Month { year: 2026, month: 10 },
            OwnMonth { metered: Usd::from_nanos(number as i64 * 7_000_000_001), corrected: Usd::ZERO },
        )]),
    };
    (1..4).map(own).collect()
}

fn read(files: &[&[Usage]]) -> Bill {
    let mut bill = Bill::default();
    for file in files {
        let known = |name: &str| matches!(name, "i-1" | "i-2" | "i-3");
        let read = bill.read(csv(file).as_bytes(), known).unwrap();
        assert_eq!((read.rows, read.bad_row_count), (file.len() as u64, 0));
    }
    bill
}

fn against(bill: &Bill, ours: &[OwnCost]) -> Reconciliation {
    compare(bill, "lab", Basis::Billed, ours.iter().cloned())
}

proptest! {
    #[test]
    fn what_is_ours_what_leaks_and_what_is_foreign_make_up_the_file(usages in usages()) {
        let bill = read(&[&usages]);
        let found = against(&bill, &ours());
        let instances: Usd = found.instances.values().map(|compared| compared.billed.billed).sum();
        let leaks: Usd = found.leaks.iter().map(|leak| leak.cost().billed).sum();
        let file: Usd = usages.iter().map(|usage| Usd::from_nanos(usage.nanos)).sum();
        prop_assert_eq!(instances + leaks + found.foreign.billed, file);
        prop_assert_eq!(bill.total().billed, file);

        let of = |pick: &dyn Fn(&Owner) -> bool| -> Usd {
            usages.iter().filter(|u| pick(&u.owner)).map(|u| Usd::from_nanos(u.nanos)).sum()
        };
        prop_assert_eq!(instances, of(&|o| matches!(o, Owner::Tagged(n) | Owner::Untagged(n) if *n < 4)));
        prop_assert_eq!(leaks, of(&|o| matches!(o, Owner::Tagged(n) if *n >= 4)));
    }

    #[test]
    fn once_corrections_are_entered_nothing_differs(usages in usages()) {
        let bill = read(&[&usages]);
        let mut ours = ours();
        let first = against(&bill, &ours);
        for own in &mut ours {
            for (month, correction) in first.instances.get(&own.instance).into_iter().flat_map(BillAndCharges::wanted_corrections) {
                own.months.entry(month).or_default().corrected += correction;
            }
        }
        let second = against(&bill, &ours);
        for compared in second.instances.values() {
            prop_assert_eq!(compared.wanted_corrections().next(), None);
            if compared.coverage == Coverage::Whole {
                prop_assert_eq!(compared.metered + compared.corrected, compared.cost);
            }
        }
        prop_assert_eq!(first.providers, second.providers, "the error of the estimates stays what it was");
    }

    #[test]
    fn neither_the_order_of_rows_nor_the_cut_into_files_matters(
        (usages, shuffled) in usages().prop_flat_map(|u| (Just(u.clone()), Just(u).prop_shuffle())),
        cut: prop::sample::Index,
    ) {
        let cut = cut.index(shuffled.len() + 1);
        let parts = read(&[&shuffled[..cut], &shuffled[cut..]]);
        prop_assert_eq!(against(&read(&[&usages]), &ours()), against(&parts, &ours()));
    }
}
