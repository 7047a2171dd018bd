//! For any text: no panic, and what was written is what is read.

use bursar_model::ParamValue;
use proptest::prelude::*;

use super::{config_of, schemas::full_spec, spec_of};
use crate::raw::*;

fn param() -> impl Strategy<Value = ParamValue> {
    prop_oneof![
        any::<i64>().prop_map(ParamValue::Int),
        (-1e300..1e300).prop_map(ParamValue::Float),
        any::<bool>().prop_map(ParamValue::Bool),
        text().prop_map(ParamValue::Text),
    ]
}

/// Text that YAML would like to read as something else, among plain text.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        "\\PC{0,8}",
        prop::sample::select(vec![
            "yes", "no", "null", "~", "1.0", "0x1f", "1e3", "- a", "a: b", "# c", "", " x ", "a\nb\n", "'",
            "\""
        ])
        .prop_map(str::to_owned),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z_][a-zA-Z0-9_]{0,8}", text()]
}

fn dimension() -> impl Strategy<Value = RawDimension> {
    let floats = || prop::option::of(prop::collection::vec(-1e9..1e9, 0..4));
    prop_oneof![
        prop::collection::vec(param(), 0..4).prop_map(RawDimension::Values),
        text().prop_map(RawDimension::Range),
        (floats(), floats(), floats()).prop_map(|(linspace, logspace, uniform)| {
            RawDimension::Space(RawSpace { linspace, logspace, uniform, ..RawSpace::default() })
        }),
    ]
}

fn spec() -> impl Strategy<Value = RawSpec> {
    let texts = || prop::option::of(text());
    let numbers = || prop::option::of(text().prop_map(Written));
    let thresholds = prop::option::of(prop::collection::vec(any::<i64>(), 0..4));
    let budget = (numbers(), thresholds, texts()).prop_map(|(limit, thresholds, on_exhausted)| {
        LimitOr(RawWorkBudget { limit, thresholds, on_exhausted })
    });
    let head = (texts(), texts(), prop::option::of(budget), numbers(), any::<Option<i64>>());
    let maps = (
        prop::collection::btree_map(name(), text().prop_map(Written), 0..4),
        prop::collection::btree_map(name(), dimension(), 0..4),
        prop::collection::vec(prop::collection::btree_map(name(), param(), 1..3), 0..3),
        prop::collection::vec(text(), 0..3),
    );
    (head, maps).prop_map(
        |((run, deadline, budget, cpus, priority), (envs, matrix, include, accelerators))| RawSpec {
            run,
            deadline,
            budget: budget.clone(),
            priority,
            envs,
            resources: Some(RawResources {
                accelerators: Some(OneOrMany(accelerators)),
                cpus,
                ..RawResources::default()
            }),
            sweep: Some(RawSweep { matrix, include, budget, ..RawSweep::default() }),
            ..full_spec()
        },
    )
}

/// Texts of the words and signs that documents are made of, so that most get past the parser.
fn yamlish() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "run",
        "name",
        "resources",
        "sweep",
        "matrix",
        "policy",
        "budget",
        "per",
        "thresholds",
        "notifications",
        "webhooks",
        "reports",
        "discounts",
        "providers",
        "local",
        "type",
        "types",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "&a ",
        "*a",
        "!!str ",
        "\"",
        "'",
        "| ",
        "#",
        "0..4",
        "A100:1",
        "-1",
        "1e999",
        ".nan",
        "~",
        "5m",
        "---",
        "\t",
        "é",
        "\u{feff}",
        "<<",
        "?",
        "x",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn what_was_written_as_yaml_is_read_back(raw in spec()) {
        let yaml = serde_saphyr::to_string(&raw).unwrap();
        let mut document = crate::load::Document::parse(&yaml, None).map_err(|e| TestCaseError::fail(format!("{e}\n{yaml}")))?;
        let read: RawSpec = document.read(&crate::schema_experiment());
        prop_assert!(document.problems.is_empty(), "{:?}\n{}", document.problems, yaml);
        prop_assert_eq!(read, raw, "{}", yaml);
    }

    #[test]
    fn what_was_written_as_json_is_read_back_either_way(raw in spec()) {
        let json = serde_json::to_string(&raw).unwrap();
        prop_assert_eq!(&serde_json::from_str::<RawSpec>(&json).unwrap(), &raw);
        let mut document = crate::load::Document::parse(&json, None).map_err(|e| TestCaseError::fail(format!("{e}\n{json}")))?;
        let read: RawSpec = document.read(&crate::schema_experiment());
        prop_assert!(document.problems.is_empty(), "{:?}\n{}", document.problems, json);
        prop_assert_eq!(read, raw, "{}", json);
    }

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![yamlish(), any::<String>(), "\\PC{0,60}"]) {
        let _ = spec_of(&text);
        let _ = config_of(&text);
        let _ = config_of(&format!("providers: {{a: {{types: {{b: {text}}}}}}}"));
        let _ = config_of(&format!("budget: {{limit: {text}, per: {text}, timezone: {text}}}"));
        let _ = config_of(&format!("notifications: {{webhooks: {{a: {{url: {text}}}}}, reports: [{text}]}}"));
        let _ = config_of(&format!("pricing: {{discounts: [{{percent: {text}}}]}}"));
        let _ = spec_of(&format!("run: x\nbudget: {text}"));
        let _ = spec_of(&format!("run: x\nsweep: {{matrix: {{a: {text}}}}}"));
        let _ = spec_of(&format!("run: x\nresources: {{accelerators: {text}, cpus: {text}}}"));
    }

    #[test]
    fn no_value_makes_checking_panic(raw in spec()) {
        let _ = raw.check(None);
    }

    #[test]
    fn no_bytes_over_the_wire_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = RawSpec::from_json(&bytes);
    }
}

#[test]
fn every_key_may_be_written_at_once() {
    let yaml = serde_saphyr::to_string(&full_spec()).unwrap();
    let problems = spec_of(&yaml).unwrap_err().to_string();
    assert!(!problems.contains("unknown key") && !problems.contains("expected"), "{problems}");
}
