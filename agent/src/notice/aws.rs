//! The instance metadata service of EC2, version 2: a token that is fetched with a PUT, and two documents that do not
//! exist until there is something to say.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html> and
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html>.

use std::time::Duration;

use bursar_model::Timestamp;
use reqwest::{Client, StatusCode};
use serde::Deserialize;

use super::{ANSWER_TIMEOUT, News, Notice, NoticeError, body};

/// Between two looks: AWS recommends five seconds, and a notice comes two minutes ahead.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// How long a token is good for, in seconds: the most that there is. A new one is fetched when it is refused.
const TOKEN_TTL: &str = "21600";

pub(super) struct Service {
    client: Client,
    endpoint: String,
    token: Option<String>,
}

impl Service {
    pub(super) fn new(client: Client, endpoint: &str) -> Self {
        Self { client, endpoint: endpoint.trim_end_matches('/').to_owned(), token: None }
    }

    /// The notice, or else the recommendation.
    pub(super) async fn look(&mut self) -> Result<Option<News>, NoticeError> {
        if let Some(action) = self.document("meta-data/spot/instance-action").await? {
            return of_action(&action).map(Some);
        }
        let recommendation = self.document("meta-data/events/recommendations/rebalance").await?;
        Ok(recommendation.map(|_| News::AtRisk("rebalance recommendation".to_owned())))
    }

    /// A document, if it exists. A token that is refused is fetched anew, once for each look.
    async fn document(&mut self, path: &str) -> Result<Option<String>, NoticeError> {
        let fetched = self.token.is_none();
        let (mut status, mut text) = self.get(path).await?;
        if status == StatusCode::UNAUTHORIZED && !fetched {
            self.token = None;
            (status, text) = self.get(path).await?;
        }
        match status {
            StatusCode::OK => Ok(Some(text)),
            StatusCode::NOT_FOUND => Ok(None),
            other => {
                self.token = None;
                Err(NoticeError::Strange(format!("{other} for {path}")))
            }
        }
    }

    async fn get(&mut self, path: &str) -> Result<(StatusCode, String), NoticeError> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => self.token.insert(self.new_token().await?).clone(),
        };
        let request = self.client.get(format!("{}/latest/{path}", self.endpoint)).timeout(ANSWER_TIMEOUT);
        let response = request.header("x-aws-ec2-metadata-token", token).send().await?;
        Ok((response.status(), body(response).await?))
    }

    async fn new_token(&self) -> Result<String, NoticeError> {
        let request = self.client.put(format!("{}/latest/api/token", self.endpoint)).timeout(ANSWER_TIMEOUT);
        let response = request.header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL).send().await?;
        match response.status() {
            StatusCode::OK => body(response).await,
            other => Err(NoticeError::Strange(format!("{other} for a token"))),
        }
    }
}

/// `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`. Stopping and hibernating end the work as well.
fn of_action(text: &str) -> Result<News, NoticeError> {
    #[derive(Deserialize)]
    struct Action {
        time: String,
    }
    let parsed = serde_json::from_str::<Action>(text).ok();
    let time = parsed.and_then(|action| action.time.parse::<Timestamp>().ok());
    match time {
        Some(gone_at) => Ok(News::Gone(Notice { gone_at })),
        None => Err(NoticeError::Strange(format!("`{}` as instance-action", text.escape_debug()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_the_end_at_its_time() {
        let gone_at = "2017-09-18T08:22:00Z".parse::<Timestamp>().unwrap();
        for action in ["terminate", "stop", "hibernate"] {
            let text = format!(r#"{{"action": "{action}", "time": "2017-09-18T08:22:00Z"}}"#);
            assert_eq!(of_action(&text).unwrap(), News::Gone(Notice { gone_at }));
        }
    }

    #[test]
    fn a_document_that_cannot_be_read_is_an_error_and_no_notice() {
        for text in ["", "{}", r#"{"action": "terminate", "time": "soon"}"#, "<html>"] {
            assert!(of_action(text).is_err(), "{text}");
        }
    }
}
