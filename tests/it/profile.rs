//! The verbs of `profile`, by the real program.

use std::path::Path;
use std::process::Command;

/// What a run gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Its output, where it succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Its error, where it failed with the code and named all of this.
    #[track_caller]
    pub fn fails(self, code: i32, named: &[&str]) -> String {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.out.is_empty(), "a failure printed a result: {}", self.out);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for what in named {
            assert!(self.err.contains(what), "`{what}` is not in: {}", self.err);
        }
        self.err
    }
}

/// Runs the program in a directory; arguments are split at spaces.
pub fn run(dir: &Path, args: &str) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_ebs-prewarm"))
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// The extents that `profile show --json` prints, in order, all stages.
pub fn shown(json: &str) -> Vec<[u64; 2]> {
    let shown: serde_json::Value = serde_json::from_str(json).unwrap();
    let stages = shown["stages"].as_array().unwrap().iter();
    stages
        .flat_map(|stage| serde_json::from_value::<Vec<[u64; 2]>>(stage["extents"].clone()).unwrap())
        .collect()
}

const LIST: &str = "# warm these\n1048576 131072\n0 4096\n2097152 65536 # last\n";

/// Bytes of a master boot record with a disk signature and one partition.
pub fn mbr(signature: u32, start: u32, sectors: u32) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[440..444].copy_from_slice(&signature.to_le_bytes());
    bytes[450] = 0x83;
    bytes[454..458].copy_from_slice(&start.to_le_bytes());
    bytes[458..462].copy_from_slice(&sectors.to_le_bytes());
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// An image file with one partition and nothing in it.
fn image(path: &Path, signature: u32, bytes: u64) {
    std::fs::write(path, mbr(signature, 2048, 4096)).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn a_list_becomes_a_profile_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &str| run(dir.path(), args);
    std::fs::write(dir.path().join("list"), LIST).unwrap();
    run("profile import -o l.rec --format list list").ok();
    run("profile build -o l.yaml --name web l.rec l.rec").ok();
    let json = run("--json profile show l.yaml").ok();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["name"], "web");
    assert_eq!(value["volume"], serde_json::Value::Null);
    assert_eq!(value["stages"][0]["name"], "ready");
    assert_eq!(shown(&json), [[2048, 256], [0, 8], [4096, 128]]);
    run("profile compile -o l.bin l.yaml").ok();
    assert_eq!(run("profile show l.bin --json").ok(), json);
    run("profile build -o a.yaml --order address l.rec").ok();
    assert_eq!(shown(&run("profile show --json a.yaml").ok()), [[0, 8], [2048, 256], [4096, 128]]);
    // Unbound: any disk that is large enough.
    image(&dir.path().join("large"), 1, 4 << 20);
    image(&dir.path().join("small"), 1, 2 << 20);
    run("profile check l.bin --device large").ok();
    run("profile check l.bin --device small").fails(4, &["l.bin", "4096 sectors, the profile needs 4224"]);
}

#[test]
fn a_profile_is_bound_to_its_volume() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &str| run(dir.path(), args);
    std::fs::write(dir.path().join("list"), LIST).unwrap();
    image(&dir.path().join("disk"), 0xabcd_1234, 4 << 20);
    run("profile import -o l.rec --format list list --device disk").ok();
    run("profile build -o l.yaml l.rec").ok();
    run("profile compile -o l.bin l.yaml").ok();
    let expected = [[2048, 256], [0, 8], [4096, 128]];
    for profile in ["l.yaml", "l.bin"] {
        run(&format!("profile check {profile} --device disk")).ok();
        assert_eq!(shown(&run(&format!("profile show --json {profile} --device disk")).ok()), expected);
    }
    // The partition moved and the disk grew: what lies in it moves along, the boot record stays.
    std::fs::write(dir.path().join("moved"), mbr(0xabcd_1234, 4096, 8192)).unwrap();
    std::fs::File::options().write(true).open(dir.path().join("moved")).unwrap().set_len(8 << 20).unwrap();
    image(&dir.path().join("other"), 0x9999_9999, 4 << 20);
    for profile in ["l.yaml", "l.bin"] {
        let json = run(&format!("profile show --json {profile} --device moved")).ok();
        assert_eq!(shown(&json), [[4096, 256], [0, 8], [6144, 128]]);
        let check = format!("profile check {profile} --device other");
        run(&check).fails(4, &[profile, "other", "none has PARTUUID abcd1234-01", "help: "]);
    }
    // Another volume's recording does not go into the same profile.
    run("profile import -o o.rec --format list list --device other").ok();
    run("profile build -o two.yaml l.rec o.rec").fails(4, &["different volumes", "PARTUUID"]);
    assert!(!dir.path().join("two.yaml").exists());
}

#[test]
fn an_edit_by_hand_must_be_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &str| run(dir.path(), args);
    std::fs::write(dir.path().join("list"), LIST).unwrap();
    run("profile import -o l.rec --format list list").ok();
    run("profile build -o l.yaml l.rec").ok();
    assert!(run("profile seal l.yaml").ok().contains("sealed already"));
    let path = dir.path().join("l.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("  0 0 0 8 0 0\n", "")).unwrap();
    run("profile show l.yaml").fails(1, &["l.yaml", "checksum does not match", "profile seal"]);
    run("profile seal l.yaml").ok();
    assert_eq!(shown(&run("profile show --json l.yaml").ok()), [[2048, 256], [4096, 128]]);
    let line = 1 + text.lines().position(|line| line == "  0 0 0 8 0 0").unwrap();
    std::fs::write(&path, text.replace("  0 0 0 8 0 0\n", "  0 0 zero 8 0 0\n")).unwrap();
    run("profile seal l.yaml").fails(1, &["l.yaml", &format!("line {line}: ")]);
}

#[test]
fn bad_input_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &str| run(dir.path(), args);
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("list", LIST.as_bytes());
    run("profile import -o l.rec --format list list").ok();
    run("profile build -o l.yaml l.rec").ok();
    write("empty", b"");
    write("noise", &[0xa7; 3000]);
    let recording = std::fs::read(dir.path().join("l.rec")).unwrap();
    write("cut.rec", &recording[..recording.len() - 3]);
    write("text", b"key: value\n");
    for (args, named) in [
        ("profile show none", ["`none`", "No such file"]),
        ("profile show .", ["`.`", "it is a folder"]),
        ("profile show empty", ["`empty`", "the file is empty"]),
        ("profile show noise", ["`noise`", "does not start like one"]),
        ("profile show text", ["`text`", "does not start like one"]),
        ("profile show l.rec", ["`l.rec`", "profile build -o"]),
        ("profile build -o x.yaml l.yaml", ["`l.yaml`", "does not start like one"]),
        ("profile build -o x.yaml cut.rec", ["`cut.rec`", "checksum does not match"]),
        ("profile build -o x.yaml empty", ["`empty`", "the file is empty"]),
        ("profile build -o none/x.yaml l.rec", ["none/x.yaml", "make the directory first"]),
        ("profile build --name x -o . l.rec", ["`.`", "name the file"]),
        ("profile compile -o x.bin noise", ["`noise`", "does not start like one"]),
        ("profile seal l.rec", ["`l.rec`", "does not start like one"]),
        ("profile import -o x.rec --format list l.rec", ["`l.rec`", "line 1: "]),
        ("profile import -o x.rec --format list list --device none", ["`none`", "No such file"]),
        ("profile import -o x.rec --format list list --device empty", ["`empty`", "0 bytes"]),
        ("profile check l.yaml --device /dev/null", ["`/dev/null`", "not a block device"]),
        ("profile paths -o x.yaml none", ["`none`", "No such file"]),
        ("profile paths -o x.yaml /proc/version", ["`/proc/version`", "lies on proc"]),
    ] {
        run(args).fails(1, &named);
    }
    run("profile build -o . l.rec").fails(2, &["failed to make a name of `.`", "--name"]);
    run("profile import -o x --format fio list").fails(2, &["invalid value 'fio'"]);
    for args in ["profile build l.rec", "profile", "profile show"] {
        run(args).fails(2, &["Usage"]);
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 7, "a failure left a file: {left:?}");
}

#[test]
fn each_verb_has_help_with_an_example() {
    for verb in ["build", "paths", "show", "check", "seal", "compile", "import"] {
        let help = run(Path::new("/"), &format!("profile {verb} --help")).ok();
        assert!(help.contains("Example:\n  ebs-prewarm profile"), "{help}");
    }
}
