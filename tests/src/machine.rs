//! A machine that boots by user data: a sandbox with processes of its own, in which nothing of this machine can be written
//! to and which a real power-off ends.
//!
//! The user data is read and made into a script by cloud-init's own code, and run by a real shell with the real agent; only
//! what would end or reach this machine's own system is replaced by programs that write down how they were called.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::{program::Said, wait::until};

/// What cloud-init does with `bootcmd`, by its own code.
const SHELLIFY: &str = "import sys, yaml
from cloudinit import util
sys.stdout.write(util.shellify(yaml.safe_load(sys.stdin)['bootcmd']))";

/// What the machine's system has.
#[derive(Debug, Clone, Copy)]
pub enum System {
    /// systemd: services are started, and the machine ends when it is told to.
    Systemd,
    /// Nothing: every program of its kind fails.
    Bare,
}

/// Ended when dropped, and with the thread that booted it.
#[derive(Debug)]
pub struct Machine {
    folder: tempfile::TempDir,
    process: Child,
}

impl Machine {
    /// Boots one by this user data.
    ///
    /// # Panics
    /// Where there are no sandboxes here, or this is no user data.
    #[must_use]
    pub fn boot(user_data: &str, system: System) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("calls"), "").unwrap();
        fs::write(path("boot.sh"), shellified(user_data)).unwrap();
        for (name, body) in system.programs() {
            let script = format!("#!/bin/sh\necho \"{name} $*\" >>/run/calls\n{body}\n");
            fs::create_dir_all(path("bin")).unwrap();
            fs::write(path("bin").join(name), script).unwrap();
            fs::set_permissions(path("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let log = fs::File::create(path("console")).unwrap();
        let mut sandbox = Command::new("bwrap");
        // The power-off is real, and ends these processes alone, since they have process numbers of their own.
        sandbox.args(["--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--unshare-uts"]);
        sandbox.args(["--unshare-ipc", "--die-with-parent", "--cap-add", "CAP_SYS_BOOT"]);
        sandbox.args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
        for name in ["sys/kernel/sysrq", "sysrq-trigger"] {
            // This would end the machine that the tests run on.
            if Path::new("/proc").join(name).is_file() {
                sandbox.arg("--ro-bind").arg("/dev/null").arg(Path::new("/proc").join(name));
            }
        }
        sandbox.args(["--tmpfs", "/tmp", "--tmpfs", "/run", "--bind"]).arg(path("state")).arg("/var/lib");
        sandbox.arg("--bind").arg(path("calls")).arg("/run/calls");
        sandbox.arg("--ro-bind").arg(path("bin")).arg("/run/bin");
        sandbox.arg("--ro-bind").arg(path("boot.sh")).arg("/run/boot.sh");
        sandbox.args(["--clearenv", "--setenv", "PATH", "/run/bin:/usr/local/bin:/usr/bin:/bin"]);
        // The boot goes on without what it started; the machine is there until it ends.
        sandbox.args(["--chdir", "/", "/bin/sh", "-c", "/bin/sh /run/boot.sh; exec sleep 1000"]);
        fs::create_dir(path("state")).unwrap();
        let process = sandbox
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("bubblewrap is installed: tests/run does that");
        Self { folder, process }
    }

    /// How the programs of the system were called so far, the oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.read("calls").lines().map(str::to_owned).collect()
    }

    /// What became of its disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("state/bursar")
    }

    /// Whether it runs.
    ///
    /// # Panics
    /// When nobody can tell.
    pub fn is_on(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Ends it as pulling its plug does.
    pub fn cut(&mut self) {
        let _ = self.process.kill();
    }

    /// Waits until it is off.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn off(&mut self, within: Duration) -> ExitStatus {
        let process = &mut self.process;
        until("the machine is off", within, || process.try_wait().unwrap())
    }

    /// All that it wrote, for the message of a test that fails.
    #[must_use]
    pub fn story(&self) -> String {
        let logs = ["console", "state/bursar/watch-lease.log", "state/bursar/run-agent.log", "calls"];
        logs.map(|name| format!("== {name}\n{}", self.read(name))).concat()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
    }
}

impl System {
    fn programs(self) -> [(&'static str, &'static str); 4] {
        match self {
            Self::Bare => ["systemd-run", "systemctl", "poweroff", "shutdown"].map(|name| (name, "exit 1")),
            Self::Systemd => [
                (
                    "systemd-run",
                    "while :; do case $1 in --property=WorkingDirectory=*) cd \"${1#*=*=}\" ;; --*) ;; *) break ;; esac; shift; done\n\
                     setsid \"$@\" >>\"$2.log\" 2>&1 </dev/null &",
                ),
                ("systemctl", "kill -9 -1"),
                ("poweroff", "kill -9 -1"),
                ("shutdown", "exit 1"),
            ],
        }
    }
}

/// The script that cloud-init would run.
fn shellified(user_data: &str) -> String {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", SHELLIFY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(user_data.as_bytes()).unwrap();
    Said::of(python.wait_with_output().unwrap()).with_code(0).stdout
}
