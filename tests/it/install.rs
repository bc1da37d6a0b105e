//! What a user installs: scripts, packages' lists, completions, and the texts that must not drift from the scripts.

use crate::support::{BIN, ebs, output, require, run, shown};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files and links below a folder, and folders that hold nothing.
fn leaves(root: &Path) -> BTreeSet<String> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
        let entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        if entries.is_empty() {
            found.insert(format!("{}/", dir.strip_prefix(root).unwrap().display()));
        }
        for path in entries {
            if path.is_dir() && !path.is_symlink() {
                walk(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

fn script(name: &str, root: &Path) -> Command {
    let mut command = Command::new(repository().join("scripts").join(name));
    command.arg("--root").arg(root).env_remove("DESTDIR");
    command
}

/// Installs everything; the program under test stands for the static build as well.
fn install(root: &Path) -> String {
    run(script("install.sh", root).args(["--binary", BIN, "--static", BIN, "--initramfs", "both"]))
}

#[test]
fn what_is_installed_is_there_once_and_gone_after_uninstalling() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    // Files of others in folders that we use too.
    for path in
        ["usr/sbin/other", "usr/share/man/man8/other.8", "etc/systemd/system/sysinit.target.wants/other"]
    {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "other").unwrap();
    }
    let said = install(root);
    let first = leaves(root);
    install(root);
    assert_eq!(leaves(root), first, "installed twice");
    for path in first.iter().filter(|path| path.contains("ebs-prewarm") && !path.ends_with('/')) {
        let named = said.contains(path.as_str()) || path.contains("sysinit.target.wants");
        assert!(named, "{path} is not in what it said:\n{said}");
    }
    assert_eq!(run(Command::new(root.join("usr/sbin/ebs-prewarm")).arg("--version")), ebs(["--version"]));
    // As an administrator enables it.
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/usr/lib/systemd/system/ebs-prewarm-rest.service", wants.join("ebs-prewarm-rest.service"))
        .unwrap();
    run(&mut script("uninstall.sh", root));
    let left: Vec<String> = leaves(root).into_iter().filter(|path| path.contains("ebs-prewarm")).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(root.join("usr/sbin/other").is_file() && root.join("usr/share/man/man8/other.8").is_file());
    assert!(root.join("etc/systemd/system/sysinit.target.wants/other").is_file());
}

#[test]
fn a_profile_stays_unless_it_is_purged() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    install(root);
    let profile = root.join("etc/ebs-prewarm/boot.bin");
    fs::write(&profile, "precious").unwrap();
    install(root);
    let said = run(&mut script("uninstall.sh", root));
    assert_eq!(fs::read_to_string(&profile).unwrap(), "precious");
    assert!(said.contains("--purge"), "{said}");
    run(script("uninstall.sh", root).arg("--purge"));
    assert!(!root.join("etc/ebs-prewarm").exists());
}

#[test]
fn a_dry_run_touches_nothing_and_wrong_arguments_are_told() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    let said = run(script("install.sh", root).args(["--binary", BIN, "--static", BIN, "--dry-run"]));
    assert!(said.contains("install ") && leaves(root) == BTreeSet::from(["/".to_string()]), "{said}");
    for (name, arguments, code, says) in [
        ("install.sh", vec!["--nonsense"], 2, "--nonsense"),
        ("install.sh", vec!["--initramfs", "mkinitcpio", "--binary", BIN, "--static", BIN], 2, "mkinitcpio"),
        ("install.sh", vec!["--binary", "/none", "--static", BIN], 1, "cargo build --release"),
        ("install.sh", vec!["--static", "/none", "--binary", BIN], 1, ".ci/static"),
        ("uninstall.sh", vec!["--root"], 2, "--root needs a value"),
    ] {
        let done = output(script(name, root).args(arguments));
        assert_eq!(done.status.code(), Some(code), "{}", shown(&done));
        assert!(String::from_utf8_lossy(&done.stderr).contains(says), "{}", shown(&done));
    }
    let missing = output(&mut script("install.sh", &root.join("none")));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("make it first"), "{}", shown(&missing));
    assert_eq!(leaves(root), BTreeSet::from(["/".to_string()]));
}

/// Destinations of the Debian package, from Cargo.toml; those that end with a star or a slash as whole paths.
fn packaged() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let list =
        text.split("[package.metadata.deb]").nth(1).unwrap().split("[package.metadata").next().unwrap();
    let list = list.split("assets = [").nth(1).unwrap();
    let mut found = BTreeSet::new();
    for line in list.lines().filter(|line| line.trim_start().starts_with('[')) {
        let parts: Vec<&str> = line.split('"').collect();
        let (source, destination) = (parts[1], parts[3]);
        let name = Path::new(source).file_name().unwrap().to_str().unwrap();
        match (name.strip_prefix('*'), destination.strip_suffix('/')) {
            (Some(_), _) if !repository().join(source).parent().unwrap().is_dir() => {}
            (Some(suffix), _) => {
                for entry in fs::read_dir(repository().join(source).parent().unwrap()).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    found.extend(name.ends_with(suffix).then(|| format!("{destination}{name}")));
                }
            }
            (None, Some(dir)) => _ = found.insert(format!("{dir}/{name}")),
            (None, None) => _ = found.insert(destination.to_string()),
        }
    }
    found
}

#[test]
fn the_package_has_what_the_script_installs() {
    let temporary = tempfile::tempdir().unwrap();
    install(temporary.path());
    // Pages are made when packaging; the units, the changelog and the licence cargo-deb adds by itself; links are
    // made by the maintainer's scripts.
    let own = |path: &String| {
        !path.contains("/man8/")
            && !path.contains("usr/lib/systemd/system/")
            && !path.contains("/LICENSE-")
            && !path.contains("CHANGELOG")
            && !path.contains("lintian")
            && !path.starts_with("etc/")
    };
    let installed: BTreeSet<String> = leaves(temporary.path()).into_iter().filter(own).collect();
    assert_eq!(installed, packaged().into_iter().filter(own).collect());
}

#[test]
fn the_unit_of_the_initramfs_is_known_in_the_system_and_starts_nothing_there() {
    const UNIT: &str = "ebs-prewarm-initramfs.service";
    let temporary = tempfile::tempdir().unwrap();
    install(temporary.path());
    let text = |path: &str| fs::read_to_string(temporary.path().join(path).join(UNIT)).unwrap();
    let unit = text("usr/lib/systemd/system");
    assert_eq!(unit, text("usr/lib/dracut/modules.d/90ebs-prewarm"));
    for line in
        ["IgnoreOnIsolate=yes", "ConditionPathExists=/etc/initrd-release", "Conflicts=shutdown.target"]
    {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
    assert!(!unit.contains("[Install]"));
    let packages = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let lists =
        packages.lines().filter(|line| line.contains(UNIT) && line.contains("usr/lib/systemd/system/"));
    assert_eq!(lists.count(), 2, "the Debian package and the RPM");
}

/// The conditions of a unit or drop-in, in its order.
fn conditions(path: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("scripts/systemd").join(path)).unwrap();
    text.lines().filter(|line| line.starts_with("Condition")).map(str::to_owned).collect()
}

#[test]
fn the_daemon_starts_where_the_unit_does_and_where_the_initramfs_warms() {
    let drop_in = conditions("ebs-prewarm.service.d/daemon.conf");
    let (first, stated) = drop_in.split_first().unwrap();
    // An empty one takes back all that are stated before it.
    assert!(first.ends_with('='), "{first}");
    let unit =
        conditions("ebs-prewarm.service").into_iter().filter(|line| !line.ends_with("!/run/ebs-prewarm"));
    assert_eq!(stated, unit.collect::<Vec<_>>());
}

#[test]
fn no_unit_of_the_initramfs_waits_for_systemd_to_stop_another() {
    for path in leaves(&repository().join("scripts/dracut/90ebs-prewarm")) {
        let text = fs::read_to_string(repository().join("scripts/dracut/90ebs-prewarm").join(&path)).unwrap();
        for line in text.lines().filter(|line| line.starts_with("Exec") && line.contains("systemctl ")) {
            assert!(line.contains("systemctl --no-block "), "{path}: {line}");
        }
    }
}

#[test]
fn a_shell_that_reads_the_script_for_the_boots_ring_goes_on_as_it_was() {
    let temporary = tempfile::tempdir().unwrap();
    // Nothing is switched on here: these fail.
    for name in ["mkdir", "mount"] {
        let path = temporary.path().join(name);
        fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", temporary.path().display(), std::env::var("PATH").unwrap());
    for options in ["+e", "-e"] {
        let asked = format!("set {options}\n. scripts/boot-ring.sh\necho \"$-, $not_set${{tracefs-}}\"");
        let mut shell = Command::new("sh");
        let done = output(shell.args(["-c", &asked]).current_dir(repository()).env("PATH", &path));
        let before = run(Command::new("sh").args(["-c", &format!("set {options}\necho \"$-, \"")]));
        assert_eq!(String::from_utf8_lossy(&done.stdout), before, "{}", shown(&done));
    }
}

#[test]
fn bash_completes_verbs_options_and_values() {
    let temporary = tempfile::tempdir().unwrap();
    let completions = temporary.path().join("ebs-prewarm");
    fs::write(&completions, ebs(["completions", "bash"])).unwrap();
    let complete = |line: &str| {
        // As the shell does when Tab is pressed after the line.
        let asked = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
             COMP_LINE=\"$*\"; COMP_POINT=${#COMP_LINE}; \
             function=$(complete -p ebs-prewarm | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $function ebs-prewarm \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
             printf '%s\\n' \"${COMPREPLY[@]}\"";
        let words = line.split(' ');
        let reply = run(Command::new("bash").args(["-uc", asked, "bash"]).arg(&completions).args(words));
        reply.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("ebs-prewarm wa").first().map(String::as_str), Some("warm"));
    assert!(complete("ebs-prewarm profile co").contains(&"compile".to_string()));
    assert!(complete("ebs-prewarm warm --surv").contains(&"--survive-switch-root".to_string()));
    assert_eq!(complete("ebs-prewarm warm --mode f"), ["full"]);
}

#[test]
fn pages_are_clean_to_those_who_read_them() {
    let temporary = tempfile::tempdir().unwrap();
    ebs(["man", temporary.path().to_str().unwrap()]);
    if !require("mandoc") || !require("groff") {
        return;
    }
    for page in leaves(temporary.path()) {
        let path = temporary.path().join(&page);
        let lint = output(Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&path));
        // No date: the same source gives the same pages.
        let said = String::from_utf8_lossy(&lint.stdout).into_owned();
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(said.is_empty(), "{page}: {said:#?}");
        let shaped = output(Command::new("groff").args(["-man", "-ww", "-Tutf8", "-P-c"]).arg(&path));
        assert!(shaped.status.success() && shaped.stderr.is_empty(), "{page}: {}", shown(&shaped));
    }
}

/// Words of a text that match, without what may stand around them.
fn words(text: &str, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
    let apart = |letter: char| letter.is_whitespace() || "\"'`{}();,!*<>=".contains(letter);
    text.split(apart).map(|word| word.trim_end_matches(['.', ':'])).filter(move |word| wanted(word))
}

#[test]
fn the_manual_names_the_files_and_parameters_of_the_scripts_and_no_others() {
    let temporary = tempfile::tempdir().unwrap();
    ebs(["man", temporary.path().to_str().unwrap()]);
    let page = fs::read_to_string(temporary.path().join("ebs-prewarm.8")).unwrap();
    // Without its marks of fonts and escapes.
    let page = page.replace("\\fB", " ").replace("\\fR", " ").replace('\\', "");
    let mut scripts = String::new();
    for dir in ["systemd", "initramfs-tools", "dracut"] {
        for path in leaves(&repository().join("scripts").join(dir)) {
            scripts.push_str(&fs::read_to_string(repository().join("scripts").join(dir).join(path)).unwrap());
        }
    }
    let files = |text: &str| -> BTreeSet<String> {
        let ours = |word: &str| {
            ["/etc/ebs-prewarm/", "/var/lib/ebs-prewarm/", "/usr/lib/ebs-prewarm/"]
                .iter()
                .any(|dir| word.starts_with(dir))
        };
        words(text, ours).map(str::to_owned).collect()
    };
    let section = page.split(".SH FILES").nth(1).unwrap().split(".SH").next().unwrap();
    let named: BTreeSet<String> = files(section);
    assert_eq!(named, files(&scripts));
    let parameters = |text: &str| -> BTreeSet<String> {
        let found = text.split("ebs_prewarm=").skip(1);
        found.map(|rest| rest.chars().take_while(char::is_ascii_alphabetic).collect()).collect()
    };
    assert_eq!(parameters(&page), parameters(&scripts));
}
