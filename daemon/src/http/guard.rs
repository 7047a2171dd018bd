//! What keeps web pages out of the API.
//!
//! A daemon on loopback trusts whoever reaches it, and a submission is a shell command. Every page that is open in a
//! browser on this machine reaches it too; what a page cannot do is hide that it is one. Three things tell:
//!
//! - **`Origin`.** Browsers name the page with every request that changes something. Only our own pages may.
//! - **`Content-Type`.** Without asking us first, a page can send only what a form could send, and JSON is not among
//!   that. This holds for browsers and extensions that leave `Origin` out.
//! - **`Host`.** A page of `evil.example`, whose name is then made to mean 127.0.0.1, is to its browser of one origin
//!   with us (DNS rebinding); but the browser still says `Host: evil.example`. We have no name but `localhost`, since
//!   `listen` is an address: whoever knows us by an address means us.
//!
//! Programs that are no browsers can say what they like. This is no access control.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::ApiError;

/// Where bytes are taken as they are: logs and metrics, from agents that prove themselves with a token, which no page has;
/// and packed folders, by a method that browsers use for no other site without asking it first.
const TAKES_BYTES: [(Method, &str); 3] =
    [(Method::POST, "/v1/agent/logs/"), (Method::POST, "/v1/agent/metrics/"), (Method::PUT, "/v1/blobs/")];

/// Lets a request through, unless a page sent it.
pub(super) async fn keep_pages_out(request: Request, next: Next) -> Response {
    match check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn check(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if !is_ours(host) {
        let detail = format!("`{host}` is not a name of this daemon: use its address, or localhost");
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", detail));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let page = origin.split_once("://").map_or("", |(_, authority)| authority);
        if !page.eq_ignore_ascii_case(host) {
            let detail = format!("pages of `{origin}` may not use this daemon");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "foreign-origin", detail));
        }
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || text(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if !method.is_safe() && has_body && !takes_bytes(method, path) {
        let kind = text(header::CONTENT_TYPE).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let detail = "send JSON, and say so: `content-type: application/json`";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail));
        }
    }
    Ok(())
}

fn takes_bytes(method: &Method, path: &str) -> bool {
    TAKES_BYTES.iter().any(|(taken, below)| method == taken && path.starts_with(below))
}

/// Whether a `Host` header can only mean us: an address, or `localhost`, with or without a port.
fn is_ours(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    name.eq_ignore_ascii_case("localhost") || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answer(method: Method, path: &str, headers: &[(HeaderName, &'static str)]) -> u16 {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        check(&method, path, &headers).map_or_else(|refused| refused.status, |()| 200)
    }

    #[test]
    fn only_addresses_and_localhost_are_names_of_ours() {
        for host in ["127.0.0.1:8020", "127.0.0.1", "[::1]:8020", "localhost:8020", "LocalHost", "10.1.2.3"] {
            assert!(is_ours(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:8020", "localhost.evil.example", "127.0.0.1.nip.io", "::"]
        {
            assert!(!is_ours(host), "{host}");
        }
        assert_eq!(answer(Method::GET, "/v1/health", &[]), 421);
        assert_eq!(answer(Method::GET, "/v1/health", &[(header::HOST, "evil.example")]), 421);
        assert_eq!(answer(Method::GET, "/v1/health", &[(header::HOST, "localhost")]), 200);
    }

    #[test]
    fn only_our_own_pages_are_let_in() {
        let from = |origin| {
            let headers = [(header::HOST, "localhost:8020"), (header::ORIGIN, origin)];
            answer(Method::POST, "/v1/cancel/x", &headers)
        };
        assert_eq!(from("http://localhost:8020"), 200);
        // Behind something that speaks TLS for us.
        assert_eq!(from("https://localhost:8020"), 200);
        for origin in ["http://evil.example", "http://localhost:3000", "null", "", "http://localhost"] {
            assert_eq!(from(origin), 403, "{origin}");
        }
    }

    #[test]
    fn what_a_form_can_send_is_not_taken() {
        let sent = |path, headers: &[(HeaderName, &'static str)]| {
            let own = [(header::HOST, "127.0.0.1"), (header::CONTENT_LENGTH, "9")];
            answer(Method::POST, path, &[&own, headers].concat())
        };
        let submit = "/v1/experiments";
        assert_eq!(sent(submit, &[(header::CONTENT_TYPE, "application/json")]), 200);
        assert_eq!(sent(submit, &[(header::CONTENT_TYPE, "Application/JSON; charset=utf-8")]), 200);
        assert_eq!(sent(submit, &[]), 415);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"] {
            assert_eq!(sent(submit, &[(header::CONTENT_TYPE, kind)]), 415, "{kind}");
        }
        assert_eq!(sent("/v1/agent/logs/att_0", &[]), 200);
        let bytes = [(header::HOST, "127.0.0.1"), (header::CONTENT_LENGTH, "9")];
        assert_eq!(answer(Method::PUT, "/v1/blobs/00", &bytes), 200);
        assert_eq!(answer(Method::POST, "/v1/blobs/00", &bytes), 415);
        assert_eq!(sent("/v1/agent/metrics/att_0", &[]), 200);
        let chunked = [(header::HOST, "127.0.0.1"), (header::TRANSFER_ENCODING, "chunked")];
        assert_eq!(answer(Method::POST, submit, &chunked), 415);
        let empty = [(header::HOST, "127.0.0.1"), (header::CONTENT_LENGTH, "0")];
        assert_eq!(answer(Method::POST, "/v1/cancel/x", &empty), 200);
    }
}
