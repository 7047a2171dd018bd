//! The daemon's API, as the command line uses it.

use std::time::Duration;

use bursar_daemon::http::ApiError;
use reqwest::{RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    commands::UNCONFIGURED,
    exit::{FAILED, Failure, NOT_FOUND, REFUSED, UNREACHABLE, USAGE},
};

/// How long an answer may take. Reading the whole store for `doctor` is the slowest.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    url: String,
    http: reqwest::Client,
    /// The address is the default's, since no configuration was found.
    unconfigured: bool,
}

impl Client {
    /// A client of the daemon at this address.
    pub(crate) fn new(url: &str) -> Result<Self, Failure> {
        let mut http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy();
        if url.starts_with("http://") {
            // Without roots to verify certificates by: reading them takes longer than a whole command otherwise.
            http = http.tls_certs_only([]);
        }
        let http = http.build()?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), http, unconfigured: false })
    }

    /// The same, where the address is the default's because no configuration was found.
    pub(crate) fn unconfigured(self) -> Self {
        Self { unconfigured: true, ..self }
    }

    /// Where the daemon is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(path, &()).await
    }

    /// Reads what answers a question.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.http.get(format!("{}{path}", self.url)).query(question).timeout(PATIENCE);
        self.answer(request).await
    }

    /// Reads a text that answers a question.
    pub(crate) async fn text(&self, path: &str, question: &impl Serialize) -> Result<String, Failure> {
        let request = self.http.get(format!("{}{path}", self.url)).query(question).timeout(PATIENCE);
        let response = self.checked(request.send().await).await?;
        response.text().await.map_err(|error| self.unreachable(&error))
    }

    /// Asks for a change, or for an answer that needs a body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: Option<&str>,
    ) -> Result<T, Failure> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body).timeout(PATIENCE);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.answer(request).await
    }

    /// Lays something down.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.answer(self.http.put(format!("{}{path}", self.url)).json(body).timeout(PATIENCE)).await
    }

    /// Whether something is there.
    pub(crate) async fn is_there(&self, path: &str) -> Result<bool, Failure> {
        let sent = self.http.head(format!("{}{path}", self.url)).timeout(PATIENCE).send().await;
        match sent {
            Ok(response) if response.status() == StatusCode::NOT_FOUND => Ok(false),
            sent => self.checked(sent).await.map(|_| true),
        }
    }

    /// Sends bytes, for as long as it takes.
    pub(crate) async fn upload(&self, path: &str, body: reqwest::Body, bytes: u64) -> Result<(), Failure> {
        let put = self.http.put(format!("{}{path}", self.url)).header(header::CONTENT_LENGTH, bytes);
        let kind = (header::CONTENT_TYPE, "application/octet-stream");
        self.checked(put.header(kind.0, kind.1).body(body).send().await).await.map(drop)
    }

    /// Takes something away.
    pub(crate) async fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.http.delete(format!("{}{path}", self.url)).query(question).timeout(PATIENCE);
        self.answer(request).await
    }

    /// Reads a body that comes in pieces, for as long as it takes.
    pub(crate) async fn stream(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        let request = self.http.get(format!("{}{path}", self.url)).query(query);
        self.checked(request.send().await).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = self.checked(request.send().await).await?;
        // A daemon that is killed while it answers is not reachable either.
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Ok(serde_json::from_slice(&body)?)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let hint = "start it with `bursar serve`, or name another with --url or BURSAR_URL (a daemon that runs listens where it did when it was started)";
        let why = if error.is_connect() { "nothing answers there".to_owned() } else { error.to_string() };
        let failure =
            Failure::new(UNREACHABLE, format!("the daemon at {} is not reachable: {why}", self.url));
        if self.unconfigured {
            failure.hint(format!("{hint}\nhint: {UNCONFIGURED}"))
        } else {
            failure.hint(hint)
        }
    }

    async fn checked(&self, sent: Result<Response, reqwest::Error>) -> Result<Response, Failure> {
        let response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let error: ApiError = serde_json::from_str(&text).unwrap_or_else(|_| ApiError {
            status: status.as_u16(),
            code: "unknown".to_owned(),
            detail: if text.is_empty() { status.to_string() } else { text },
            problems: None,
        });
        let code = match status {
            StatusCode::NOT_FOUND => NOT_FOUND,
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => USAGE,
            StatusCode::FORBIDDEN => REFUSED,
            _ => FAILED,
        };
        Err(Failure::new(code, error.detail))
    }
}
