//! Experiments of several nodes, which meet where they are told to: real processes that talk over real sockets, each
//! instance with a loopback address of its own.

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

#[test]
fn when_one_of_three_nodes_is_killed_all_end_and_all_go_on_from_the_checkpoint() {
    let installation = Installation::started(QUICK);
    installation.write("meet.py", MEET);
    let script = installation.path("meet.py");
    let id = gang(&installation, "meeting", 3, &format!("exec python3 {}", script.display()));
    installation.until_logged(&id, "met [1, 2], found nothing");
    let first = installation.json(&["show", &id])["attempts"][0].clone();
    let victim = instances(&first).remove(1);
    let of_victim = processes::marked(&instance_marks(std::slice::from_ref(&victim)));
    let agent = of_victim.iter().find(|(_, line)| line.lines().nth(1) == Some("agent"));
    processes::signal(*agent.unwrap_or_else(|| panic!("no agent among {of_victim:#?}")).0, Signal::KILL);

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
