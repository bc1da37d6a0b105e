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
    assert_eq!(kinds, ["ServiceAccount", "Secret", "ClusterRole", "ClusterRoleBinding"]);
    let [account, token, role, binding] = documents.as_slice() else { panic!() };
    assert_eq!(token["type"], "kubernetes.io/service-account-token");
    assert_eq!(
        token["metadata"]["annotations"]["kubernetes.io/service-account.name"],
        account["metadata"]["name"]
    );
    assert_eq!(token["metadata"]["namespace"], account["metadata"]["namespace"]);
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
            // Where a shell decides whether to run it, that goes on after it.
            .map(|(_, args)| args.split(';').next().unwrap())
            .collect();
        assert_eq!(commands.len(), 1, "{path}");
        // What follows is not known: it parses all before.
        let done = output(Command::new(BIN).args(commands[0].split(' ')).arg("--no-such-option"));
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(2) && told.contains("'--no-such-option'"), "{path}: {told}");
    }
}

/// Puts a stand-in for a program into a folder: a script.
fn stand_in(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a command that finds the stand-ins first; what they wrote into `log` there is the second.
fn with_stand_ins(dir: &Path, command: &mut Command) -> (Output, String) {
    let log = dir.join("log");
    fs::write(&log, "").unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let done = output(command.env("PATH", path).env("LOG", &log));
    (done, fs::read_to_string(&log).unwrap())
}

/// What `systemctl is-active` says and ends with.
fn unit_is(dir: &Path, state: &str) {
    stand_in(dir, "systemctl", &format!("echo {state}; [ {state} = active ] || exit 3"));
}

/// Runs `untaint` with stand-ins: the daemon's verb ends with a code, `kubectl` says something and ends with another.
fn untaint(dir: &Path, state: &str, wait: i32, kubectl: i32, says: &str) -> (Output, String) {
    unit_is(dir, state);
    stand_in(dir, "ebs-prewarm", &format!("echo ebs-prewarm \"$@\" >>$LOG; exit {wait}"));
    stand_in(dir, "kubectl", &format!("echo kubectl \"$@\" >>$LOG; echo '{says}'; exit {kubectl}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kubernetes/untaint");
    with_stand_ins(dir, Command::new(script).env("EBS_PREWARM_NODE", "n1"))
}

const WAITS: &str = "ebs-prewarm wait --stage ready --timeout 10min\n";
const UNTAINTS: &str =
    "kubectl --kubeconfig /etc/ebs-prewarm/untaint.kubeconfig taint node n1 ebs-prewarm/cold-\n";

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
        let (done, log) = untaint(dir.path(), "active", wait, kubectl, says);
        assert_eq!(done.status.code(), Some(code), "{says}: {}", shown(&done));
        assert_eq!(log, format!("{WAITS}{UNTAINTS}"));
    }
    let (done, log) = untaint(dir.path(), "activating", 2, 0, "");
    assert_eq!((done.status.code(), log.as_str()), (Some(2), WAITS), "{}", shown(&done));
}

#[test]
fn nobody_waits_where_there_is_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let kubelet = example("kubernetes/kubelet-wait.conf");
    let line = kubelet.lines().find_map(|line| line.strip_prefix("ExecStartPre=-/bin/sh -c '")).unwrap();
    let line = line.trim_end_matches('\'').replace("$$", "$").replace("/usr/sbin/", "");
    for (state, waits) in [("active", 1), ("activating", 1), ("inactive", 0), ("failed", 0)] {
        let (done, log) = untaint(dir.path(), state, 0, 0, "node/n1 untainted");
        assert_eq!(done.status.code(), Some(0), "{}", shown(&done));
        assert_eq!(log, format!("{}{UNTAINTS}", WAITS.repeat(waits)), "{state}");
        let (done, log) = with_stand_ins(dir.path(), Command::new("sh").args(["-c", &line]));
        assert!(done.status.success() && done.stderr.is_empty(), "{state}: {}", shown(&done));
        assert_eq!(log, "ebs-prewarm wait --stage ready --timeout 60s\n".repeat(waits), "{state}");
    }
}

#[test]
fn the_recorder_of_a_boot_by_user_data_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    stand_in(dir.path(), "systemd-run", "printf '%s\\n' \"$@\" >>$LOG");
    let text: serde_yaml::Value = serde_yaml::from_str(&example("packer/cloud-init-record.yaml")).unwrap();
    let line = text["bootcmd"][1].as_str().unwrap().replace("/var/lib/ebs-prewarm/", "/none/");
    let (done, log) = with_stand_ins(dir.path(), Command::new("sh").args(["-c", &line]));
    assert!(done.status.success(), "{}", shown(&done));
    let (of_systemd, ours) = log.split_once("/usr/sbin/ebs-prewarm\n").unwrap();
    // bootcmd runs before sysinit.target, after which units start that have the default dependencies.
    for word in ["--no-block", "--property=DefaultDependencies=no"] {
        assert!(of_systemd.lines().any(|other| other == word), "{word}: {of_systemd}");
    }
    let done = output(Command::new(BIN).args(ours.lines()).arg("--no-such-option"));
    assert!(String::from_utf8_lossy(&done.stderr).contains("'--no-such-option'"), "{}", shown(&done));
}
