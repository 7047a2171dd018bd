//! A web server that takes messages and answers as it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::wait::{PATIENCE, until};

/// A server on a port of its own, for as long as the test's process lives.
#[derive(Debug, Clone)]
pub struct WebhookServer {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Answer>,
    usual: Answer,
    received: Vec<Received>,
}

/// What it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status, header lines that end with `\r\n`, and body.
    pub status: u16,
    /// Lines that end with `\r\n`.
    pub headers: String,
    /// What it says.
    pub body: String,
    /// So long after the request.
    pub after: Duration,
}

impl Answer {
    /// This status at once.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self { status, headers: String::new(), body: String::new(), after: Duration::ZERO }
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self::of(200)
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Method and path.
    pub line: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// To the byte.
    pub body: String,
    /// What it was answered with.
    pub status: u16,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The id of the message.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.headers["bursar-delivery"]
    }
}

impl WebhookServer {
    /// A server that takes everything.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn started() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let state = server.state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        server
    }

    /// An address of it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it answers to the next requests, one each, before it answers as usual again.
    ///
    /// # Panics
    /// When another thread of the test has panicked.
    pub fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().script.extend(answers);
    }

    /// What it answers from now on.
    ///
    /// # Panics
    /// When another thread of the test has panicked.
    pub fn always(&self, answer: Answer) {
        self.state.lock().unwrap().usual = answer;
    }

    /// All requests so far, in order.
    ///
    /// # Panics
    /// When another thread of the test has panicked.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// Waits until there is such a request, and answers with the first.
    #[must_use]
    pub fn until_received(&self, what: &str, is_it: impl Fn(&Received) -> bool) -> Received {
        until(what, PATIENCE, || self.received().into_iter().find(|received| is_it(received)))
    }
}

/// One request a connection: the answer says that it is closed.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let mut headers = BTreeMap::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let answer = {
        let mut state = state.lock().unwrap();
        let answer = state.script.pop_front().unwrap_or_else(|| state.usual.clone());
        let body = String::from_utf8(body).unwrap();
        let line = line.trim().to_owned();
        state.received.push(Received { line, headers, body, status: answer.status });
        answer
    };
    // A slow server is what the script asks for; no test waits by it.
    thread::sleep(answer.after);
    let Answer { status, headers, body, .. } = answer;
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // Whoever asked may have gone meanwhile.
    let _ = stream.write_all(text.as_bytes());
}
