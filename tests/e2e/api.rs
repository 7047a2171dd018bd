//! What the API promises: pages are kept out.

use bursar_tests::{Installation, installation::QUICK};

#[test]
fn no_web_page_can_submit_or_read() {
    let installation = Installation::started(QUICK);
    let body = br#"{"specs": [{"run": "echo pwned"}]}"#;
    let post = |headers: &str| installation.http_with("POST", "/v1/experiments", headers, body);
    for (status, headers) in [
        ("415", "host: localhost\r\n"),
        ("415", "host: localhost\r\ncontent-type: text/plain\r\n"),
        ("403", "host: localhost\r\ncontent-type: application/json\r\norigin: http://evil.example\r\n"),
        ("403", "host: localhost\r\ncontent-type: application/json\r\norigin: null\r\n"),
        ("421", "host: evil.example\r\ncontent-type: application/json\r\n"),
    ] {
        let answer = post(headers);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let read = installation.http_with("GET", "/v1/experiments", "host: evil.example\r\n", b"");
    assert!(read.starts_with("HTTP/1.1 421"), "{read}");
    assert_eq!(installation.json(&["ls"]).as_array().unwrap().len(), 0);
    let answer = post("host: localhost\r\ncontent-type: application/json\r\norigin: http://localhost\r\n");
    assert!(answer.starts_with("HTTP/1.1 201"), "our own pages may: {answer}");
}
