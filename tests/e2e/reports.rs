//! Reports as people take them away: pages, markdown, files, and periods in words.

use bursar_tests::{
    Installation,
    installation::{QUICK, text},
    nanos,
};

/// An installation on which two projects have spent something.
fn with_spending() -> Installation {
    let installation = Installation::started(QUICK);
    let first = installation.submit("name: ours\nproject: lab\nrun: sleep 0.3\n");
    let second = installation.submit("name: a-name\nrun: sleep 0.2\n");
    let _ = installation.until_state(&first, "succeeded");
    let _ = installation.until_state(&second, "succeeded");
    installation.until_empty();
    installation
}

#[test]
fn a_page_of_the_daemon_and_of_the_store_show_the_same_sums() {
    let mut installation = with_spending();
    let json = installation.json(&["report"]);
    let spent = nanos(&json["total"]["cost"]);
    assert!(spent > 0, "{json:#}");
    let answer = installation.http("GET", "/v1/report.html?by=project", b"");
    assert!(answer.contains("content-type: text/html; charset=utf-8"), "{answer:.400}");
    let said = installation.bursar(&["report", "--format", "html", "--output", "spend.html"]).with_code(0);
    assert!(said.stdout.is_empty(), "{said:#?}");
    let page = std::fs::read_to_string(installation.path("spend.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    for shown in ["ours", "a-name", "lab", "installation", "Spend over time"] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(page.contains("failed attempts"));

    let markdown = installation.bursar(&["report", "--format", "markdown"]).with_code(0).stdout;
    installation.stop();
    let of_store = installation.bursar(&["report", "--format", "markdown"]).with_code(0).stdout;
    let without_the_time = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains(" as of ")).map(str::to_owned).collect()
    };
    assert!(markdown.starts_with("## Spend\n"), "{markdown}");
    assert_eq!(without_the_time(&markdown), without_the_time(&of_store));
    let _ = installation.bursar(&["report", "--format", "html", "--output", "late.html"]).with_code(0);
    assert!(installation.path("late.html").exists());
}

#[test]
fn a_period_is_named_in_words_and_a_wrong_one_is_answered_with_those() {
    let installation = with_spending();
    let spent =
        |arguments: &[&str]| nanos(&installation.json(&[&["report"], arguments].concat())["total"]["cost"]);
    let all = spent(&[]);
    for since in ["month", "7d", "1h", "last-year"] {
        assert_eq!(spent(&["--since", since]), all, "{since}");
    }
    assert_eq!(spent(&["--since", "last-month", "--until", "last-month"]), 0);
    assert_eq!(spent(&["--until", "2026-01-01"]), 0);
    let refused = installation.bursar(&["report", "--since", "fortnight"]).with_code(2);
    assert!(refused.stderr.contains("since: `fortnight` is no time"), "{refused:#?}");
    assert!(refused.stderr.contains("last-month"), "{refused:#?}");
    let by_user = installation.json(&["report", "--user", "nobody-of-this-name"]);
    assert_eq!(text(&by_user["total"]["cost"]), "0");
    let unwritable = installation.bursar(&["report", "--output", "no/such/folder.csv"]).with_code(1);
    assert!(unwritable.stderr.contains("cannot write no/such/folder.csv"), "{unwritable:#?}");
}
