//! A letter as the bytes that travel, in the form that the webhook takes, and their signature.

use bursar_config::WebhookFormat;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::letter::Letter;
use crate::{reports::figures, secrets::hex};

/// The body of a request.
pub(super) fn body(letter: &Letter, format: WebhookFormat) -> Vec<u8> {
    let body = match format {
        WebhookFormat::Plain => plain(letter),
        WebhookFormat::Slack => slack(letter),
    };
    serde_json::to_vec(&body).expect("JSON values have text keys")
}

/// `v1=` and the HMAC-SHA256 of `{timestamp}.{body}` in hex. With the moment in it, what somebody recorded cannot be
/// played again much later.
pub(super) fn signature(secret: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length (RFC 2104)");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}

fn plain(letter: &Letter) -> Value {
    let Letter { id, kind, at, installation, title, text, table, data } = letter;
    let text = table.as_ref().map_or_else(|| text.clone(), |table| format!("{text}\n\n{table}"));
    json!({
        "id": id, "kind": kind, "at": at, "installation": installation, "title": title, "text": text, "data": data,
    })
}

/// An incoming webhook's message (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>). `text` has
/// all of it again, for those that speak like Slack and know no blocks.
fn slack(letter: &Letter) -> Value {
    let Letter { id: _, kind: _, at, installation, title, text, table, data: _ } = letter;
    let said = format!("*{}*\n{}", escaped(title), escaped(text));
    // Three backquotes would end the block.
    let table = table.as_ref().map(|table| format!("```\n{}\n```", escaped(&table.replace('`', "'"))));
    let section = |text: &str| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } });
    let mut blocks = vec![section(&said)];
    blocks.extend(table.as_deref().map(section));
    let origin = format!("bursar · {} · {}", escaped(installation), figures::moment(*at));
    blocks.push(json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": origin }] }));
    let whole = table.map_or_else(|| said.clone(), |table| format!("{said}\n{table}"));
    json!({ "text": whole, "blocks": blocks })
}

/// The three characters by which Slack's markup goes (<https://docs.slack.dev/messaging/formatting-message-text>).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bursar_model::{
        BudgetAlert, BudgetKey, IdGen, Notification, NotificationAbout, NotificationState, Period, Timestamp,
        Usd,
    };

    use super::*;
    use crate::{
        notify::letter,
        views::{ReportLine, ReportView},
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn notification(about: NotificationAbout) -> Notification {
        let at = at("2026-11-22T15:42:00Z");
        Notification {
            id: IdGen::new(7).notification(at),
            at,
            to: "team".to_owned(),
            about,
            state: NotificationState::Waiting,
            backoff: Default::default(),
            error: None,
        }
    }

    fn of_vision(alert: BudgetAlert) -> Letter {
        let about = NotificationAbout::Budget {
            key: BudgetKey::Project("vision".into()),
            name: None,
            alert,
            limit: Some(usd("12500")),
            spent: usd("10000.000000001"),
            held: usd("3.5"),
            window: Some(Period::new(at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"))),
        };
        letter::of_itself(&notification(about), "lab").unwrap()
    }

    fn a_report(projects: usize) -> Letter {
        let line = |keys: Vec<String>, cost, on_demand_cost| ReportLine {
            keys,
            cost,
            contracted_cost: cost,
            list_cost: cost,
            on_demand_cost,
            expected_cost: None,
            by_category: BTreeMap::new(),
            seconds: 0.0,
        };
        let rows: Vec<_> = (1..=projects)
            .map(|n| {
                let cost = Usd::from_dollars(n as i64 * 100);
                line(vec![format!("project-{n}")], cost, cost + cost)
            })
            .collect();
        let cost: Usd = rows.iter().map(|row| row.cost).sum();
        let view = ReportView {
            by: vec!["project".to_owned()],
            rows,
            total: line(Vec::new(), cost, cost + cost),
            names: BTreeMap::new(),
        };
        let period = Period::new(at("2026-11-16T08:00:00Z"), at("2026-11-23T08:00:00Z"));
        let (name, by) = ("weekly".to_owned(), "project".to_owned());
        let about = NotificationAbout::Report { name, by, period };
        letter::of_report(&notification(about), "lab", "weekly", period, &view)
    }

    fn shown(letter: &Letter, format: WebhookFormat) -> String {
        let value: Value = serde_json::from_slice(&body(letter, format)).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    }

    #[test]
    fn a_plain_body_has_every_number_to_the_nano_dollar() {
        insta::assert_snapshot!(shown(
            &of_vision(BudgetAlert::Threshold { percent: 80 }),
            WebhookFormat::Plain
        ));
    }

    #[test]
    fn every_alert_says_what_happened() {
        let mut text = String::new();
        for alert in [
            BudgetAlert::Threshold { percent: 80 },
            BudgetAlert::Exhausted,
            BudgetAlert::Forecast { breach_at: at("2026-11-25T09:30:00Z") },
            BudgetAlert::Anomaly { expected: usd("2"), high: usd("4") },
        ] {
            let letter = of_vision(alert);
            text += &format!("{}: {}\n  {}\n  {}\n", letter.kind, letter.title, letter.text, letter.data);
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn slack_gets_a_bold_title_and_a_table_of_fixed_width() {
        insta::assert_snapshot!(shown(&a_report(3), WebhookFormat::Slack));
    }

    #[test]
    fn a_long_report_shows_its_most_expensive_rows_and_sums_up_the_others() {
        let letter = a_report(300);
        let table = letter.table.clone().unwrap();
        insta::assert_snapshot!(table);
        assert_eq!(table.lines().count(), 23);
        let slack = body(&letter, WebhookFormat::Slack);
        let slack: Value = serde_json::from_slice(&slack).unwrap();
        let longest = slack["blocks"].as_array().unwrap().iter().map(|block| block.to_string().len()).max();
        assert!(longest.unwrap() < 3000, "Slack refuses a longer block");
    }

    #[test]
    fn names_cannot_write_markup() {
        let letter = Letter {
            title: "<!channel> & more".to_owned(),
            table: Some("``` <b>".to_owned()),
            ..of_vision(BudgetAlert::Exhausted)
        };
        let text: Value = serde_json::from_slice(&body(&letter, WebhookFormat::Slack)).unwrap();
        let text = text["text"].as_str().unwrap();
        assert!(text.starts_with("*&lt;!channel&gt; &amp; more*\n"), "{text}");
        assert!(text.ends_with("```\n''' &lt;b&gt;\n```"), "{text}");
    }

    #[test]
    fn a_signature_is_that_of_rfc_2104() {
        // echo -n '1795362120.{"a":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            signature("key", 1_795_362_120, br#"{"a":1}"#),
            "v1=0264f870e11293a7f7a0562a27127c5370de3010ef22e6154f6a413d5c6868cf"
        );
    }
}
