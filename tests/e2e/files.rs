//! The store and its disk: who may use it, what is left alone, and what happens when there is no room.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bursar_tests::{
    Installation, PATIENCE, Said,
    installation::{QUICK, text},
    until,
};
use serde_json::Value;

#[test]
fn a_second_daemon_on_a_store_is_told_who_has_it_and_changes_nothing() {
    let installation = Installation::started(QUICK);
    installation
        .write("elsewhere.yaml", format!("installation: test\ndata_dir: data\nlisten: 127.0.0.1:1\n{QUICK}"));
    for config in ["bursar.yaml", "elsewhere.yaml"] {
        let said = installation.bursar(&["serve", "--config", config]).with_code(1);
        assert!(said.stderr.contains("error: another bursar daemon (pid "), "{said:?}");
        assert!(said.stderr.contains("data/bursar.db: stop it, or choose another store"), "{said:?}");
    }
    let id = installation.submit("name: still\nrun: echo here\n");
    let _ = installation.until_state(&id, "succeeded");
}

#[test]
fn a_second_daemon_on_a_port_is_told_so() {
    let installation = Installation::started(QUICK);
    let config = fs::read_to_string(installation.path("bursar.yaml")).unwrap();
    installation.write("other.yaml", config.replace("data_dir: data", "data_dir: other"));
    let said = installation.bursar(&["serve", "--config", "other.yaml"]).with_code(1);
    assert!(said.stderr.contains("cannot listen on 127.0.0.1:"), "{said:?}");
    assert!(said.stderr.contains("choose another `listen`, or stop what uses it"), "{said:?}");
}

#[test]
fn a_store_of_a_newer_version_is_left_as_it_is() {
    /// Where SQLite keeps `user_version` and `application_id` in a file's first page.
    const VERSION: usize = 60;
    const APPLICATION: usize = 68;
    let mut installation = Installation::started(QUICK);
    installation.stop();
    let store = installation.path("data/bursar.db");
    let mut bytes = fs::read(&store).unwrap();
    assert_eq!(&bytes[APPLICATION..APPLICATION + 4], b"burs", "the file is complete without its log");
    bytes[VERSION..VERSION + 4].copy_from_slice(&900_u32.to_be_bytes());
    fs::write(&store, &bytes).unwrap();
    for log in ["data/bursar.db-wal", "data/bursar.db-shm"] {
        let _ = fs::remove_file(installation.path(log));
    }
    for command in [&["serve"][..], &["ls"]] {
        let said = installation.bursar(command).with_code(1);
        assert!(said.stderr.contains("is of version 900, this bursar knows versions up to "), "{said:?}");
        assert!(said.stderr.contains("upgrade bursar, or restore the backup"), "{said:?}");
    }
    assert!(fs::read(&store).unwrap() == bytes, "the file was changed");
}

#[test]
fn a_file_that_is_no_store_is_left_as_it_is() {
    let installation = Installation::new(QUICK);
    fs::create_dir(installation.path("data")).unwrap();
    let thesis = "Chapter 1\n".repeat(1000);
    installation.write("data/bursar.db", &thesis);
    for command in [&["serve"][..], &["ls"]] {
        let said = installation.bursar(command).with_code(1);
        assert!(
            said.stderr.contains("is not a bursar store: it was left as it is, choose another path"),
            "{said:?}"
        );
    }
    assert!(fs::read_to_string(installation.path("data/bursar.db")).unwrap() == thesis);
}

#[test]
fn a_data_folder_that_cannot_be_made_is_named() {
    let installation = Installation::with_data_dir(QUICK, "bursar.yaml/data");
    let said = installation.serve().with_code(1);
    assert!(said.stderr.contains("bursar.yaml/data as data folder"), "{said:?}");
}

#[test]
fn reading_commands_read_the_store_of_a_daemon_that_is_down() {
    let mut installation = Installation::started(QUICK);
    let id = installation.submit("name: past\nrun: echo remembered\n");
    let _ = installation.sweep("name: grid\nrun: echo $x\nsweep: {matrix: {x: 0..3}}\n");
    until("all are over", PATIENCE, || {
        installation.json(&["ls", "--live"]).as_array().unwrap().is_empty().then_some(())
    });
    installation.until_empty();
    let commands: &[&[&str]] = &[
        &["ls"],
        &["ls", "--sweep", "grid", "--state", "succeeded"],
        &["sweeps"],
        &["show", &id],
        &["show", "grid"],
        &["instances"],
        &["budgets"],
        &["report", "--by", "experiment"],
        &["report", "--by", "sweep,category"],
    ];
    let answers: Vec<Value> = commands.iter().map(|command| installation.json(command)).collect();
    installation.kill();
    for (command, answer) in commands.iter().zip(answers) {
        assert_eq!(installation.json(command), answer, "{command:?}");
    }
    assert_eq!(installation.logs(&id), "remembered\n");
    let said = installation.bursar(&["ls"]).with_code(0);
    assert!(said.stderr.contains("note: no daemon at ") && said.stderr.contains("; reading "), "{said:?}");
    let _ = installation.bursar(&["show", "nothing"]).with_code(4);

    installation.write("late.yaml", "run: echo late\n");
    for command in [&["submit", "late.yaml"][..], &["cancel", &id], &["explain", &id], &["plan", "late.yaml"]]
    {
        let said = installation.bursar(command).with_code(5);
        assert!(said.stderr.contains("hint: start it with `bursar serve`"), "{said:?}");
    }
}

/// A small disk of its own, for as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing where this user may not mount.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        let mount =
            mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "bursar-test"]).arg(at).output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    fn fill(&self) {
        let mut ballast = fs::File::options().create(true).append(true).open(self.0.join("ballast")).unwrap();
        // Ends when the disk is full: page by page, so that not even a small write finds room.
        while std::io::Write::write_all(&mut ballast, &[7; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once, though processes of the installation may still have files open on it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_to_be_full_and_loses_nothing() {
    let mut installation = Installation::new(QUICK);
    let Some(disk) = SmallDisk::mount(&installation.path("data"), "8m") else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    installation.start();
    let go = installation.path("go");
    let running = installation.submit(&format!(
        "name: running\nrun: echo begun; until test -e {}; do sleep 0.1; done\n",
        go.display()
    ));
    installation.until_logged(&running, "begun");
    disk.fill();
    // What the store has set aside already takes a few more.
    let mut accepted = vec![running];
    let refused = until("the store says that it is full", PATIENCE, || {
        let name = format!("e{}.yaml", accepted.len());
        installation.write(&name, format!("name: e{}\nrun: echo {}\n", accepted.len(), "x".repeat(20_000)));
        let said: Said = installation.bursar(&["submit", "--json", &name]);
        if said.code != Some(0) {
            return Some(said);
        }
        accepted.push(text(&said.json()[0]["experiments"][0]).to_owned());
        None
    });
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("no room left on the disk of the store: free some, nothing was lost"),
        "{refused:?}"
    );
    let listed = installation.json(&["ls", "-n", "1000"]);
    assert_eq!(
        listed.as_array().unwrap().len(),
        accepted.len(),
        "what was refused is not there, all else is"
    );
    let ailments = installation.ailments();
    assert!(ailments.iter().any(|finding| finding["check"] == "store takes writes"), "{ailments:#?}");

    disk.free();
    let last = until("there is room again", PATIENCE, || {
        installation.write("last.yaml", "name: last\nrun: echo last\n");
        let said = installation.bursar(&["submit", "--json", "last.yaml"]);
        (said.code == Some(0)).then(|| text(&said.json()[0]["experiments"][0]).to_owned())
    });
    installation.write("go", "");
    for id in accepted.iter().chain([&last]) {
        let _ = installation.until_state(id, "succeeded");
    }
    let listed = installation.json(&["ls", "-n", "1000"]);
    assert_eq!(listed.as_array().unwrap().len(), accepted.len() + 1);
    installation.until_empty();
    let broken: Vec<Value> = installation
        .ailments()
        .into_iter()
        .filter(|finding| finding["check"] != "store takes writes")
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}
