//! The examples under `scripts/` that nobody installs: they parse, name what there is, and do what they say.

use crate::support::{BIN, output, shown};
use serde::Deserialize;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn example(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(path)).unwrap()
}

#[test]
fn the_cluster_roles_parse_and_name_each_other() {
    let text = example("kubernetes/rbac.yaml");
    let documents: Vec<serde_yaml::Value> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde_yaml::Value::deserialize(document).unwrap())
        .collect();
    let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"]);
    let [account, role, binding] = documents.as_slice() else { panic!() };
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["namespace"], account["metadata"]["namespace"]);
}

#[test]
fn the_commands_of_the_units_are_ones_that_this_program_takes() {
    for path in ["systemd/ebs-prewarm.service.d/daemon.conf", "kubernetes/kubelet-wait.conf"] {
        let text = example(path);
        let commands: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once("/usr/sbin/ebs-prewarm "))
            .map(|(_, args)| args)
            .collect();
        assert_eq!(commands.len(), 1, "{path}");
        // What follows is not known: it parses all before.
        let done = output(Command::new(BIN).args(commands[0].split(' ')).arg("--no-such-option"));
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(2) && told.contains("'--no-such-option'"), "{path}: {told}");
    }
}

/// Runs `untaint` with stand-ins: the daemon's verb ends with a code, `kubectl` says something and ends with another.
fn untaint(dir: &Path, wait: i32, kubectl: i32, says: &str) -> (Output, String) {
    let stand_in = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let log = dir.join("log");
    let _ = fs::remove_file(&log);
    stand_in("ebs-prewarm", &format!("echo ebs-prewarm \"$@\" >>{}; exit {wait}", log.display()));
    stand_in("kubectl", &format!("echo kubectl \"$@\" >>{}; echo '{says}'; exit {kubectl}", log.display()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kubernetes/untaint");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let done = output(Command::new(script).env("PATH", path).env("EBS_PREWARM_NODE", "n1"));
    (done, fs::read_to_string(&log).unwrap())
}

#[test]
fn the_taint_is_taken_away_when_the_node_is_warm_or_will_not_be() {
    let dir = tempfile::tempdir().unwrap();
    for (wait, kubectl, says, code) in [
        (0, 0, "node/n1 untainted", 0),
        (3, 0, "node/n1 untainted", 0),
        (5, 0, "node/n1 untainted", 0),
        (6, 0, "node/n1 untainted", 0),
        (0, 1, "error: taint \"ebs-prewarm/cold\" not found", 0),
        (0, 1, "Error from server (NotFound): nodes \"n1\" not found", 1),
        (0, 1, "Unable to connect to the server", 1),
    ] {
        let (done, log) = untaint(dir.path(), wait, kubectl, says);
        assert_eq!(done.status.code(), Some(code), "{says}: {}", shown(&done));
        assert_eq!(
            log,
            "ebs-prewarm wait --stage ready --timeout 10min\n\
             kubectl --kubeconfig /etc/ebs-prewarm/untaint.kubeconfig taint node n1 ebs-prewarm/cold-\n"
        );
    }
    let (done, log) = untaint(dir.path(), 2, 0, "");
    assert_eq!((done.status.code(), log.lines().count()), (Some(2), 1), "{}", shown(&done));
}
