//! Tests over whole documents: the examples pass, the bad ones say what they should, nothing panics.

mod money;
mod properties;
mod schemas;
mod takeover;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bursar_model::{Deadline, ParamValue, Span, SpotPolicy, Usd};

use crate::{read::read_text, *};

const MACHINE: Machine = Machine { cpus: 4, memory_mib: 8192 };

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The documents of a folder, without the configurations.
fn documents(name: &str, of_config: bool) -> Vec<(String, String)> {
    let mut found: Vec<_> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), read_text(&path).unwrap()))
        .filter(|(file, _)| {
            matches!(file.as_str(), "bursar.yaml" | "config.yaml" | "money.yaml") == of_config
        })
        .collect();
    found.sort();
    found
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn config_of(text: &str) -> Result<Checked<Config>, Problems> {
    load_config(text, Some(Path::new("bursar.yaml")), &env(&[("HOME", "/home/me")]), MACHINE)
}

fn spec_of(text: &str) -> Result<Checked<SpecFile>, Problems> {
    load_spec(text, "exp.yaml", Path::new("/home/me"), None)
}

fn experiment(text: &str) -> bursar_model::ExperimentSpec {
    match spec_of(text).unwrap().value.submission {
        Submission::Experiment { spec, .. } => spec,
        Submission::Sweep { .. } => panic!("this is an experiment"),
    }
}

fn trials(sweep: &str) -> Vec<String> {
    let text = format!("run: x\nsweep:\n{sweep}");
    let Submission::Sweep { spec, .. } = spec_of(&text).unwrap_or_else(|e| panic!("{e}")).value.submission
    else {
        panic!("this is a sweep")
    };
    let text = |(name, value): (&String, &ParamValue)| format!("{name}={value}");
    spec.trials.iter().map(|trial| trial.iter().map(text).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn every_example_passes_without_a_warning() {
    let config = config_of(&read_text(&folder("examples/bursar.yaml")).unwrap()).unwrap();
    assert_eq!(config.warnings, []);
    let specs = documents("examples", false);
    assert_eq!(specs.len(), 2);
    for (file, text) in specs {
        let checked =
            load_spec(&text, &file, Path::new("/"), Some(&config.value)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(checked.warnings, [], "{file}");
    }
}

#[test]
fn bad_documents_say_everything_that_is_wrong_with_them() {
    let config = config_of("projects: {vision: }").unwrap().value;
    for (file, text) in documents("examples/bad", false) {
        let problems = load_spec(&text, &file, Path::new("/"), Some(&config)).unwrap_err();
        insta::assert_snapshot!(file, problems);
    }
    for (file, text) in documents("examples/bad", true) {
        let problems =
            load_config(&text, Some(Path::new(&file)), &env(&[("HOME", "/home/me")]), MACHINE).unwrap_err();
        insta::assert_snapshot!(file, problems);
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let problems = spec_of("run: x\nsecrets: {TOKEN: hunter2}").unwrap_err().to_string();
    assert!(!problems.contains("hunter2") && problems.contains("{env: NAME}"), "{problems}");
    let problems =
        RawSpec::from_json(br#"{"run": "x", "secrets": {"TOKEN": "hunter2"}}"#).unwrap_err().to_string();
    assert!(!problems.contains("hunter2") && problems.contains("{env: NAME}"), "{problems}");
}

#[test]
fn what_is_not_said_has_its_documented_default() {
    let spec = experiment("run: x");
    assert_eq!(spec.project.as_str(), "default");
    assert_eq!(
        (spec.resources.cpus_milli, spec.resources.memory_mib, spec.resources.disk_gib),
        (1000, 1024, 10)
    );
    assert_eq!(
        (spec.spot_policy, spec.priority, spec.retry.limit, spec.num_nodes),
        (SpotPolicy::Auto, 0, 0, 1)
    );
    assert_eq!(spec.checkpoint.grace, Span::from_secs(30));
}

#[test]
fn a_grace_that_is_not_said_fits_what_the_daemon_holds_for_it() {
    let config = config_of("policy: {drain_allowance: 5s}").unwrap().value;
    let read = |text: &str| load_spec(text, "e.yaml", Path::new("/"), Some(&config));
    let Submission::Experiment { spec, .. } = read("run: x").unwrap().value.submission else {
        panic!("no sweep")
    };
    assert_eq!(spec.checkpoint.grace, Span::from_secs(5));
    assert!(read("run: x\ncheckpoint: {grace: 6s}").is_err());
}

#[test]
fn a_grace_fits_into_half_a_lease_with_its_renewal() {
    let config = config_of("policy: {lease: 12s, drain_allowance: 10s, heartbeat: 1s}").unwrap().value;
    let read = |text: &str| load_spec(text, "e.yaml", Path::new("/"), Some(&config));
    let Submission::Experiment { spec, .. } = read("run: x").unwrap().value.submission else {
        panic!("no sweep")
    };
    assert_eq!(spec.checkpoint.grace, Span::from_secs(3), "one that is not said does");
    assert!(read("run: x\ncheckpoint: {grace: 3s}").is_ok());
    let problems = read("run: x\ncheckpoint: {grace: 4s}").unwrap_err().to_string();
    assert_eq!(
        problems,
        "e.yaml:2:21: checkpoint.grace: a grace of 4s takes too much of a lease of 12s that is renewed every 1s\n  \
         hint: at most 3s here, or a policy.lease of the daemon of at least 14s"
    );
}

#[test]
fn a_lease_leaves_room_for_its_renewal_and_a_drain_allowance_for_the_end() {
    assert!(config_of("policy: {lease: 6s, drain_allowance: 3s, heartbeat: 500ms}").is_ok());
    let problems = config_of("policy: {lease: 5s, drain_allowance: 0s, heartbeat: 500ms}").unwrap_err();
    assert_eq!(
        problems.to_string(),
        "bursar.yaml:1:17: policy.lease: a lease of 5s is too short to be renewed at heartbeats of 500ms\n  \
         hint: at least 6s, or a shorter policy.heartbeat\n\
         bursar.yaml:1:38: policy.drain_allowance: 0s does not pay for ending an instance whose agent hangs\n  hint: at least 3s"
    );
}

#[test]
fn a_key_of_a_section_that_stands_outside_is_sent_there() {
    let problems = config_of("lease: 5m").unwrap_err().to_string();
    assert!(problems.contains("did you mean `policy.lease`?"), "{problems}");
    let problems = spec_of("run: x\nmemory: 4").unwrap_err().to_string();
    assert!(problems.contains("did you mean `resources.memory`?"), "{problems}");
}

#[test]
fn a_budget_of_nothing_is_not_sent_to_no_limit() {
    let problems = config_of("budget: {limit: 0}").unwrap_err().to_string();
    assert!(problems.contains("would mean no limit, not nothing"), "{problems}");
}

#[test]
fn numbers_stay_as_they_were_written_where_text_will_do() {
    let spec =
        experiment("run: x\nenvs: {VERSION: 1.10, DEBUG: yes, COUNTRY: NO}\nbudget: 1234567.123456789");
    assert_eq!(spec.envs["VERSION"], "1.10");
    assert_eq!(spec.envs["DEBUG"], "yes");
    assert_eq!(spec.envs["COUNTRY"], "NO");
    assert_eq!(spec.budget.unwrap().limit, Some(Usd::from_nanos(1_234_567_123_456_789)));
}

#[test]
fn a_deadline_is_a_time_or_a_duration() {
    assert_eq!(experiment("run: x\ndeadline: 8h").deadline, Some(Deadline::After(Span::from_hours(8))));
    let at = experiment("run: x\ndeadline: 2026-12-01T18:00:00+01:00").deadline;
    assert_eq!(at, Some(Deadline::At("2026-12-01T17:00:00Z".parse().unwrap())));
}

#[test]
fn a_relative_workdir_counts_from_the_folder_of_the_file() {
    let source = |text: &str| spec_of(text).unwrap().value.source.unwrap();
    let folder = |path: &str| WorkdirSource::Folder(path.into());
    assert_eq!(source("run: x\nworkdir: ./code"), folder("/home/me/code"));
    assert_eq!(source("run: x\nworkdir: ."), folder("/home/me"));
    assert_eq!(source("run: x\nworkdir: /data"), folder("/data"));
    assert!(spec_of("run: x\nworkdir: ~/code").is_err());
}

#[test]
fn the_daemon_takes_json_that_the_command_line_made() {
    let raw = spec_of("run: x\nresources: {accelerators: A100, cpus: 4+}\nretry: 3\nsweep: {matrix: {a: 0..2, b: [x, 1.5]}}")
        .unwrap()
        .value
        .raw;
    let json = serde_json::to_vec(&raw).unwrap();
    assert_eq!(serde_json::from_slice::<RawSpec>(&json).unwrap(), raw, "the fast way takes it");
    assert_eq!(RawSpec::from_json(&json).unwrap(), raw);
}

#[test]
fn json_of_the_wrong_form_is_answered_with_all_problems() {
    let json = br#"{"run": "x", "prioritty": 1, "budget": [3]}"#;
    let Problems(problems) = RawSpec::from_json(json).unwrap_err();
    assert_eq!(problems.iter().map(|p| p.key_path.as_str()).collect::<Vec<_>>(), ["prioritty", "budget"]);
    assert!(RawSpec::from_json(b"\xff{}").unwrap_err().to_string().contains("byte 0"));
    let lenient = RawSpec::from_json(br#"{"run": "x", "name": 5}"#).unwrap();
    assert_eq!(lenient.name.as_deref(), Some("5"), "what only serde refuses is taken as from a file");
}

#[test]
fn asha_says_what_it_misses_and_what_does_not_fit() {
    let read = |asha: &str| {
        spec_of(&format!(
            "run: x\ncheckpoint: {{interval: 1m}}\nsweep: {{matrix: {{a: 0..9}}, asha: {{{asha}}}}}"
        ))
    };
    let Submission::Sweep { spec, .. } =
        read("metric: loss, mode: min, min: 1, max: 27").unwrap().value.submission
    else {
        panic!("this is a sweep")
    };
    let rules = spec.asha.unwrap();
    assert_eq!((rules.resource.as_str(), rules.eta, rules.resources()), ("step", 3, vec![1, 3, 9, 27]));
    let problems = |asha: &str| {
        let Problems(problems) = read(asha).unwrap_err();
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.key_path, problem.message))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        problems(""),
        ["metric", "mode", "min", "max"].map(|key| format!("sweep.asha.{key}: is missing"))
    );
    assert_eq!(
        problems("metric: step, mode: most, eta: 1, min: 9, max: 9"),
        [
            "sweep.asha.metric: `step` is the resource: trials would be compared by how far they are",
            "sweep.asha.mode: `most` is none of min, max",
            "sweep.asha.eta: `1` is not between 2 and 1000",
            "sweep.asha.max: 9 is not more than min, which is 9",
        ]
    );
}

#[test]
fn asha_without_checkpoints_is_warned_of() {
    let asha = "sweep: {matrix: {a: 0..9}, asha: {metric: loss, mode: min, min: 1, max: 9}}";
    let warnings = spec_of(&format!("run: x\n{asha}")).unwrap().warnings;
    assert_eq!(
        warnings.iter().map(|warning| warning.key_path.as_str()).collect::<Vec<_>>(),
        ["checkpoint.interval"]
    );
}

#[test]
fn trials_stand_in_the_order_of_the_names() {
    let found = trials("  matrix: {b: [x, y], a: 0..2}");
    assert_eq!(found, ["a=0 b=x", "a=0 b=y", "a=1 b=x", "a=1 b=y"]);
}

#[test]
fn exclude_leaves_out_and_include_adds() {
    let found = trials(
        "  matrix: {a: [1, 2], b: [x, y]}\n  exclude: [{a: 1.0, b: y}]\n  include: [{a: 2, lr: 0.1}, {a: 3, b: z}, {c: 5}]",
    );
    assert_eq!(found, ["a=1 b=x c=5", "a=2 b=x c=5 lr=0.1", "a=2 b=y c=5 lr=0.1", "a=3 b=z"]);
    assert_eq!(trials("  include: [{a: 3, b: z}]"), ["a=3 b=z"], "a matrix is not needed");
}

#[test]
fn the_same_seed_draws_the_same_trials_for_every_combination() {
    // These very values: a change of the generator would rename the trials of every running sweep.
    let found = trials(
        "  matrix: {lr: {loguniform: [1e-5, 0.1]}, n: {randint: [0, 100]}, opt: [sgd, adam]}\n  samples: 2\n  seed: 42",
    );
    insta::assert_snapshot!("seeded_trials", found.join("\n"));
    let more = trials(
        "  matrix: {lr: {loguniform: [1e-5, 0.1]}, n: {randint: [0, 100]}, opt: [lion, sgd, adam], w: {uniform: [0, 1]}}\n  samples: 3\n  seed: 42",
    );
    let lr = |trial: &str| trial.split(' ').next().unwrap().to_owned();
    assert_eq!(lr(&found[0]), lr(&more[0]), "neither another parameter nor another sample shifts a draw");
    assert_eq!(lr(&found[0]), lr(&found[2]));
}

#[test]
fn a_sweep_of_the_largest_size_is_expanded() {
    assert_eq!(trials("  matrix: {a: 0..1000, b: 0..100}").len(), TRIALS_MAX);
    let hostile: String = (0..2000).map(|n| format!("    p{n}: 0..100000\n")).collect();
    assert!(spec_of(&format!("run: x\nsweep:\n  matrix:\n{hostile}")).is_err());
}

#[test]
fn without_a_file_this_machine_is_on_offer() {
    let config = load_config("", None, &env(&[("HOME", "/home/me")]), MACHINE).unwrap().value;
    assert_eq!(config.data_dir, Path::new("/home/me/.local/state/bursar"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:7733");
    assert!(config.projects.contains_key("default"));
    let ProviderKind::Local(local) = &config.providers["local"].kind else { panic!("it is no cloud") };
    let only = local.types.values().next().unwrap();
    assert_eq!((only.instance_type.cpus_milli, only.instance_type.memory_mib), (4000, 8192));
}

#[test]
fn the_environment_wins_over_the_file() {
    let environment = env(&[
        ("BURSAR_POLICY_LEASE", "90s"),
        ("BURSAR_POLICY_MAX_INSTANCES", "3"),
        ("BURSAR_BUDGET_LIMIT", "7.50"),
        ("BURSAR_DATA_DIR", "/data"),
        ("BURSAR_LISTEN", ""),
        ("BURSAR_CHECKPOINT_DIR", "/not/ours"),
        ("BURSAR_CONFIG", "bursar.yaml"),
        ("BURSAR_POLICY_LEESE", "1s"),
    ]);
    let text = "policy: {lease: 5m, heartbeat: 1s}\nlisten: 127.0.0.1:1";
    let Checked { value, warnings } =
        load_config(text, Some(Path::new("b.yaml")), &environment, MACHINE).unwrap();
    assert_eq!((value.policy.lease, value.policy.max_instances), (Span::from_secs(90), 3));
    assert_eq!(value.budget.unwrap().limit, Some(Usd::from_nanos(7_500_000_000)));
    assert_eq!(value.listen.port(), 1);
    assert_eq!(value.data_dir, Path::new("/data"));
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "BURSAR_POLICY_LEESE: is no variable of the daemon and has no effect\n  hint: did you mean `BURSAR_POLICY_LEASE`?"
        ]
    );
}

#[test]
fn a_wrong_variable_is_reported_under_its_name() {
    let environment =
        env(&[("BURSAR_POLICY_LEASE", "soon"), ("BURSAR_POLICY_MAX_INSTANCES", "many"), ("HOME", "/")]);
    let problems =
        load_config("policy: {lease: 5m}", Some(Path::new("b.yaml")), &environment, MACHINE).unwrap_err();
    let text = problems.to_string();
    assert!(text.contains("BURSAR_POLICY_LEASE: policy.lease: `soon` is not a duration"), "{text}");
    assert!(
        text.contains("BURSAR_POLICY_MAX_INSTANCES: policy.max_instances: expected a whole number"),
        "{text}"
    );
}

#[test]
fn the_default_project_cannot_be_lost_and_others_need_no_budget() {
    let config = config_of("projects:\n  vision:\n  speech: {budget: 5}").unwrap().value;
    assert_eq!(
        config.projects.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["default", "speech", "vision"]
    );
}

#[test]
fn files_that_are_no_documents_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), bytes).unwrap();
        path
    };
    let error = |path: &Path| read_spec(path, None).unwrap_err().to_string();
    assert!(error(&path("huge.yaml", &vec![b'x'; 10_000_000])).contains("larger than 1048576 bytes"));
    assert!(error(&path("latin.yaml", b"run: caf\xe9")).contains("not UTF-8: byte 8"));
    assert!(error(&folder.path().join("none.yaml")).starts_with("there is no file"));
    assert!(error(folder.path()).starts_with("cannot read"));
    let good = path("good.yaml", b"run: x\nworkdir: code");
    let source = read_spec(&good, None).unwrap().value.source.unwrap();
    assert_eq!(source, WorkdirSource::Folder(folder.path().join("code")));
}

#[test]
fn a_file_that_is_not_meant_for_us_does_not_fill_the_terminal() {
    let text: String = (0..5000).map(|n| format!("key{n}: {{run: [1]}}\nlabel{n}: [{n}]\n")).collect();
    let Problems(problems) = spec_of(&text).unwrap_err();
    assert_eq!(problems.len(), 100);
    assert_eq!(problems[0].to_string(), "exp.yaml:1:1: key0: unknown key");
}

#[test]
fn a_configuration_that_was_named_is_not_replaced_by_another() {
    let missing = Path::new("/nowhere/bursar.yaml");
    assert_eq!(read::find_config(Some(missing), &env(&[])).as_deref(), Some(missing));
    assert_eq!(
        read::find_config(None, &env(&[("BURSAR_CONFIG", "/nowhere/bursar.yaml")])).as_deref(),
        Some(missing)
    );
    assert!(matches!(read_config(Some(missing)), Err(ReadError::NotFound(_))));
    let home = tempfile::tempdir().unwrap();
    let here = home.path().to_str().unwrap();
    assert_eq!(read::find_config(None, &env(&[("HOME", here)])), None);
    std::fs::DirBuilder::new().recursive(true).create(home.path().join(".config/bursar")).unwrap();
    let file = home.path().join(".config/bursar/bursar.yaml");
    std::fs::File::create(&file).unwrap();
    assert_eq!(read::find_config(None, &env(&[("HOME", here)])), Some(file));
}

#[test]
fn an_alias_stands_for_what_it_names() {
    let spec = experiment("run: &run python train.py\nsetup: *run");
    assert_eq!(spec.setup.as_deref(), Some("python train.py"));
}
