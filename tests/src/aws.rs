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

    /// Asks a service of AWS by plain HTTP, for what is none of a provider's business.
    ///
    /// # Panics
    /// When it refuses.
    pub fn call(&self, service: &str, region: &str, kind: &str, target: Option<&str>, body: &str) -> String {
        let signed = format!("AWS4-HMAC-SHA256 Credential=x/20260101/{region}/{service}/aws4_request");
        let target = target.map(|target| format!("x-amz-target: {target}\r\n")).unwrap_or_default();
        let headers = format!("authorization: {signed}\r\n{target}content-type: {kind}\r\n");
        self.http("POST", "/", &headers, body)
    }

    /// Asks EC2, in the words of its query API.
    pub fn ec2(&self, region: &str, query: &str) -> String {
        let body = format!("Version=2016-11-15&{query}");
        self.call("ec2", region, "application/x-www-form-urlencoded", None, &body)
    }

    /// Asks SQS.
    pub fn sqs(&self, action: &str, how: &Value) -> Value {
        let target = format!("AmazonSQS.{action}");
        let said =
            self.call("sqs", "us-east-1", "application/x-amz-json-1.0", Some(&target), &how.to_string());
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    /// A queue into which EventBridge puts all events of EC2 in us-east-1. Answers with its URL.
    ///
    /// # Panics
    /// When there is none in the end.
    #[must_use]
    pub fn queue_of_events(&self, name: &str) -> String {
        let policy = json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": { "Service": "events.amazonaws.com" }, "Action": "sqs:SendMessage",
            "Resource": "*",
        }] });
        let how = json!({ "QueueName": name, "Attributes": { "Policy": policy.to_string() } });
        let url = self.sqs("CreateQueue", &how)["QueueUrl"].as_str().expect("the URL of a queue").to_owned();
        let pattern = json!({ "source": ["aws.ec2"] }).to_string();
        let arn = format!("arn:aws:sqs:us-east-1:123456789012:{name}");
        for (action, how) in [
            ("PutRule", json!({ "Name": name, "EventPattern": pattern })),
            ("PutTargets", json!({ "Rule": name, "Targets": [{ "Id": "1", "Arn": arn }] })),
        ] {
            let target = format!("AWSEvents.{action}");
            let kind = "application/x-amz-json-1.1";
            let _ = self.call("events", "us-east-1", kind, Some(&target), &how.to_string());
        }
        url
    }

    /// How many messages are in a queue, those that somebody has received and not deleted among them.
    ///
    /// # Panics
    /// Where there is no such queue.
    #[must_use]
    pub fn messages_in(&self, queue: &str) -> u64 {
        let said = self.sqs("GetQueueAttributes", &json!({ "QueueUrl": queue, "AttributeNames": ["All"] }));
        let count = |name: &str| said["Attributes"][name].as_str().unwrap().parse::<u64>().unwrap();
        count("ApproximateNumberOfMessages") + count("ApproximateNumberOfMessagesNotVisible")
    }

    /// Lets time go by.
    pub fn advance(&self, secs: i64) {
        let _ = self.order("advance", &json!({ "secs": secs }));
    }

    /// The actions of IAM that calls needed so far.
    #[must_use]
    pub fn actions(&self) -> Vec<String> {
        let actions = self.ask("GET", "actions", &Value::Null);
        actions["actions"].as_object().into_iter().flatten().map(|(action, _)| action.clone()).collect()
    }

    fn ask(&self, method: &str, what: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let said = self.http(method, &format!("/_peer/{what}"), "content-type: application/json\r\n", &body);
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(STARTS_WITHIN)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, said) = answer.split_once("\r\n\r\n").expect("it is HTTP");
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path} {body}: {answer}");
        said.to_owned()
    }
}

impl Drop for AwsPeer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
