//! What bad input gets: a clear error that says what to do, and nothing queued.

use bursar_tests::{Installation, installation::QUICK};

/// Submits a file that must be refused as wrong usage, and answers with what the person is told.
fn refused(installation: &Installation, content: impl AsRef<[u8]>) -> String {
    installation.write("bad.yaml", content);
    installation.bursar(&["submit", "bad.yaml"]).with_code(2).stderr
}

#[test]
fn a_broken_spec_is_answered_with_all_its_problems_their_places_and_what_was_meant() {
    let installation = Installation::started(QUICK);
    let told = refused(
        &installation,
        "name: broken\nprojct: lab\nresources:\n  acelerators: A100\n  cpus: many\nmax_duration: soon\nrun: echo hi\n",
    );
    for (place, what) in [
        ("bad.yaml:2:", "did you mean `project`"),
        ("bad.yaml:4:", "did you mean `accelerators`"),
        ("bad.yaml:5:", "resources.cpus"),
        ("bad.yaml:6:", "max_duration"),
    ] {
        assert!(told.contains(place) && told.contains(what), "no {place} or {what} in\n{told}");
    }
    let told = refused(&installation, "name: [unclosed\nrun: echo hi\n");
    assert!(told.contains("bad.yaml:"), "{told}");
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 0);
}

#[test]
fn amounts_that_cannot_be_meant_are_refused() {
    let installation = Installation::started(QUICK);
    for (line, key) in [
        ("budget: 0", "budget"),
        ("budget: -1", "budget"),
        ("max_price: -0.5", "max_price"),
        ("resources: {cpus: -1}", "resources.cpus"),
        ("retry: -1", "retry"),
        ("max_duration: 0s", "max_duration"),
        ("resources: {accelerators: \"A100:0\"}", "resources.accelerators"),
        ("sweep: {matrix: {x: 0..3}, budget: 0}", "sweep.budget"),
        ("sweep: {matrix: {x: []}}", "sweep.matrix.x"),
    ] {
        let told = refused(&installation, format!("name: odd\nrun: echo hi\n{line}\n"));
        assert!(told.contains("bad.yaml:3:") && told.contains(key), "{line}: {told}");
    }
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 0);
}

#[test]
fn an_unknown_project_is_refused_here_and_by_the_daemon() {
    let installation = Installation::started(QUICK);
    let told = refused(&installation, "name: lost\nproject: lap\nrun: echo hi\n");
    assert!(told.contains("bad.yaml:2:") && told.contains("`lap`") && told.contains("lab"), "{told}");
    let body = br#"{"specs": [{"project": "lap", "run": "echo hi"}]}"#;
    let answer = installation.http("POST", "/v1/experiments", body);
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("invalid-spec"), "{answer}");
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 0);
}

#[test]
fn specs_that_are_too_large_or_no_text_are_refused_here_and_by_the_daemon() {
    let installation = Installation::started(QUICK);
    let large = format!("name: large\nrun: |\n  echo {}\n", "x".repeat(10 << 20));
    let told = refused(&installation, &large);
    assert!(told.contains("bad.yaml is larger than 1048576 bytes; put data into files"), "{told}");
    let told = refused(&installation, b"name: odd\nrun: echo \xff\xfe\n");
    assert!(told.contains("bad.yaml is not UTF-8: byte 20 is the first wrong one"), "{told}");

    let send = |run: &str| {
        let body = format!(r#"{{"specs": [{{"run": "{run}"}}]}}"#);
        installation.http("POST", "/v1/experiments", body.as_bytes())
    };
    let answer = send(&"x".repeat(10 << 20));
    assert!(answer.starts_with("HTTP/1.1 413"), "{}", &answer[..answer.len().min(500)]);
    assert!(answer.contains("put data into files in the working folder"), "{answer}");
    let answer = send(&"x".repeat(20 << 20));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = installation.http("POST", "/v1/experiments", b"{\"specs\": [{\"run\": \"\xff\"}]}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer = installation.http("POST", "/v1/experiments", b"{\"specs\": [");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid-json"), "{answer}");
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_broken_configuration_is_answered_with_all_its_problems() {
    let installation = Installation::new(
        "budget: {limit: -3}\nprojects: {lab: {budget: 0}}\npolicy: {leese: 5m, heartbeat: 1h}\n\
         providers:\n  local:\n    type: locl\n    types: {small: {cpus: 1, spot: -1}}\n",
    );
    for command in [&["serve"][..], &["config", "check"]] {
        let said = installation.bursar(command).with_code(2);
        for what in [
            "budget.limit",
            "projects.lab.budget",
            "did you mean `lease`",
            "did you mean `local`",
            "types.small.spot",
        ] {
            assert!(said.stderr.contains(what), "no {what} in\n{}", said.stderr);
        }
    }
    assert!(!installation.path("data").exists(), "nothing was begun");
}

#[test]
fn what_is_not_there_and_what_is_not_meant_have_exit_codes_of_their_own() {
    let installation = Installation::started(QUICK);
    for (code, command) in [
        (4, &["show", "nobody"][..]),
        (4, &["logs", "nobody"]),
        (4, &["cancel", "nobody"]),
        (4, &["explain", "nobody"]),
        (4, &["submit", "nothing.yaml"]),
        (4, &["ls", "--config", "nothing.yaml"]),
        (2, &["submit"]),
        (2, &["frobnicate"]),
        (2, &["report", "--by", "weather"]),
        (2, &["report", "--since", "yesterday-ish"]),
        (5, &["ls", "--url", "http://127.0.0.1:1"]),
    ] {
        let said = installation.bursar(command).with_code(code);
        assert!(said.stdout.is_empty(), "{command:?}: {said:?}");
        assert!(said.stderr.contains("error: "), "{command:?}: {said:?}");
    }
}
