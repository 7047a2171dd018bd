//! How the nodes of an attempt find each other: environment variables.
//!
//! `BURSAR_*` always, with the meaning that SkyPilot gives to the same words. Where there are several nodes, also
//! - what `torch.distributed` reads with `init_method="env://"`, for one process a node: `RANK` and `WORLD_SIZE` count
//!   processes (<https://docs.pytorch.org/docs/stable/distributed.html>). `torchrun` sets both anew for each process that it
//!   starts;
//! - `NODE_RANK`, which PyTorch Lightning and others read;
//! - the defaults of `torchrun`'s own options, which it takes from `PET_*`: so `torchrun --nproc-per-node 8 train.py` is all
//!   that has to be said.
//!
//! A single node has none of these: what finds `WORLD_SIZE` believes that it has peers.

use std::net::IpAddr;

use bursar_model::agent_api::Work;

/// The variables of an attempt's node, without what the experiment set for itself.
pub(crate) fn variables(work: &Work) -> Vec<(String, String)> {
    let Work { rank, nodes, master_port, .. } = work;
    let (rank, port, count) = (rank.to_string(), master_port.to_string(), nodes.len().max(1).to_string());
    let master = nodes.first().map(IpAddr::to_string).unwrap_or_default();
    let addresses: Vec<String> = nodes.iter().map(IpAddr::to_string).collect();
    let mut variables = vec![
        ("BURSAR_NODE_RANK", rank.clone()),
        ("BURSAR_NUM_NODES", count.clone()),
        ("BURSAR_NODE_IPS", addresses.join("\n")),
        ("BURSAR_MASTER_ADDR", master.clone()),
        ("BURSAR_MASTER_PORT", port.clone()),
    ];
    if nodes.len() > 1 {
        variables.extend([
            ("MASTER_ADDR", master.clone()),
            ("MASTER_PORT", port.clone()),
            ("NODE_RANK", rank.clone()),
            ("RANK", rank.clone()),
            ("WORLD_SIZE", count.clone()),
            ("PET_MASTER_ADDR", master),
            ("PET_MASTER_PORT", port),
            ("PET_NODE_RANK", rank),
            ("PET_NNODES", count),
        ]);
    }
    let is_free = |(name, _): &(&str, String)| !work.envs.contains_key(*name);
    variables.into_iter().filter(is_free).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn variables_of(work: &Work) -> BTreeMap<String, String> {
        variables(work).into_iter().collect()
    }

    #[test]
    fn a_node_knows_its_rank_and_its_peers() {
        let nodes = vec![[127, 1, 2, 3].into(), [127, 4, 5, 6].into()];
        let found = variables_of(&Work { rank: 1, nodes, master_port: 20_007, ..Work::default() });
        let expected = [
            ("BURSAR_MASTER_ADDR", "127.1.2.3"),
            ("BURSAR_MASTER_PORT", "20007"),
            ("BURSAR_NODE_IPS", "127.1.2.3\n127.4.5.6"),
            ("BURSAR_NODE_RANK", "1"),
            ("BURSAR_NUM_NODES", "2"),
            ("MASTER_ADDR", "127.1.2.3"),
            ("MASTER_PORT", "20007"),
            ("NODE_RANK", "1"),
            ("PET_MASTER_ADDR", "127.1.2.3"),
            ("PET_MASTER_PORT", "20007"),
            ("PET_NNODES", "2"),
            ("PET_NODE_RANK", "1"),
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn a_single_node_has_no_peers_to_believe_in_and_what_the_experiment_sets_stands() {
        let nodes = vec![[127, 1, 2, 3].into()];
        let found = variables_of(&Work { nodes: nodes.clone(), ..Work::default() });
        assert!(found.keys().all(|name| name.starts_with("BURSAR_")), "{found:?}");
        let envs = BTreeMap::from([("MASTER_PORT".to_owned(), "29500".to_owned())]);
        let nodes = [nodes.clone(), nodes].concat();
        let found = variables_of(&Work { envs, nodes, ..Work::default() });
        assert!(!found.contains_key("MASTER_PORT") && found.contains_key("MASTER_ADDR"));
    }
}
