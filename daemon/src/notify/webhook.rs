//! Webhooks over HTTP: one POST, bounded in time, whose answer says whether it was taken.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bursar_config::{Config, Notifications, Webhook};
use bursar_model::{Clock, Notification, NotificationAbout, NotificationId, Span, Timestamp};
use bursar_store::Reader;
use reqwest::{Response, StatusCode, header, redirect};
use serde::{Deserialize, Serialize};

use super::{
    Courier, Undelivered,
    body::{body, signature},
    letter::{self, Letter},
};
use crate::{
    reconciler::chain,
    secrets,
    views::{ReportWanted, Views},
};

/// How long an answer may take, all in all: whoever takes longer has the message in a queue by then, or is down.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a refusal that are read: it says in a few words what is wrong.
const REFUSAL_MAX: usize = 200;

/// Delivers to webhooks.
#[derive(Debug)]
pub struct HttpCourier {
    /// For `http://`. The roots to verify certificates by are some hundred; a daemon that needs none starts without them.
    plain: reqwest::Client,
    /// For `https://`, made for the first configuration that has such a webhook.
    verifying: OnceLock<reqwest::Client>,
    installation: String,
    reader: Reader,
    clock: Arc<dyn Clock>,
}

/// What came of a test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestAnswer {
    /// The webhook.
    pub webhook: String,
    /// The id that the message had.
    pub id: NotificationId,
    /// Whether it was taken.
    pub delivered: bool,
    /// What came back, for people.
    pub detail: String,
}

impl HttpCourier {
    /// A courier to the webhooks of this configuration. Reports are read from the store as they are sent.
    ///
    /// # Errors
    /// When the system has no certificates to verify others by.
    pub fn new(config: &Config, reader: Reader, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let plain = client().tls_certs_only([]).build()?;
        let installation = config.installation.clone();
        let courier = Self { plain, verifying: OnceLock::new(), installation, reader, clock };
        courier.prepare_for(&config.notifications)?;
        Ok(courier)
    }

    /// Makes sure that these webhooks can be reached, before somebody goes by a configuration that names them.
    ///
    /// # Errors
    /// When the system has no certificates to verify others by.
    pub fn prepare_for(&self, notifications: &Notifications) -> Result<(), reqwest::Error> {
        let is_verified = notifications.webhooks.values().any(|webhook| !is_plain(webhook));
        if is_verified && self.verifying.get().is_none() {
            // Another may have been made meanwhile: they are the same.
            let _ = self.verifying.set(client().build()?);
        }
        Ok(())
    }

    /// Sends a test to a webhook, past the outbox: what comes back is the answer.
    pub async fn test(&self, name: &str, webhook: &Webhook, id: NotificationId) -> TestAnswer {
        let letter = letter::test(id, self.clock.now(), &self.installation, name);
        let sent = self.send(webhook, &letter).await;
        let delivered = sent.is_ok();
        let detail = sent.map_or_else(|failed| failed.error, |status| format!("it answered {status}"));
        TestAnswer { webhook: name.to_owned(), id, delivered, detail }
    }

    async fn letter(&self, notification: &Notification) -> Result<Letter, Undelivered> {
        let NotificationAbout::Report { name, by, period } = &notification.about else {
            let letter = letter::of_itself(notification, &self.installation);
            return letter.ok_or_else(|| refused("there is nothing to say of it".to_owned()));
        };
        let wanted = ReportWanted {
            by: Some(by.clone()),
            since: Some(period.from.to_string()),
            until: Some(period.to.to_string()),
            ..ReportWanted::default()
        };
        let views = Views::new(self.reader.clone(), Arc::default(), self.clock.now());
        // A report that begins within a day adds up all its charges.
        let read = tokio::task::spawn_blocking(move || views.report(&wanted)).await;
        let failed = |error: &dyn std::error::Error| Undelivered {
            error: format!("the report could not be made: {}", chain(error)),
            refused: false,
            retry_after: None,
        };
        let view = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(letter::of_report(notification, &self.installation, name, *period, &view))
    }

    async fn send(&self, webhook: &Webhook, letter: &Letter) -> Result<StatusCode, Undelivered> {
        let body = body(letter, webhook.format);
        let now = self.clock.now();
        let timestamp = now.as_millis() / 1000;
        // One that nobody prepared for is refused for its certificate, which is the safe side.
        let http = if is_plain(webhook) { &self.plain } else { self.verifying.get().unwrap_or(&self.plain) };
        let mut request = http
            .post(&webhook.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("bursar-delivery", letter.id.to_string())
            .header("bursar-timestamp", timestamp.to_string());
        if let Some(secret) = &webhook.secret {
            let secret = secrets::read(secret).await.map_err(|why| Undelivered {
                error: format!("the key to sign with could not be read: {why}"),
                refused: false,
                retry_after: None,
            })?;
            request = request.header("bursar-signature", signature(&secret, timestamp, &body));
        }
        match request.body(body).send().await {
            Ok(response) if response.status().is_success() => Ok(response.status()),
            Ok(response) => Err(not_taken(response, now).await),
            Err(error) => Err(Undelivered {
                error: if error.is_timeout() {
                    format!("no answer within {} s", PATIENCE.as_secs())
                } else {
                    chain(&error.without_url())
                },
                refused: false,
                retry_after: None,
            }),
        }
    }
}

#[async_trait]
impl Courier for HttpCourier {
    async fn deliver(&self, to: &Webhook, notification: &Notification) -> Result<(), Undelivered> {
        let letter = self.letter(notification).await?;
        self.send(to, &letter).await.map(|_| ())
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("bursar/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        .connect_timeout(CONNECT_PATIENCE)
        // Whoever can redirect could have our messages sent anywhere, signed.
        .redirect(redirect::Policy::none())
        .no_proxy()
}

fn is_plain(webhook: &Webhook) -> bool {
    webhook.url.starts_with("http://")
}

fn refused(error: String) -> Undelivered {
    Undelivered { error, refused: true, retry_after: None }
}

/// What an answer other than 2xx means. 408, 425 and 429 say "later", all other 4xx "never"; so does a redirection, since
/// none is followed. 5xx is trouble on the other side.
async fn not_taken(response: Response, now: Timestamp) -> Undelivered {
    let status = response.status();
    let is_later =
        matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| retry_after(text, now));
    let mut error = format!("it answered {status}");
    if status.is_redirection() {
        error += ", and redirections are not followed";
    }
    let said = beginning(response).await;
    if !said.is_empty() {
        error += &format!(": {said}");
    }
    Undelivered { error, refused: !is_later && !status.is_server_error(), retry_after }
}

/// The beginning of a body, as one line.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    // Ends at the bound, at the end of the body, or when time is up.
    while bytes.len() < REFUSAL_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(REFUSAL_MAX);
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

/// `Retry-After` in either of its forms: seconds, or a date as HTTP writes it (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Span> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Span::from_secs(seconds.into()));
    }
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let at: Timestamp = format!("{year}-{month:02}-{day}T{time}Z").parse().ok()?;
    Some(at.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Span::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Span::from_secs(37)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Span::ZERO));
        for nonsense in ["", "-1", "soon", "Sun, 06 Nov 1994 08:49:37 CET", "a b c d e GMT"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }
}
