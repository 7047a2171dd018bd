//! The metadata server of Compute Engine: `instance/preempted` turns `TRUE`, and `instance/maintenance-event` says that
//! the host will be serviced.
//!
//! <https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption>,
//! <https://cloud.google.com/compute/docs/metadata/querying-metadata> and
//! <https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice>.

use std::time::Duration;

use bursar_model::Span;
use reqwest::Client;

use super::{ANSWER_TIMEOUT, News, Notice, NoticeError, body};
use crate::wall_clock;

/// Between two looks, over the time for which the server holds an answer back: only so that one that holds nothing back is
/// not asked without pause.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// For how long the server may hold an answer back in wait of a change. The maintenance event is asked for each time anew.
const WAIT: Duration = Duration::from_secs(10);

/// From the preemption to the hard end.
const NOTICE: Span = Span::from_secs(30);

/// What tells the server of Compute Engine from any other that answers at its address, and us from a page in a browser.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

pub(super) struct Service {
    client: Client,
    endpoint: String,
    /// Of the last answer about the preemption: until that differs, the next is held back.
    etag: Option<String>,
}

impl Service {
    pub(super) fn new(client: Client, endpoint: &str) -> Self {
        Self { client, endpoint: endpoint.trim_end_matches('/').to_owned(), etag: None }
    }

    /// The preemption, or else a maintenance that ends the instance.
    pub(super) async fn look(&mut self) -> Result<Option<News>, NoticeError> {
        let wait = self.etag.take();
        // Side by side: neither is to wait for the other's failure.
        let (preempted, maintenance) = tokio::join!(
            self.value("instance/preempted", wait.as_deref()),
            self.value("instance/maintenance-event", None),
        );
        let preempted = preempted?;
        self.etag = preempted.etag;
        match preempted.text.trim() {
            "TRUE" => Ok(Some(News::Gone(Notice { gone_at: wall_clock() + NOTICE }))),
            "FALSE" => Ok(of_maintenance(maintenance?.text.trim())),
            other => Err(NoticeError::Strange(format!("`{}` as preempted", other.escape_debug()))),
        }
    }

    /// A value, at once or when it differs from what `last_etag` was about.
    async fn value(&self, path: &str, last_etag: Option<&str>) -> Result<Value, NoticeError> {
        let url = format!("{}/computeMetadata/v1/{path}", self.endpoint);
        let mut request = self.client.get(url).header(FLAVOR.0, FLAVOR.1).timeout(ANSWER_TIMEOUT);
        if let Some(etag) = last_etag {
            request = request.timeout(WAIT + ANSWER_TIMEOUT);
            let wait = WAIT.as_secs().to_string();
            request =
                request.query(&[("wait_for_change", "true"), ("timeout_sec", &wait), ("last_etag", etag)]);
        }
        let response = request.send().await?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if !response.status().is_success() || header(FLAVOR.0) != Some(FLAVOR.1) {
            return Err(NoticeError::Strange(format!("{} for {path}", response.status())));
        }
        let etag = header("etag").map(str::to_owned);
        Ok(Value { text: body(response).await?, etag })
    }
}

struct Value {
    text: String,
    etag: Option<String>,
}

/// An instance that is moved alive loses nothing; one that cannot be, as those with GPUs, ends within the hour.
fn of_maintenance(event: &str) -> Option<News> {
    (event == "TERMINATE_ON_HOST_MAINTENANCE").then(|| News::AtRisk("host maintenance".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_maintenance_that_ends_the_instance_puts_it_at_risk() {
        assert_eq!(of_maintenance("NONE"), None);
        assert_eq!(of_maintenance("MIGRATE_ON_HOST_MAINTENANCE"), None);
        let terminate = of_maintenance("TERMINATE_ON_HOST_MAINTENANCE");
        assert_eq!(terminate, Some(News::AtRisk("host maintenance".to_owned())));
    }
}
