//! Experiments in containers, and what is kept of how an attempt ran: from the spec to real Podman and back.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use bursar_tests::{
    Installation, PATIENCE,
    installation::{QUICK, text},
    processes, until,
};
use rustix::process::Signal;

/// Another name than that of the agent's own tests: both make their image at the same time.
const IMAGE: &str = "localhost/bursar-e2e-busybox:1";

fn podman() -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", conf()).stdin(Stdio::null());
    command
}

fn conf() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("containers.conf").display().to_string()
}

fn ask(arguments: &[&str]) -> String {
    let output = podman().args(arguments).output().expect("tests/run installs podman");
    assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A shell and nothing else.
fn make_image() {
    if podman().args(["image", "exists", IMAGE]).status().expect("tests/run installs podman").success() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "var/tmp"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).expect("tests/run installs busybox-static");
    for applet in ["sh", "cat", "env", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).unwrap();
    }
    let archive = root.path().with_extension("tar");
    let packed = Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(&archive).arg(".").status();
    assert!(packed.unwrap().success());
    ask(&["import", "--quiet", archive.to_str().unwrap(), IMAGE]);
    fs::remove_file(archive).unwrap();
}

fn started() -> Installation {
    make_image();
    let mut installation = Installation::new(QUICK);
    installation.start_with(&[("CONTAINERS_CONF", &conf()), ("E2E_TOKEN", "hunter-two")]);
    installation
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn containers_on(instance: &str) -> String {
    ask(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &format!("label=bursar.instance={instance}")])
}

#[test]
fn an_experiment_runs_in_its_image_and_show_tells_what_each_attempt_ran_with() {
    let installation = started();
    fs::create_dir(installation.path("code")).unwrap();
    let git = |arguments: &str| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=me", "-c", "user.email=me@example.com"]).args(arguments.split(' '));
        assert!(
            command.current_dir(installation.path("code")).status().unwrap().success(),
            "git {arguments}"
        );
    };
    installation.write("code/data.txt", "data");
    git("init -q");
    git("add .");
    git("commit -q -m first");
    installation.write("code/data.txt", "changed");
    let id = installation.submit(&format!(
        "name: boxed\nimage: {IMAGE}\nworkdir: code\nenvs: {{LR: 0.1}}\nsecrets: {{TOKEN: {{env: E2E_TOKEN}}}}\n\
         run: echo $(cat data.txt) $LR $TOKEN $BURSAR_SEED $container\n"
    ));
    let detail = installation.until_state(&id, "succeeded");
    let attempt = installation.json(&["show", &id, "--attempt", "1"]);
    let ran_with = &attempt["attempt"]["ran_with"];
    assert!(text(&ran_with["runtime"]).starts_with("podman "), "{ran_with}");
    assert!(text(&ran_with["image"]).starts_with("localhost/bursar-e2e-busybox@sha256:"), "{ran_with}");
    assert!(text(&ran_with["system"]).starts_with("Linux "), "{ran_with}");
    assert_eq!(detail["attempts"][0]["ran_with"], *ran_with);
    let seed = attempt["seed"].as_u64().unwrap();
    assert_eq!(installation.logs(&id), format!("changed 0.1 ********** {seed} podman\n"));
    assert_eq!(text(&attempt["spec"]["source"]["commit"]).len(), 40);
    assert_eq!(text(&attempt["spec"]["source"]["dirty"]["diff_sha256"]).len(), 64);
    let shown = installation.bursar(&["show", &id, "--attempt", "1"]).with_code(0).stdout;
    for part in [
        "image       localhost/",
        "commit      ",
        ", changed (diff ",
        "secret      TOKEN",
        "env         LR=0.1",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("hunter-two"));
    let missing = installation.bursar(&["show", &id, "--attempt", "2"]).with_code(4);
    assert!(missing.stderr.contains("has no attempt 2"), "{}", missing.stderr);
}

#[test]
fn a_rerun_has_the_image_the_seed_and_the_variables_of_before_and_says_what_differs() {
    let installation = started();
    let sweep = installation.sweep(&format!(
        "name: grid\nimage: {IMAGE}\nsecrets: {{TOKEN: {{env: E2E_TOKEN}}}}\nrun: echo $LR $BURSAR_SEED\n\
         sweep: {{matrix: {{LR: [0.5]}}}}\n"
    ));
    let trial = text(&installation.until_sweep_over(&sweep, PATIENCE)["trials"][0]["id"]).to_owned();
    let before = installation.logs(&trial);
    let answer = installation.json(&["rerun", &trial]);
    let again = text(&answer["experiment"]).to_owned();
    let _ = installation.until_state(&again, "succeeded");
    assert_eq!(installation.logs(&again), before);
    let digest =
        installation.json(&["show", &trial, "--attempt", "1"])["attempt"]["ran_with"]["image"].clone();
    assert_eq!(installation.json(&["show", &again])["spec"]["image"], digest, "not by its tag any more");
    let differs: Vec<&str> = answer["differs"].as_array().unwrap().iter().map(text).collect();
    for part in [
        "is taken as localhost/bursar-e2e-busybox@sha256:",
        "TOKEN",
        "the budget of swp_",
        "the machine may differ",
    ] {
        assert!(differs.iter().any(|said| said.contains(part)), "{part}: {differs:?}");
    }
    let said = installation.bursar(&["rerun", "--wait", "--set", "LR=0.7", &trial]).with_code(0).stdout;
    assert!(said.contains("LR is `0.7`, it was `0.5`"), "{said}");
    assert!(said.contains(&format!("repeats {trial}")), "{said}");
    let refused = installation.bursar(&["rerun", "--set", "BURSAR_SEED=1", &trial]).with_code(2);
    assert!(refused.stderr.contains("BURSAR_SEED"), "{}", refused.stderr);
}

#[test]
fn kill_9_of_agent_and_machine_leaves_no_container_though_it_cleared_its_environment() {
    let mut installation = started();
    let run = "trap '' TERM; echo up; exec env -i /bin/sleep 600";
    let id = installation.submit(&format!("name: stray\nimage: {IMAGE}\nrun: {run}\n"));
    installation.until_logged(&id, "up\n");
    let instance = text(&installation.json(&["show", &id])["attempts"][0]["nodes"][0]["instance"]).to_owned();
    let container = containers_on(&instance);
    let pid: i32 = ask(&["inspect", "--format", "{{.State.Pid}}", container.trim()]).trim().parse().unwrap();
    // The daemon too, so that nobody comes to look before all of them are dead.
    installation.kill();
    for (running, line) in installation.running() {
        if line.contains("local-host") || line.contains("agent") {
            processes::signal(running, Signal::KILL);
        }
    }
    // Podman's monitor would remove the container itself.
    processes::signal(parent(pid), Signal::KILL);
    assert!(processes::is_running(pid), "a container outlives those who started it");
    installation.start_with(&[("CONTAINERS_CONF", &conf())]);
    until("whoever looks next removes it", PATIENCE, || containers_on(&instance).is_empty().then_some(()));
    assert!(!processes::is_running(pid));
    let _ = installation.bursar(&["cancel", &id]).with_code(0);
    installation.until_empty();
}
