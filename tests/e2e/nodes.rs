//! Experiments of several nodes, which meet where they are told to: real processes that talk over real sockets, each
//! instance with a loopback address of its own.

use std::path::Path;

use bursar_tests::{
    Installation,
    installation::QUICK,
    processes::{self, instance_marks},
};
use rustix::process::Signal;
use serde_json::Value;

/// The first node waits for all others at MASTER_ADDR, the others come there. In the first attempt all then wait for each
/// other, as a collective operation does, and fail when one is gone; in the second they part.
const MEET: &str = r#"
import os, socket, sys
rank, size, attempt = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "BURSAR_ATTEMPT"))
place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
saved = os.path.join(os.environ["BURSAR_CHECKPOINT_DIR"], "met")
assert os.environ["BURSAR_NODE_IPS"].split("\n")[0] == place[0]
if rank == 0:
    listener = socket.create_server(place)
    peers = [listener.accept()[0] for _ in range(size - 1)]
    found = sorted(int(peer.recv(10)) for peer in peers)
    before = open(saved).read() if os.path.exists(saved) else "nothing"
    open(saved, "w").write(f"attempt {attempt}")
    print(f"met {found}, found {before}", flush=True)
else:
    while True:
        try:
            peers = [socket.create_connection(place)]
            break
        except ConnectionRefusedError:
            pass
    peers[0].send(str(rank).encode())
    print("here is node", os.environ["NODE_RANK"], flush=True)
if attempt == 1:
    sys.exit("a node is gone" if any(peer.recv(1) == b"" for peer in peers) else 0)
"#;

fn gang(installation: &Installation, name: &str, nodes: u32, run: &str) -> String {
    installation.submit(&format!("name: {name}\nspot_policy: on-demand\nnum_nodes: {nodes}\nrun: {run}\n"))
}

fn instances(attempt: &Value) -> Vec<String> {
    let nodes = attempt["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["instance"].as_str().unwrap().to_owned()).collect()
}

/// Kills the agent of a node of the first attempt. Gives its instance.
fn kill_agent_of_node(installation: &Installation, id: &str, rank: usize) -> String {
    let attempt = installation.json(&["show", id])["attempts"][0].clone();
    let victim = instances(&attempt).remove(rank);
    let of_victim = processes::marked(&instance_marks(std::slice::from_ref(&victim)));
    let agent = of_victim.iter().find(|(_, line)| line.lines().nth(1) == Some("agent"));
    processes::signal(*agent.unwrap_or_else(|| panic!("no agent among {of_victim:#?}")).0, Signal::KILL);
    victim
}

#[test]
fn when_one_of_three_nodes_is_killed_all_end_and_all_go_on_from_the_checkpoint() {
    let installation = Installation::started(QUICK);
    installation.write("meet.py", MEET);
    let script = installation.path("meet.py");
    let id = gang(&installation, "meeting", 3, &format!("exec python3 {}", script.display()));
    installation.until_logged(&id, "met [1, 2], found nothing");
    let victim = kill_agent_of_node(&installation, &id, 1);

    // No `retry`: that the others fail for want of the lost one is no failure of the experiment.
    let detail = installation.until_state(&id, "succeeded");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}");
    assert_eq!(attempts[0]["reason"], "node 1: the instance was lost");
    assert!(!instances(&attempts[1]).contains(&victim), "{detail:#}");
    assert!(installation.logs(&id).contains("met [1, 2], found attempt 1"), "{}", installation.logs(&id));
    let log = installation.bursar(&["logs", "--node", "2", "--attempt", "2", &id]).with_code(0).stdout;
    assert_eq!(log, "here is node 2\n");
    installation.until_empty();
    assert_eq!(installation.ailments(), Vec::<Value>::new());
}

#[test]
fn an_experiment_fails_with_the_first_of_its_nodes_that_fails() {
    let installation = Installation::started(QUICK);
    let run = "test $BURSAR_NODE_RANK = 0 && exec sleep 600; echo giving up; exit 3";
    let id = gang(&installation, "unequal", 2, run);
    let detail = installation.until_state(&id, "failed");
    assert_eq!(detail["experiment"]["reason"], "exit code 3");
    assert_eq!(detail["attempts"][0]["reason"], "node 1: exit code 3");
    assert_eq!(installation.bursar(&["logs", "--node", "1", &id]).with_code(0).stdout, "giving up\n");
    installation.until_empty();
    assert!(installation.running().is_empty());
}

/// PyTorch is large, so these are of the long suite: `tests/run --long` installs it.
#[test]
#[ignore = "needs PyTorch: tests/run --long"]
fn torchrun_trains_on_two_nodes_and_a_lost_node_changes_nothing_of_the_result() {
    torchrun_goes_on_without_a_trace_after_a_loss(2);
}

#[test]
#[ignore = "needs PyTorch: tests/run --long"]
fn nor_on_three() {
    torchrun_goes_on_without_a_trace_after_a_loss(3);
}

fn torchrun_goes_on_without_a_trace_after_a_loss(nodes: u32) {
    let installation = Installation::started(QUICK);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/torchrun/train.py");
    // With Python 3.11 this torchrun (1.13) takes no defaults for where it logs to.
    let train = |name: &str, pause_s: &str| {
        installation.submit(&format!(
            "name: {name}\nspot_policy: on-demand\nnum_nodes: {nodes}\n\
             envs: {{STEPS: \"20\", PAUSE_S: \"{pause_s}\", GLOO_SOCKET_IFNAME: lo}}\n\
             run: exec /usr/bin/python3 -m torch.distributed.run --nproc_per_node 2 --redirects 1 --tee 1 --log_dir logs {}\n",
            script.display()
        ))
    };
    let undisturbed = train("undisturbed", "0");
    let _ = installation.until_state(&undisturbed, "succeeded");
    // Long enough to be hit in the midst of it, whatever else runs here.
    let disturbed = train("disturbed", "0.6");
    installation.until_logged(&disturbed, "step 3 is saved");
    kill_agent_of_node(&installation, &disturbed, nodes as usize - 1);
    let detail = installation.until_state(&disturbed, "succeeded");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 2, "{detail:#}");

    let log = installation.logs(&disturbed);
    assert!(log.contains(&format!("of {} goes on from step 0", 2 * nodes)), "{log}");
    let resumed = log.lines().filter_map(|line| line.split_once("goes on from step ")).next_back();
    assert!(resumed.is_some_and(|(_, step)| step != "0"), "{log}");
    let weights = |log: &str| {
        let told = log.lines().find_map(|line| line.split_once("the sum of all weights is "));
        told.unwrap_or_else(|| panic!("{log}")).1.to_owned()
    };
    assert_eq!(weights(&log), weights(&installation.logs(&undisturbed)));
    installation.until_empty();
}
