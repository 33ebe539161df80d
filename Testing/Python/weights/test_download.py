"""Downloads from a real server on the loopback interface that stalls, drops, lies and serves wrong files."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer, fake_server

from HSAMSegmentLib.errors import CancelledError, CheckpointError, DownloadError, OutputError
from HSAMSegmentLib.runtime.progress import CancelToken, Progress
from HSAMSegmentLib.weights.download.downloader import DownloadSettings, RemoteFile, download_file

REPOSITORY = Path(__file__).resolve().parents[3]
CONTENT = np.random.default_rng(7).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = DownloadSettings(connect_timeout_s=2, stall_timeout_s=0.5, attempts=3, backoff_s=0.01)


@pytest.fixture
def server():
    with fake_server() as started:
        yield started


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def remote(*urls: str, sha256: str = SHA256, size: int | None = len(CONTENT)) -> RemoteFile:
    return RemoteFile("Test weights", urls, sha256, size, approximate_bytes=len(CONTENT), page="https://example.org/p")


def fetch(folder: Path, *urls: str, settings: DownloadSettings = QUICK, **facts: object) -> Path:
    return download_file(remote(*urls, **facts), folder / "weights.pth", settings=settings)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave_part(server: FakeServer, folder: Path, sha256: str = SHA256, size: int | None = len(CONTENT)) -> int:
    """Let a download break off in the middle, as after a kill, and return how much has arrived."""
    url = server.serve("/w", CONTENT, drop_after=1_000_000, drops=1)
    once = DownloadSettings(connect_timeout_s=2, stall_timeout_s=0.5, attempts=1)
    with pytest.raises(DownloadError):
        fetch(folder, url, settings=once, sha256=sha256, size=size)
    server.seen.clear()
    return (folder / "weights.pth.part").stat().st_size


def test_a_file_arrives_whole_and_nothing_else_stays_in_the_folder(server, tmp_path):
    path = fetch(tmp_path, server.serve("/w", CONTENT))
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.pth"]


def test_progress_grows_to_one_with_bytes_speed_and_eta(server, tmp_path):
    reports: list[Progress] = []
    url = server.serve("/w", CONTENT, bytes_per_second=4_000_000)
    download_file(remote(url), tmp_path / "w.pth", progress=reports.append, settings=QUICK)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    under_way = [report for report in reports if 0 < report.fraction < 1]
    assert under_way
    assert all("of 3.0 MB" in report.detail for report in under_way)
    assert "/s" in under_way[-1].detail
    assert under_way[-1].eta_seconds is not None
    assert under_way[-1].eta_seconds > 0


def test_what_has_arrived_is_continued_not_downloaded_again(server, tmp_path):
    arrived = leave_part(server, tmp_path)
    assert 0 < arrived < len(CONTENT)
    assert fetch(tmp_path, server.address + "/w").read_bytes() == CONTENT
    assert server.seen[0].range_start == arrived
    assert names(tmp_path) == ["weights.pth"]


def test_another_mirror_may_continue_when_the_hash_is_known(server, tmp_path):
    arrived = leave_part(server, tmp_path)
    assert fetch(tmp_path, server.serve("/mirror", CONTENT)).read_bytes() == CONTENT
    assert server.seen[0].range_start == arrived
    assert "If-Range" not in server.seen[0].headers


def test_without_a_hash_only_the_same_unchanged_file_is_continued(server, tmp_path):
    arrived = leave_part(server, tmp_path, sha256="", size=None)
    other = bytes(reversed(CONTENT))
    server.serve("/w", other, etag='"two"')
    assert fetch(tmp_path, server.address + "/w", sha256="", size=None).read_bytes() == other
    assert server.seen[0].range_start == arrived
    assert server.seen[0].headers["If-Range"] == '"one"'


def test_without_a_hash_another_mirror_starts_from_the_beginning(server, tmp_path):
    leave_part(server, tmp_path, sha256="", size=None)
    other = bytes(reversed(CONTENT))
    assert fetch(tmp_path, server.serve("/mirror", other), sha256="", size=None).read_bytes() == other
    assert server.seen[0].range_start is None


def test_a_server_that_ignores_range_is_read_from_the_start(server, tmp_path):
    leave_part(server, tmp_path)
    server.serve("/w", CONTENT, send_range=False)
    assert fetch(tmp_path, server.address + "/w").read_bytes() == CONTENT


def test_a_server_that_continues_at_a_wrong_place_does_not_spoil_the_file(server, tmp_path):
    leave_part(server, tmp_path)
    server.serve("/w", CONTENT, range_shift=4096)
    assert fetch(tmp_path, server.address + "/w").read_bytes() == CONTENT


def test_a_damaged_part_is_noticed_and_fetched_again(server, tmp_path):
    arrived = leave_part(server, tmp_path)
    part = tmp_path / "weights.pth.part"
    part.write_bytes(b"\0" * 1000 + part.read_bytes()[1000:])
    assert fetch(tmp_path, server.address + "/w").read_bytes() == CONTENT
    assert [seen.range_start for seen in server.seen] == [arrived, None]


def test_a_part_larger_than_the_file_is_dropped(server, tmp_path):
    leave_part(server, tmp_path)
    part = tmp_path / "weights.pth.part"
    part.write_bytes(part.read_bytes() + CONTENT)
    assert fetch(tmp_path, server.address + "/w").read_bytes() == CONTENT


def test_a_part_with_an_unreadable_note_is_dropped(server, tmp_path):
    leave_part(server, tmp_path)
    (tmp_path / "weights.pth.part.json").write_text("{nonsense")
    assert fetch(tmp_path, server.address + "/w").read_bytes() == CONTENT
    assert server.seen[0].range_start is None


def test_a_connection_that_drops_is_continued_at_once(server, tmp_path):
    url = server.serve("/w", CONTENT, drop_after=700_000, drops=2)
    assert fetch(tmp_path, url).read_bytes() == CONTENT
    starts = [seen.range_start for seen in server.seen]
    assert starts[0] is None
    assert 0 < starts[1] < starts[2]


def test_a_drop_without_any_announced_length_is_noticed_by_the_size(server, tmp_path):
    url = server.serve("/w", CONTENT, no_length=True, drop_after=500_000, drops=1)
    assert fetch(tmp_path, url).read_bytes() == CONTENT


def test_a_stall_is_given_up_and_continued(server, tmp_path):
    url = server.serve("/w", CONTENT, stall_after=900_000, stalls=1)
    assert fetch(tmp_path, url).read_bytes() == CONTENT
    assert server.seen[1].range_start > 0


def test_a_server_in_trouble_is_asked_again(server, tmp_path):
    assert fetch(tmp_path, server.serve("/w", CONTENT, fail_times=2)).read_bytes() == CONTENT
    assert len(server.seen) == 3


def test_a_length_that_is_too_short_does_not_cut_the_file(server, tmp_path):
    url = server.serve("/short", CONTENT, declared_length=1_000_000)
    path = fetch(tmp_path, url, server.serve("/good", CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_length_that_is_too_long_is_refused_before_the_download(server, tmp_path):
    url = server.serve("/long", CONTENT, declared_length=10**12)
    with pytest.raises(DownloadError, match=f"its file has {10**12} bytes, the catalog says {len(CONTENT)}"):
        fetch(tmp_path, url)
    assert names(tmp_path) == []


def test_a_server_that_never_ends_is_stopped(server, tmp_path):
    url = server.serve("/endless", CONTENT * 2, no_length=True)
    with pytest.raises(DownloadError, match="it sent more than the 3000000 bytes"):
        fetch(tmp_path, url)
    assert names(tmp_path) == []


def test_a_wrong_file_is_removed_and_both_hashes_are_said(server, tmp_path):
    wrong = bytes(reversed(CONTENT))
    with pytest.raises(DownloadError) as caught:
        fetch(tmp_path, server.serve("/w", wrong))
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert len(server.seen) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"status": 404}, "does not have it"),
        ({"status": 403}, "refused it"),
        ({"status": 500}, "is in trouble"),
        ({"content": b"<!DOCTYPE html><html>login</html>"}, "web page"),
        ({"content": b"<html>", "content_type": "text/html; charset=utf-8"}, "web page"),
        ({"content": CONTENT, "stall_after": 0, "stalls": 99}, "did not answer in time"),
        ({"redirect": "/bad"}, "redirects in a circle"),
    ],
)
def test_the_next_mirror_delivers_what_the_first_does_not(server, tmp_path, how, reason, caplog):
    bad, good = server.serve("/bad", **how), server.serve("/good", CONTENT)
    assert fetch(tmp_path, bad, good).read_bytes() == CONTENT
    assert reason in caplog.text
    assert names(tmp_path) == ["weights.pth"]


def test_a_failure_names_each_mirrors_reason_the_page_and_what_to_do(server, tmp_path):
    nobody = "http://127.0.0.1:9/w"
    with pytest.raises(DownloadError) as caught:
        fetch(tmp_path, nobody, server.serve("/gone", status=404))
    text = str(caught.value)
    assert "the connection failed" in text
    assert "does not have it (HTTP 404)" in text
    assert "https://example.org/p" in text
    assert "import" in text
    assert names(tmp_path) == []


def test_redirects_are_followed(server, tmp_path):
    server.serve("/real", CONTENT)
    assert fetch(tmp_path, server.serve("/moved", redirect="/real")).read_bytes() == CONTENT


def test_content_that_the_caller_refuses_is_removed(server, tmp_path):
    def refuse(path: Path) -> None:
        raise CheckpointError(f"{path.stat().st_size} bytes of nonsense.")

    with pytest.raises(DownloadError, match="3000000 bytes of nonsense"):
        download_file(remote(server.serve("/w", CONTENT), sha256=""), tmp_path / "w.pth", check=refuse, settings=QUICK)
    assert names(tmp_path) == []


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(server, tmp_path):
    url = server.serve("/w", CONTENT)
    with pytest.raises(OutputError, match=r"needs 1000000000\.0 GB, but the disk of .* has only"):
        fetch(tmp_path, url, size=10**18)
    assert server.seen == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes exist on POSIX only")
def test_a_disk_that_fills_up_on_the_way_is_one_sentence(server, tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from HSAMSegmentLib.weights.download.downloader import RemoteFile, download_file\n"
        "try:\n"
        "    download_file(RemoteFile('weights', [sys.argv[1]]), sys.argv[2])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    arguments = [sys.executable, "-c", code, server.serve("/w", CONTENT), str(tmp_path / "w.pth")]
    run = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("OutputError The disk is full: w.pth.part could not be written to")
    assert not (tmp_path / "w.pth").exists()


def test_cancel_does_not_wait_for_a_server_that_stalls(server, tmp_path):
    url = server.serve("/w", CONTENT, stall_after=1_000_000, stalls=1)
    cancel = CancelToken()
    patient = DownloadSettings(stall_timeout_s=60)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            download_file(remote(url), tmp_path / "w.pth", cancel=cancel, settings=patient)
        except CancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not (tmp_path / "w.pth.part").exists():
        time.sleep(0.02)
    cancel.cancel()
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    assert len(ended) == 1
    assert (tmp_path / "w.pth.part").stat().st_size > 0


CHILD = """
import sys
from HSAMSegmentLib.weights.download.downloader import RemoteFile, download_file
url, sha256, size, target = sys.argv[1:]
download_file(RemoteFile("weights", [url], sha256, int(size)), target)
"""


def start_child(url: str, target: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CHILD, url, SHA256, str(len(CONTENT)), str(target)], cwd=REPOSITORY)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL exists on POSIX only")
def test_after_a_kill_the_download_goes_on_where_it_was(server, tmp_path):
    url = server.serve("/w", CONTENT, bytes_per_second=1_000_000)
    part = tmp_path / "weights.pth.part"
    child = start_child(url, tmp_path / "weights.pth")
    while not (part.exists() and part.stat().st_size > 500_000):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    arrived = part.stat().st_size
    assert not (tmp_path / "weights.pth").exists()
    server.seen.clear()
    server.serve("/w", CONTENT)
    assert fetch(tmp_path, url).read_bytes() == CONTENT
    assert server.seen[0].range_start == arrived
    assert names(tmp_path) == ["weights.pth"]


def test_two_processes_that_want_the_same_file_share_one_download(server, tmp_path):
    url = server.serve("/w", CONTENT, bytes_per_second=3_000_000)
    target = tmp_path / "weights.pth"
    children = [start_child(url, target) for _ in range(2)]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert target.read_bytes() == CONTENT
    assert len(server.seen) == 1
    assert names(tmp_path) == ["weights.pth"]


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    with fake_server() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        monkeypatch.setenv("http_proxy", proxy.address)
        assert fetch(tmp_path, server.serve("/w", CONTENT)).read_bytes() == CONTENT
        assert [seen.path for seen in proxy.seen] == [server.address + "/w"]


def test_a_proxy_that_is_not_there_is_said(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="the proxy did not answer or refused"):
        fetch(tmp_path, server.serve("/w", CONTENT))
