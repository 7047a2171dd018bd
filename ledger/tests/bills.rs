//! Bills of each format, read and compared: `bills/README.md` says after what they were made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bursar_ledger::bill::{
    Basis, Bill, BillError, BillFormat, BilledCost, Coverage, FileRead, Month, OwnCost, OwnMonth,
    Reconciliation, UnbilledReason, compare,
};
use bursar_model::{CloudId, InstanceId, Period, Span, TypedId, Usd};

const CUR_2: &str = include_str!("bills/cur2.csv");
const CUR_LEGACY: &str = include_str!("bills/cur_legacy.csv");
const FOCUS: &str = include_str!("bills/focus.csv");
const GCP_JSON: &str = include_str!("bills/gcp.jsonl");
const GCP_CSV: &str = include_str!("bills/gcp.csv");

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

fn id(number: u64) -> InstanceId {
    InstanceId::from_u64(number)
}

fn read(text: &str) -> (Bill, FileRead) {
    let mut bill = Bill::default();
    let read = bill.read(text.as_bytes(), |name| matches!(name, "i-0ccc" | "unlabelled")).unwrap();
    (bill, read)
}

fn error(bytes: &[u8]) -> BillError {
    Bill::default().read(bytes, |_| false).unwrap_err()
}

fn own(number: u64, from: &str, to: &str, metered: &str) -> OwnCost {
    let moment = |text: &str| format!("2026-{text}:00:00Z").parse().unwrap();
    OwnCost {
        instance: id(number),
        cloud_id: None,
        provider: "aws".into(),
        period: Some(Period::new(moment(from), moment(to))),
        over: true,
        months: [(Month::of(moment(from)), OwnMonth { metered: usd(metered), corrected: Usd::ZERO })].into(),
    }
}

/// The one correction that an instance wants, in October.
fn wanted(found: &Reconciliation, number: u64) -> Option<Usd> {
    let corrections: Vec<(Month, Usd)> = found.instances[&id(number)].wanted_corrections().collect();
    assert!(
        corrections.len() <= 1 && corrections.iter().all(|(month, _)| month.month == 10),
        "{corrections:?}"
    );
    corrections.first().map(|(_, difference)| *difference)
}

/// The instances that the AWS bills are compared with.
fn ours() -> Vec<OwnCost> {
    vec![
        own(1, "10-10T10", "10-10T12", "1.5"),
        own(2, "10-11T00", "10-11T01", "1"),
        OwnCost { cloud_id: Some(CloudId::new("i-0ccc")), ..own(3, "10-12T05", "10-12T06", "0.4") },
        OwnCost { over: false, ..own(4, "10-31T22", "10-31T23", "1.006") },
        own(5, "10-15T00", "10-15T02", "2"),
        own(6, "09-15T00", "09-15T02", "2"),
        own(7, "10-16T00", "10-16T02", "0"),
    ]
}

fn found(bill: &Bill, basis: Basis) -> Reconciliation {
    compare(bill, "lab", basis, ours())
}

#[test]
fn a_cur_is_read_to_the_nano_dollar_and_bad_rows_are_named() {
    let (bill, read) = read(CUR_2);
    assert_eq!((read.format, read.rows, read.bad_row_count), (BillFormat::AwsCur, 17, 2));
    let bad: Vec<_> = read.bad_rows.iter().map(|bad| (bad.line, bad.why.as_str())).collect();
    assert_eq!(bad[0].0, 19);
    assert!(bad[0].1.starts_with("line_item_unblended_cost: `n/a` is not a decimal number"), "{}", bad[0].1);
    assert!(bad[1].1.starts_with("line_item_usage_start_date `10/10/2026` is not a time"), "{}", bad[1].1);

    assert_eq!(bill.total().billed, usd("31.565422581"));
    let machine = bill.resources().iter().find(|resource| resource.resource == "i-0aaa").unwrap();
    assert_eq!(machine.rows, 3);
    assert_eq!(machine.unit_hours, Span::from_secs(5_400));
    assert_eq!(
        machine.used,
        Some(Period::new("2026-10-10T10:00:00Z".parse().unwrap(), "2026-10-10T12:00:00Z".parse().unwrap()))
    );
    let cost = BilledCost { billed: usd("1.33355"), effective: usd("1.33355"), list: usd("1.509") };
    assert_eq!(machine.months, [(Month { year: 2026, month: 10 }, cost)].into());
}

#[test]
fn a_month_is_compared_by_hand_computed_sums() {
    let (bill, _) = read(CUR_2);
    let found = found(&bill, Basis::Billed);

    let first = &found.instances[&id(1)];
    assert_eq!((first.cost, first.resources, first.coverage), (usd("1.353622581"), 3, Coverage::Whole));
    assert_eq!(first.billed.list, usd("1.530129032"));
    assert_eq!(wanted(&found, 1), Some(usd("-0.146377419")));
    assert_eq!(found.instances[&id(2)].cost, Usd::ZERO, "a savings plan covers it");
    let by_cloud_id = &found.instances[&id(3)];
    assert_eq!((by_cloud_id.cost, by_cloud_id.coverage), (usd("0.3018"), Coverage::MachineOnly));
    assert_eq!(found.instances[&id(4)].coverage, Coverage::MayGoOn);
    assert_eq!(wanted(&found, 4), None);
    assert_eq!(found.instances.len(), 4);

    assert_eq!(found.leaks.len(), 1);
    assert_eq!((found.leaks[0].resource.as_str(), found.leaks[0].cost().billed), ("i-0ddd", usd("24.144")));
    assert_eq!(
        (found.leaks[0].account.as_str(), found.leaks[0].region.as_str()),
        ("111122223333", "us-east-1")
    );
    assert_eq!(found.leaks[0].used.unwrap().span(), Span::from_hours(24));
    assert_eq!(found.foreign.billed, usd("4.76"));
    assert_eq!(found.unbilled.iter().map(|unbilled| unbilled.instance).collect::<Vec<_>>(), [id(5)]);
    assert_eq!(found.unbilled_reason, Some(UnbilledReason::NotBilledYet));

    let error = &found.providers["aws"];
    assert_eq!((error.instances, error.billed, error.metered), (2, usd("1.353622581"), usd("2.5")));
    assert_eq!(error.basis_points, Some(8_468));
    assert_eq!(
        (error.median_basis_points, error.worst),
        (Some(1_081), Some((id(1), 1_081))),
        "2 cost nothing"
    );
}

#[test]
fn what_a_commitment_covers_costs_its_part_of_the_commitment() {
    let (bill, _) = read(CUR_2);
    let found = found(&bill, Basis::Effective);
    assert_eq!(wanted(&found, 2), Some(usd("-0.35")));
    assert_eq!(wanted(&found, 1), Some(usd("-0.146377419")), "not covered: as billed");
    let error = &found.providers["aws"];
    assert_eq!((error.median_basis_points, error.worst), (Some(1_081), Some((id(2), 5_384))));
    assert_eq!(found.foreign.effective, usd("4.06"), "the fee is in what it covers");
}

#[test]
fn the_same_usage_is_the_same_in_all_aws_formats() {
    let (cur, _) = read(CUR_2);
    for (text, format) in [(CUR_LEGACY, BillFormat::AwsCur), (FOCUS, BillFormat::Focus)] {
        let (bill, read) = read(text);
        assert_eq!((read.format, read.bad_rows), (format, vec![]));
        for basis in [Basis::Billed, Basis::Effective] {
            assert_eq!(found(&bill, basis), found(&cur, basis), "{format}");
        }
    }
}

#[test]
fn a_gcp_export_is_net_of_credits_and_the_same_as_json_and_csv() {
    let (json, read_json) = read(GCP_JSON);
    let (csv, read_csv) = read(GCP_CSV);
    assert_eq!((read_json.format, read_json.rows), (BillFormat::GcpJsonLines, 6));
    assert_eq!((read_csv.format, read_csv.rows), (BillFormat::GcpCsv, 6));
    assert_eq!(json.resources(), csv.resources());
    assert_eq!((json.other(), json.period()), (csv.other(), csv.period()));

    let labelled = own(1, "10-10T10", "10-10T11", "2.5");
    let unlabelled =
        OwnCost { cloud_id: Some(CloudId::new("unlabelled")), ..own(2, "10-20T00", "10-20T01", "0.25") };
    let found = compare(&json, "lab", Basis::Billed, [labelled, unlabelled]);
    // 2.933908 - 0.733477 + 0.379332 and the disk: 1.04167e-05.
    assert_eq!(found.instances[&id(1)].cost, usd("2.579773417"));
    assert_eq!(wanted(&found, 1), Some(usd("0.079773417")));
    assert_eq!(found.instances[&id(2)].cost, usd("0.25"), "known by the last part of its name");
    assert_eq!(found.foreign.billed, usd("0.499999"));
}

#[test]
fn what_may_not_be_whole_is_not_corrected() {
    let row = |from: &str, to: &str, tags: &str| {
        format!("1,USD,Usage,,2026-{from}:00:00Z,2026-{to}:00:00Z,{tags}\n")
    };
    let header =
        "BilledCost,BillingCurrency,ChargeCategory,ChargeClass,ChargePeriodStart,ChargePeriodEnd,Tags\n";
    let tag = format!(r#""{{""bursar:instance"":""{}""}}""#, id(1));
    let coverage = |rows: String, own: OwnCost| {
        let (bill, read) = read(&format!("{header}{rows}"));
        assert_eq!(read.bad_rows, []);
        compare(&bill, "lab", Basis::Billed, [own]).instances[&id(1)].coverage
    };
    let life = own(1, "10-10T10", "10-10T11", "1");
    let mine = row("10-10T10", "10-10T11", &tag);

    let closed = row("10-31T23", "11-01T00", "");
    assert_eq!(coverage(format!("{mine}{closed}"), life.clone()), Coverage::Whole);
    let day_later = row("10-11T10", "10-11T11", "");
    assert_eq!(coverage(format!("{mine}{day_later}"), life.clone()), Coverage::Whole);
    let hours_later = row("10-11T09", "10-11T10", "");
    assert_eq!(coverage(format!("{mine}{hours_later}"), life.clone()), Coverage::MayGoOn);
    let whole_month = row("10-01T00", "11-01T00", "");
    assert_eq!(
        coverage(format!("{mine}{whole_month}"), life.clone()),
        Coverage::MayGoOn,
        "billed on the first day"
    );
    assert_eq!(
        coverage(row("10-01T00", "11-01T00", &tag), life.clone()),
        Coverage::MayGoOn,
        "a bill by the month"
    );
    let older = own(1, "10-10T09", "10-10T11", "1");
    let free = OwnCost { period: None, months: [].into(), ..life };
    assert_eq!(coverage(format!("{mine}{closed}"), free), Coverage::NeverCharged);
    assert_eq!(coverage(format!("{mine}{closed}"), older.clone()), Coverage::BeganBefore);
    let of_last_month = row("09-10T10", "09-10T11", "").replace("Usage,,", "Usage,Correction,");
    assert_eq!(coverage(format!("{mine}{closed}{of_last_month}"), older), Coverage::BeganBefore);
}

#[test]
fn a_bill_without_any_tag_of_ours_says_to_activate_them() {
    let untagged = FOCUS.replace("bursar:", "other:");
    let (bill, _) = read(&untagged);
    let found = found(&bill, Basis::Billed);
    assert_eq!(found.unbilled_reason, Some(UnbilledReason::TagsNotActivated));
    assert_eq!(found.instances.keys().copied().collect::<Vec<_>>(), [id(3)], "by its cloud id");
    assert!(found.leaks.is_empty());
}

#[test]
fn what_is_missing_at_a_provider_that_the_bill_does_not_show_is_in_another_bill() {
    let (bill, _) = read(CUR_2);
    let elsewhere = OwnCost { provider: "gcp".into(), ..own(8, "10-15T00", "10-15T02", "2") };
    let found = compare(&bill, "lab", Basis::Billed, ours().into_iter().chain([elsewhere]));
    assert_eq!(found.unbilled.iter().map(|unbilled| unbilled.instance).collect::<Vec<_>>(), [id(5)]);
}

#[test]
fn a_life_over_midnight_of_a_month_is_compared_month_by_month() {
    let header = "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,Tags";
    let tag = format!(r#""{{""bursar:instance"":""{}""}}""#, id(1));
    let row = |cost, from, to, tags| format!("{cost},USD,Usage,2026-{from}:00:00Z,2026-{to}:00:00Z,{tags}\n");
    let rows = [
        row("2", "10-31T23", "11-01T00", tag.as_str()),
        row("1", "11-01T00", "11-01T01", &tag),
        row("9", "11-30T23", "12-01T00", ""),
    ];
    let (bill, _) = read(&format!("{header}\n{}", rows.concat()));
    let month = |month| Month { year: 2026, month };
    let charged = |metered| OwnMonth { metered: usd(metered), corrected: Usd::ZERO };
    let months = [(month(10), charged("1.5")), (month(11), charged("1.5"))].into();
    let own = OwnCost { months, ..own(1, "10-31T23", "11-01T01", "0") };
    let found = compare(&bill, "lab", Basis::Billed, [own]);
    let wanted: Vec<_> = found.instances[&id(1)].wanted_corrections().collect();
    assert_eq!(wanted, [(month(10), usd("0.5")), (month(11), usd("-0.5"))]);
    assert_eq!(found.instances[&id(1)].difference(), Usd::ZERO, "the sum is right as it is");
}

#[test]
fn another_currency_is_refused_by_its_first_line() {
    let euros = FOCUS.replace(",USD,", ",EUR,");
    let message = error(euros.as_bytes()).to_string();
    assert_eq!(message, "line 2: the bill is in EUR, but charges are in USD: have it exported in USD");
}

#[test]
fn a_file_that_is_no_bill_is_told_what_a_bill_needs() {
    let message = error(b"date,amount\n2026-10-01,5\n").to_string();
    assert_eq!(
        message,
        "the bill has the columns date, amount, but FOCUS needs BilledCost, BillingCurrency, ChargeCategory, \
         ChargePeriodStart, ChargePeriodEnd; AWS Cost and Usage Report needs line_item_unblended_cost, \
         line_item_currency_code, line_item_line_item_type, line_item_usage_start_date, line_item_usage_end_date; \
         GCP billing export (CSV) needs cost, currency, usage_start_time, usage_end_time"
    );
    for bytes in [&b""[..], b"\n", b"{\"a\":1}\n", b"{", b"\xff\xfe,x\n"] {
        assert!(matches!(error(bytes), BillError::UnknownFormat { .. } | BillError::Io(_)), "{bytes:?}");
    }
}

#[test]
fn files_that_are_no_text_are_told_how_to_become_one() {
    for (bytes, word) in [
        (&b"PAR1\x15\x04"[..], "Parquet"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"PK\x03\x04", "unzip"),
        (b"[{}]", "jq"),
    ] {
        let error = error(bytes);
        assert!(matches!(error, BillError::NotText { .. }) && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_byte_order_mark_and_broken_rows_do_no_harm() {
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend_from_slice(FOCUS.as_bytes());
    bytes.extend_from_slice(b"too,short\n");
    let start_of_last = bytes.len();
    bytes.extend_from_slice(FOCUS.lines().nth(1).unwrap().as_bytes());
    bytes[start_of_last] = 0xff;
    let mut bill = Bill::default();
    let read = bill.read(&bytes[..], |name| name == "i-0ccc").unwrap();
    assert_eq!((read.rows, read.bad_row_count), (16, 2));
    assert_eq!(bill.total(), self::read(FOCUS).0.total());
}

#[test]
fn a_tax_is_no_cost_of_the_instance_that_it_names() {
    let header = "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ResourceId";
    let row =
        |cost, category| format!("{cost},USD,{category},2026-10-01T00:00:00Z,2026-10-01T01:00:00Z,i-0ccc");
    let (bill, _) = read(&format!("{header}\n{}\n{}\n", row("1", "Usage"), row("0.19", "Tax")));
    assert_eq!(bill.resources()[0].cost().billed, usd("1"));
    assert_eq!(bill.other().billed, usd("0.19"));
}

#[test]
fn resources_whose_names_run_into_their_tags_are_kept_apart() {
    let row = |resource, installation| {
        format!(
            r#"1,USD,Usage,2026-10-01T00:00:00Z,2026-10-01T01:00:00Z,{resource},"{{""bursar:installation"":""{installation}""}}""#
        )
    };
    let header =
        "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ResourceId,Tags";
    let (bill, _) =
        read(&format!("{header}\n{}\n{}\n{}\n", row("vol", "lab"), row("volla", "b"), row("vol", "lab")));
    let rows: Vec<_> = bill.resources().iter().map(|kept| (kept.resource.as_str(), kept.rows)).collect();
    assert_eq!(rows, [("vol", 2), ("volla", 1)]);
}

#[test]
fn bad_rows_are_counted_beyond_those_that_are_kept() {
    let header = FOCUS.lines().next().unwrap();
    let (bill, read) = read(&format!("{header}\n{}", "short,row\n".repeat(250)));
    assert_eq!((read.rows, read.bad_row_count, read.bad_rows.len()), (0, 250, 100));
    assert_eq!(bill.period(), None);
}

#[test]
fn a_quotation_mark_without_its_second_is_not_read_to_the_end() {
    let header = FOCUS.lines().next().unwrap();
    let start = format!("{header}\n\"");
    let endless = std::io::Read::chain(start.as_bytes(), std::io::repeat(b'x'));
    let error = Bill::default().read(endless, |_| false).unwrap_err();
    assert!(matches!(&error, BillError::Io(io) if io.to_string().contains("quotation mark")), "{error:?}");
}
