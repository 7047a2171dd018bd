//! Who is told what: webhooks and the reports that are sent to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use super::words;
use crate::{
    config::{NotificationKind, Notifications, ScheduledReport, Webhook, WebhookFormat},
    problem::{Problem, Report, did_you_mean, shortened},
    raw::{OneOrMany, RawNotifications, RawReport, RawWebhook},
};

/// What reports are by, as `bursar report --by` has it; labels besides.
const DIMENSIONS: [&str; 12] = [
    "experiment",
    "sweep",
    "project",
    "user",
    "provider",
    "region",
    "instance-type",
    "capacity-type",
    "category",
    "day",
    "week",
    "month",
];

const EVENTS: [(&str, NotificationKind); 6] = [
    ("threshold", NotificationKind::Threshold),
    ("exhausted", NotificationKind::Exhausted),
    ("forecast", NotificationKind::Forecast),
    ("anomaly", NotificationKind::Anomaly),
    ("idle-gpu", NotificationKind::IdleGpu),
    ("report", NotificationKind::Report),
];

/// Who is told what. What is wrong is reported and left out.
pub(super) fn check_notifications(report: &mut Report, raw: RawNotifications) -> Notifications {
    let RawNotifications { webhooks: raw_webhooks, reports: raw_reports } = raw;
    let names: BTreeSet<String> = raw_webhooks.keys().cloned().collect();
    let mut webhooks = BTreeMap::new();
    for (name, raw) in raw_webhooks {
        let path = format!("notifications.webhooks.{name}");
        words::name(report, &path, &name);
        webhooks.extend(check_webhook(report, &path, raw).map(|webhook| (name, webhook)));
    }
    let mut reports: Vec<ScheduledReport> = Vec::new();
    for (index, raw) in raw_reports.into_iter().enumerate() {
        let path = format!("notifications.reports[{index}]");
        let name = raw.name.clone().unwrap_or_else(|| format!("report-{}", index + 1));
        words::name(report, &format!("{path}.name"), &name);
        if reports.iter().any(|other| other.name == name) {
            let message = format!("there is another report of the name `{}`", shortened(&name));
            report.error(Problem::new(format!("{path}.name"), message));
        }
        reports.extend(check_report(report, &path, name, raw, &names));
    }
    Notifications { webhooks, reports }
}

fn check_webhook(report: &mut Report, path: &str, raw: RawWebhook) -> Option<Webhook> {
    let RawWebhook { url, format, secret, events } = raw;
    let at = |key: &str| format!("{path}.{key}");
    let formats = [("plain", WebhookFormat::Plain), ("slack", WebhookFormat::Slack)];
    let format = format.and_then(|text| words::word(report, &at("format"), &text, &formats));
    let secret = secret.and_then(|secret| words::secret(report, &at("secret"), secret));
    let events = check_events(report, &at("events"), events);
    // The address is never repeated: whoever knows that of a chat can write there.
    match &url {
        None => report.error(Problem::new(at("url"), "is missing")),
        Some(url) if !is_web_address(url) => {
            let problem = Problem::new(at("url"), "is no web address that messages can be sent to");
            report.error(problem.hint("write `https://` or `http://`, a host and a path"));
        }
        Some(_) => {}
    }
    Some(Webhook { url: url?, format: format.unwrap_or(WebhookFormat::Plain), secret, events })
}

fn check_events(report: &mut Report, path: &str, written: Option<OneOrMany>) -> BTreeSet<NotificationKind> {
    let Some(OneOrMany(words)) = written else { return EVENTS.iter().map(|(_, kind)| *kind).collect() };
    if words.is_empty() {
        let problem = Problem::new(path, "names no event, so nothing would ever be sent");
        report.error(problem.hint("to leave the key out means all"));
    }
    let words = words.iter().enumerate();
    words
        .filter_map(|(index, word)| words::word(report, &format!("{path}[{index}]"), word, &EVENTS))
        .collect()
}

fn check_report(
    report: &mut Report,
    path: &str,
    name: String,
    raw: RawReport,
    webhooks: &BTreeSet<String>,
) -> Option<ScheduledReport> {
    let RawReport { name: _, schedule, timezone, by, to } = raw;
    let at = |key: &str| format!("{path}.{key}");
    let by = by.unwrap_or_else(|| "project".to_owned());
    if by.trim().is_empty() {
        report.error(Problem::new(at("by"), "is empty").hint("to leave the key out means `project`"));
    }
    for name in by.split(',').map(str::trim).filter(|name| !name.is_empty() && !name.starts_with("label:")) {
        // A report that cannot be made would stand in the way of everything else that its webhooks are told.
        if !DIMENSIONS.contains(&name) {
            let problem =
                Problem::new(at("by"), format!("`{}` is nothing that a report is by", shortened(name)));
            let hint = did_you_mean(name, DIMENSIONS.iter().copied());
            report.error(problem.maybe_hint(hint));
        }
    }
    let to = check_recipients(report, &at("to"), to, webhooks);
    let Some(schedule) = schedule else {
        let problem = Problem::new(at("schedule"), "is missing");
        report.error(problem.hint("say when it is sent, such as `schedule: 0 8 * * mon` for Mondays at 8"));
        return None;
    };
    let schedule = words::schedule(report, &at("schedule"), &schedule, &at("timezone"), timezone.as_deref())?;
    Some(ScheduledReport { name, schedule, by, to })
}

/// The webhooks that a report is sent to, each once.
fn check_recipients(
    report: &mut Report,
    path: &str,
    written: Option<OneOrMany>,
    webhooks: &BTreeSet<String>,
) -> Vec<String> {
    let names = written.map(|names| names.0).unwrap_or_default();
    if names.is_empty() {
        let problem = Problem::new(path, "names no webhook to send it to");
        report.error(problem.hint("name some of notifications.webhooks, such as `to: [team]`"));
    }
    let mut to = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        if !webhooks.contains(&name) {
            let hint = did_you_mean(&name, webhooks.iter().map(String::as_str));
            let message = format!("there is no webhook `{}`", shortened(&name));
            report.error(Problem::new(format!("{path}[{index}]"), message).maybe_hint(hint));
        } else if !to.contains(&name) {
            to.push(name);
        }
    }
    to
}

/// Whether it is `http` or `https` with a host, perhaps a port, and nothing that would need to be escaped (RFC 3986). A
/// name and a password before the host are refused: they belong into `secret`.
fn is_web_address(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand within its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
    };
    is_host
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && url.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_address_has_a_scheme_and_a_host() {
        for url in [
            "https://hooks.slack.com/services/T0/B0/x",
            "http://localhost:8080",
            "http://[::1]:9000/hook?team=a#b",
            "https://10.0.0.7",
        ] {
            assert!(is_web_address(url), "{url}");
        }
        for url in [
            "hooks.slack.com/services",
            "ftp://example.org/",
            "https://",
            "https:///path",
            "https://:443/",
            "https://host:/",
            "https://host:0/",
            "https://host:99999/",
            "https://[::1/",
            "https://me:word@example.org/",
            "https://example.org/a b",
            "https://example.org/ä",
            "",
        ] {
            assert!(!is_web_address(url), "{url}");
        }
    }
}
