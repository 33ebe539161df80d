"""Download a release of 3D Slicer for Linux, verify its hash, unpack it, and print the path of the program.

    python Scripts/fetch_slicer.py 5.10.0 build/slicer
    python Scripts/fetch_slicer.py newest build/slicer

A release without a known hash is verified against the one on the package server, which is printed: with it, later runs
need not trust the server.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import shutil
import sys
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "https://slicer-packages.kitware.com/api/v1/item"
DOWNLOADS = "https://download.slicer.org/?os=linux&stability=release"
NEWEST = "newest"
_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 120

logger = logging.getLogger("fetch_slicer")


@dataclass(frozen=True)
class Release:
    """One archive.

    Attributes:
        item: its ID on the package server.
        sha512: its hash, empty if unknown.
    """

    item: str
    sha512: str = ""


RELEASES = {
    "5.8.1": Release("67c51fc129825655577cfee9"),
    "5.10.0": Release(
        "6911b598ac7b1c95e7934427",
        "2ea56b6f0c027fa73c832b23c34948e69b1b5124edf337a35f6a062f5cb78e7feb792c11bc02a4986f26e458ddfd954b00255953018bf6cc7d73"
        "834aba9f0267",
    ),
}


def newest_item(page: str) -> str:
    """The item ID of the release that a download page offers.

    Raises:
        SystemExit: if the page names none.
    """
    found = re.search(r"/bitstream/([0-9a-f]{24})", page)
    if found is None:
        raise SystemExit("The download page of Slicer names no release. Give the item id instead.")
    return found[1]


def stated_hash(files: list[dict]) -> str:
    """The SHA-512 of an item's archive according to the package server.

    Raises:
        SystemExit: if there is none.
    """
    hashes = [str(item["sha512"]) for item in files if item.get("sha512")]
    if len(hashes) != 1:
        raise SystemExit("The package server states no hash for this release. Add it to RELEASES.")
    return hashes[0]


def resolved(version: str) -> Release:
    """The release of a version, with its hash."""
    release = RELEASES.get(version)
    if release is None and version == NEWEST:
        release = Release(newest_item(_read(DOWNLOADS).decode()))
    if release is None:
        raise SystemExit(f"Slicer {version} is not known; known are {', '.join((*RELEASES, NEWEST))}.")
    if release.sha512:
        return release
    sha512 = stated_hash(json.loads(_read(f"{PACKAGES}/{release.item}/files")))
    logger.info("The package server states the SHA-512 %s for item %s.", sha512, release.item)
    return Release(release.item, sha512)


def fetch(url: str, target: Path, sha512: str) -> Path:
    """Download and verify a file.

    Raises:
        SystemExit: if its hash differs; the file is deleted.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha512()
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer, target.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != sha512:
        target.unlink()
        raise SystemExit(f"{url} has the SHA-512 {digest.hexdigest()}, not {sha512}. It was not used.")
    return target


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a Slicer archive; return the program.

    Raises:
        SystemExit: if it contains no program.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    programs = sorted(folder.glob("*/Slicer"))
    if len(programs) != 1:
        raise SystemExit(f"{archive.name} holds no program Slicer.")
    return programs[0]


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
        return answer.read()


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", help=f"one of {', '.join((*RELEASES, NEWEST))}")
    parser.add_argument("folder", type=Path, help="where it is unpacked")
    options = parser.parse_args(arguments)
    release = resolved(options.version)
    archive = options.folder.with_suffix(".tar.gz")
    fetch(f"{PACKAGES}/{release.item}/download", archive, release.sha512)
    print(unpack(archive, options.folder))
    archive.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
