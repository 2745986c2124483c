//! The Debian package and the statically linked program where there is nothing else: in bare roots of
//! Debian releases, entered as a container's is. `just test-package` builds both and runs this.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");

/// Mounts what programs expect, makes `$1` the root (in one that is only changed, as by chroot, no user
/// namespace can be made), and runs a script there.
const ENTER: &str = r#"
mount --rbind "$1" "$1" && cd "$1" && mount -t proc proc proc && mount --rbind /dev dev &&
mount -t sysfs sysfs sys && mkdir -p old && pivot_root . old && umount -l old &&
cd / && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -euxc "$2""#;

/// The root of a Debian release, with no more than `mmdebstrap`'s minimum and these packages.
struct Root(TempDir);

impl Root {
    fn new(release: &str, packages: &str) -> Self {
        let root = TempDir::new().unwrap();
        let include = format!("--include={packages}");
        let mut made = Command::new("mmdebstrap");
        made.args(["--quiet", "--variant=minbase", &include, release]).arg(root.path());
        let made = made.output().expect("mmdebstrap can be started: apt-get install mmdebstrap");
        assert!(made.status.success(), "{}", shown(&made));
        Self(root)
    }

    /// Copies a file to its top.
    fn take(&self, file: &Path, name: &str) {
        let copied = std::fs::copy(file, self.0.path().join(name));
        copied.unwrap_or_else(|error| panic!("{}: {error}: just deb", file.display()));
    }

    /// What a script there says, which must succeed.
    fn run(&self, script: &str) -> String {
        let mut entered = Command::new("unshare");
        entered.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", ENTER, "sh"]);
        let output = entered.arg(self.0.path()).arg(script).output().unwrap();
        assert!(output.status.success(), "{script}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn shown(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn program() -> PathBuf {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    Path::new(TARGET).join(triple).join("release/halfopen")
}

fn package() -> PathBuf {
    let all = std::fs::read_dir(Path::new(TARGET).join("debian")).expect("just deb has made it");
    let mut found: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    found.sort();
    found.pop().expect("just deb has made it")
}

const AGREES: &str = "halfopen run host-crash-idle-keepalive --out /tmp/results";
/// As somebody who is not root.
const ORDINARY: &str = "cd /tmp && setpriv --reuid 54322 --regid 54322 --clear-groups \
    halfopen run process-crash-idle --out /tmp/ordinary";

/// AppArmor's compiler takes the profile, and would say if it did not.
const COMPILES: &str = "cd /etc/apparmor.d && apparmor_parser --skip-kernel-load --skip-cache --debug halfopen && \
    sed s/userns,/usernamespace,/ halfopen | { ! apparmor_parser --skip-kernel-load --skip-cache; }";

#[test]
#[ignore = "needs the package, mmdebstrap and root: just test-package"]
fn the_package_is_all_that_is_needed() {
    // AppArmor 4 knows user namespaces; it is in the release that has it, and in the other is none.
    for (release, also, has_profile) in
        [("bookworm", "man-db", false), ("trixie", "man-db,apparmor", true)]
    {
        let root = Root::new(release, also);
        root.take(&package(), "halfopen.deb");
        root.run("dpkg --install /halfopen.deb");
        let profile = root.0.path().join("etc/apparmor.d/halfopen");
        assert_eq!(profile.exists(), has_profile, "{release}");
        if has_profile {
            root.run(COMPILES);
        }
        root.run("halfopen doctor");
        assert!(root.run(AGREES).contains("agrees"), "{release}");
        assert!(root.run(ORDINARY).contains("agrees"), "{release}");
        for (script, expected) in [
            ("man -l /usr/share/man/man1/halfopen-run.1*", "--repeat"),
            (
                "bash -c '. /usr/share/bash-completion/completions/halfopen; complete -p halfopen'",
                "_halfopen",
            ),
            (
                "halfopen run /usr/share/doc/halfopen/examples/experiments/process-crash-idle.toml --out /tmp/file",
                "agrees",
            ),
        ] {
            let said = root.run(script);
            assert!(said.contains(expected), "{release}: {script}: {said}");
        }
        root.run("dpkg --purge halfopen");
        assert!(!profile.exists(), "{release}");
        let left = root.run("find / -xdev -path /proc -prune -o -iname '*halfopen*' -print");
        assert_eq!(left.trim(), "/halfopen.deb", "{release}");
    }
}

#[test]
#[ignore = "needs the static program, mmdebstrap and root: just test-package"]
fn the_static_program_runs_on_an_older_distribution() {
    let root = Root::new("bullseye", "util-linux");
    root.take(&program(), "usr/bin/halfopen");
    assert!(root.run(AGREES).contains("agrees"));
    assert!(root.run(ORDINARY).contains("agrees"));
}
