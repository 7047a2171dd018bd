//! AWS as `tests/peers/aws` plays it: moto, and what moto lacks, as a server on loopback.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::wait::until;

/// Python has a lot to import, more so while other tests run.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A server with an account of its own; ended when it is dropped.
#[derive(Debug)]
pub struct AwsPeer {
    server: Child,
    port: u16,
}

impl AwsPeer {
    /// Starts one that sells these types. It needs Python, and installs moto where that is not there yet.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(types: &[&str]) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/aws/serve");
        let mut command = Command::new(program);
        command.args(["--port", "0", "--types", &types.join(",")]);
        let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the peer says its port");
        let peer = Self { server, port };
        until("the peer answers", STARTS_WITHIN, || {
            let health = peer.ask("GET", "health", &Value::Null);
            health["ok"].as_bool().filter(|ok| *ok)
        });
        peer
    }

    /// Where all services answer.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Orders something of the peer, as its README says.
    ///
    /// # Panics
    /// When it refuses.
    pub fn order(&self, what: &str, how: &Value) -> Value {
        self.ask("POST", what, how)
    }

    /// The calls of an action so far, each with `action`, `region`, `params` and times.
    #[must_use]
    pub fn calls(&self, action: &str) -> Vec<Value> {
        let log = self.ask("GET", &format!("log?action={action}"), &Value::Null);
        log["calls"].as_array().cloned().unwrap_or_default()
    }

    /// All calls so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.ask("GET", "log", &Value::Null)["calls"].as_array().cloned().unwrap_or_default()
    }

    /// Forgets them.
    pub fn clear_log(&self) {
        let _ = self.ask("DELETE", "log", &Value::Null);
    }

    /// What there really is, whatever listings show.
    #[must_use]
    pub fn instances(&self) -> Vec<Value> {
        self.ask("GET", "instances", &Value::Null)["instances"].as_array().cloned().unwrap_or_default()
    }

    /// Those that may cost money.
    #[must_use]
    pub fn alive(&self) -> Vec<Value> {
        let is_alive = |instance: &Value| !matches!(instance["state"].as_str(), Some("terminated"));
        self.instances().into_iter().filter(is_alive).collect()
    }

    /// Lets time go by.
    pub fn advance(&self, secs: i64) {
        let _ = self.order("advance", &json!({ "secs": secs }));
    }

    fn ask(&self, method: &str, what: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(STARTS_WITHIN)).unwrap();
        let head = format!(
            "{method} /_peer/{what} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, said) = answer.split_once("\r\n\r\n").expect("it is HTTP");
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {what}: {answer}");
        serde_json::from_str(said).unwrap_or(Value::Null)
    }
}

impl Drop for AwsPeer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
