"""Packages of Debian's archive by apt, in a state of its own: nothing of the host's is changed.

Holds: what is returned was verified by apt, from the signed release to the package. The host gives its mirror and its
way through the network; no other host is named here than Debian's own.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from urllib.parse import urlsplit

from .shell import LabError, run

KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHIVE = "http://deb.debian.org/debian"
# What Debian calls its releases; others have other names.
RELEASES = ("bullseye", "bookworm", "trixie", "forky", "oldstable", "stable", "testing", "sid")
# Descriptions of applications and translations are larger than the lists of packages.
OPTIONS = {
    "Acquire::Languages": "none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    "Acquire::IndexTargets::deb::CNF::DefaultEnabled": "false", "Acquire::Retries": "3",
    "APT::Architecture": "amd64", "APT::Architectures": "amd64",
}


def mirror():
    """$EBS_PREWARM_MIRROR, or the one that the host's own packages come from where the host is a Debian."""
    given = os.environ.get("EBS_PREWARM_MIRROR")
    if given:
        return given
    targets = apt_get(["indextargets", "--format", "$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)"]).split("\n")
    found = [target.split(" ", 3) for target in targets if target.count(" ") >= 3]
    sites = [site.rstrip("/") for kind, release, component, site in found
             if kind == "Packages" and release in RELEASES and component == "main"]
    # Others put their packages under the names of Debian's releases too.
    own = [site for site in sites if urlsplit(site).path.endswith("/debian")]
    return (own or sites or [ARCHIVE])[0]


def apt_get(words, options=(), cwd=None):
    try:
        return run("apt-get", "--quiet", *options, *words, cwd=cwd)
    except FileNotFoundError as error:
        raise LabError("failed to find `apt-get`: kernels come from Debian's archive, by apt") from error


class Archive:
    """Some releases of the archive. Their lists are kept in `directory`."""

    def __init__(self, directory, releases):
        if not KEYRING.exists():
            raise LabError(f"failed to find `{KEYRING}`: apt-get install debian-archive-keyring")
        self.mirror = mirror()
        sources = directory / "sources.list"
        for part in ("lists", "archives"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        sources.write_text("".join(f"deb [signed-by={KEYRING}] {self.mirror} {name} main\n" for name in releases))
        own = {
            "Dir::State": directory, "Dir::State::lists": directory / "lists", "Dir::State::status": "/dev/null",
            "Dir::Cache": directory, "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null",
        }
        self.options = [f"-o{key}={value}" for key, value in {**OPTIONS, **own}.items()]
        try:
            # Without its lists there is nothing to verify a package by.
            apt_get(["update", "--error-on=any"], self.options)
        except LabError as error:
            raise LabError(f"{error}\nname a mirror that has {', '.join(releases)} in EBS_PREWARM_MIRROR") from error

    def about(self, package, release):
        """What the archive says of a package: {field: text}."""
        wanted = ["apt-cache", *self.options, "--no-all-versions", "show", f"{package}/{release}"]
        first = run(*wanted).strip().split("\n\n")[0]
        return dict(line.split(": ", 1) for line in first.split("\n") if ": " in line and line[0] != " ")

    @contextlib.contextmanager
    def fetched(self, package, release):
        """A package's file, for as long as the context lasts."""
        with tempfile.TemporaryDirectory(prefix="ebs-prewarm-package-") as scratch:
            scratch = pathlib.Path(scratch)
            # apt fetches as a user of its own.
            scratch.chmod(0o755)
            apt_get(["download", f"{package}/{release}"], self.options, cwd=scratch)
            yield next(scratch.glob("*.deb"))

    def take(self, package, release, member, output):
        """One file of a package; `member` is a path in it, in which `*` stands for anything."""
        with self.fetched(package, release) as path:
            root = path.parent / "root"
            run("dpkg-deb", "--extract", path, root)
            found = sorted(root.glob(member))
            if len(found) != 1:
                raise LabError(f"failed to find `{member}` in package `{package}`: {len(found)} files are called so")
            shutil.copy(found[0], output)
