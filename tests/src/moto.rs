//! S3 as moto has it: an implementation that we did not write, as a server on loopback.

use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{program::Said, wait::until};

/// Python has a lot to import, more so while other tests run.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A server with a bucket of its own; ended when it is dropped.
#[derive(Debug)]
pub struct Moto {
    server: Child,
    port: u16,
}

impl Moto {
    /// The bucket that is there.
    pub const BUCKET: &str = "lab";

    /// Starts one; nothing where there is none on this machine. Where `BURSAR_MOTO` names one, it has to start.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        let program = env::var_os("BURSAR_MOTO").map(PathBuf::from).or_else(installed)?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let server =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut moto = Self { server, port };
        until("moto answers", STARTS_WITHIN, || {
            let ended = moto.server.try_wait().unwrap();
            assert!(ended.is_none(), "moto ended at once: {ended:?}");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        let made = moto.ask("PUT", &format!("/{}", Self::BUCKET));
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        Some(moto)
    }

    /// The store as a configuration names it. What it is opened with stands in the daemon's environment as `KEY`.
    #[must_use]
    pub fn storage(&self) -> String {
        format!(
            "storage: {{url: 's3://{}/experiments', endpoint: 'http://127.0.0.1:{}', credentials: \
             {{AWS_ACCESS_KEY_ID: {{env: KEY}}, AWS_SECRET_ACCESS_KEY: {{env: KEY}}}}}}\n",
            Self::BUCKET,
            self.port
        )
    }

    /// The names of all objects, in order.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let listing = self.ask("GET", &format!("/{}?list-type=2", Self::BUCKET));
        let keys = listing.split("<Key>").skip(1);
        keys.map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }

    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(STARTS_WITHIN)).unwrap();
        // The region of the credentials is the one that the bucket is in.
        let authorization = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {authorization}\r\n\
             connection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Whether the machine has one already.
fn installed() -> Option<PathBuf> {
    let found = Command::new("moto_server").arg("--help").stdin(Stdio::null()).output().ok();
    let found = found.map(Said::of).filter(|said| said.code == Some(0));
    if found.is_none() {
        eprintln!(
            "skipped: there is no moto_server here, and BURSAR_MOTO names none (tests/run installs one)"
        );
    }
    found.map(|_| PathBuf::from("moto_server"))
}
