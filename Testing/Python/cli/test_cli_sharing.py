"""`hsam-segment models`: models from and for others, in folders, on web servers, and on a hub on loopback."""

from __future__ import annotations

import json

import pytest
from conftest import REPOSITORY
from fake_server import fake_server
from hub_server import TOKEN, Repository, hub_server
from program_environment import Program, one_line
from small_models import write_bundle

from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.weights.bundle import read_manifest

pytest_plugins = ("program_fixtures",)

NAMES = {"cases": [{"name": "Doe^Jane", "image": "1" * 64}], "validation": [{"name": "Roe^Richard"}]}


@pytest.fixture(scope="module")
def shared_bundle(tmp_path_factory):
    """A model of somebody, whose manifest names the scans that it was trained on."""
    metrics = {"dice": {"Roe^Richard": 0.9}, "validated_on": "the scan Roe^Richard"}
    return write_bundle(tmp_path_factory.mktemp("somebody"), "theirs", training=NAMES, metrics=metrics)


@pytest.fixture
def owner(program, shared_bundle, tmp_path):
    """A program with the model, and one without it: their stores are apart."""
    done = program("models", "import", shared_bundle)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture
def other(tmp_path):
    return Program(tmp_path / "other store", tmp_path / "other work")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub", reason="comes with the extra 'hub'")
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def stored(home):
    return sorted(path.name for path in (home / "models").glob("*.safetensors")) if home.exists() else []


def test_a_model_travels_through_a_folder(owner, other, tmp_path):
    place = tmp_path / "stick"
    dry = owner("models", "push", "theirs", place, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "theirs.safetensors" in dry.stdout
    assert "nothing was sent or written" in dry.stdout
    assert not place.exists()

    refused = owner("models", "push", "theirs", place)
    assert refused.returncode == 2
    assert not place.exists()
    assert owner("models", "push", "theirs", place, "--yes").returncode == 0

    listed = json.loads(other("models", "list", "--from", place, "--json").stdout)
    assert [item["id"] for item in listed] == ["theirs"]
    assert listed[0]["sha256"] == sha256_of(place / "theirs.safetensors")
    assert "--yes" in one_line_of_last(other("models", "download", "--from", place))
    done = other("models", "download", "theirs", "--from", place, "--yes")
    assert done.returncode == 0, done.stderr
    assert stored(other.home) == ["theirs.safetensors"]
    assert not (other.home / "incoming").exists()
    again = other("models", "download", "theirs", "--from", place, "--yes")
    assert "on this computer already" in again.stdout


def one_line_of_last(done):
    return done.stderr.strip().splitlines()[-1]


def test_names_of_training_scans_stay_at_home(owner, tmp_path):
    place = tmp_path / "stick"
    done = owner("models", "push", "theirs", place, "--yes")
    assert "Names of 2 training scans are replaced" in done.stdout
    for path in place.iterdir():
        content = path.read_bytes()
        assert b"Jane" not in content
        assert b"Richard" not in content
    manifest = read_manifest(place / "theirs.safetensors")
    # Longer names come first, so that no name is cut by a shorter one in it.
    assert manifest.training["validation"][0]["name"] == "scan 1"
    assert manifest.training["cases"][0] == {"name": "scan 2", "image": "1" * 64}
    assert manifest.metrics["validated_on"] == "the scan scan 1"

    done = owner("models", "push", "theirs", place, "--yes", "--keep-scan-names", "--overwrite")
    assert "names the training scans: Roe^Richard, Doe^Jane" in done.stdout
    assert read_manifest(place / "theirs.safetensors").training == NAMES


def test_a_folder_holds_several_models_and_replaces_none_by_accident(owner, other, tmp_path):
    place = tmp_path / "stick"
    assert owner("models", "push", "theirs", place, "--yes").returncode == 0
    assert owner("models", "push", "theirs", place, "--yes").returncode == 8
    second = write_bundle(tmp_path, "second")
    assert owner("models", "import", second).returncode == 0
    assert owner("models", "push", "second", place, "--yes").returncode == 0
    listed = json.loads(other("models", "list", "--from", place, "--json").stdout)
    assert [item["id"] for item in listed] == ["second", "theirs"]
    unclear = other("models", "download", "--from", place, "--yes")
    assert unclear.returncode == 5
    assert "second, theirs" in one_line(unclear)
    assert other("models", "download", "second", "--from", place, "--yes", "--as", "mine").returncode == 0
    assert stored(other.home) == ["mine.safetensors"]
    assert read_manifest(other.home / "models" / "mine.safetensors").id == "mine"


def test_a_file_that_is_not_the_one_of_the_index_is_refused(owner, other, tmp_path):
    place = tmp_path / "stick"
    assert owner("models", "push", "theirs", place, "--yes").returncode == 0
    bundle = place / "theirs.safetensors"
    content = bytearray(bundle.read_bytes())
    content[-1] ^= 1
    bundle.write_bytes(bytes(content))
    done = other("models", "download", "theirs", "--from", place, "--yes")
    assert done.returncode == 4
    assert "not the file of its index" in done.stderr
    assert stored(other.home) == []


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"file": "../../evil.safetensors"}, "cannot be right"),
        ({"file": "model.pth"}, "cannot be right"),
        ({"sha256": ""}, "cannot be right"),
        ({"size_bytes": "many"}, "wrong kind"),
        ({"color": "red"}, "incomplete or unknown"),
    ],
)
def test_an_index_that_lies_is_refused(other, tmp_path, entry, part):
    good = {"id": "a", "title": "A", "file": "a.safetensors", "size_bytes": 5, "sha256": "0" * 64}
    data = {"schema": "hsamsegment-index", "schema_version": 1, "models": [{**good, **entry}]}
    (tmp_path / "hsamsegment.json").write_text(json.dumps(data))
    done = other("models", "download", "a", "--from", tmp_path, "--yes")
    assert done.returncode == 4
    assert part in one_line(done)


def test_a_folder_without_an_index_and_no_folder_are_told_apart(other, tmp_path):
    assert "has no index" in one_line(other("models", "list", "--from", tmp_path))
    assert "There is no folder" in one_line(other("models", "list", "--from", tmp_path / "nothing"))


def test_a_model_travels_through_a_web_server_that_drops_connections(owner, other, tmp_path):
    place = tmp_path / "stick"
    assert owner("models", "push", "theirs", place, "--yes").returncode == 0
    content = (place / "theirs.safetensors").read_bytes()
    with fake_server() as server:
        address = server.serve("/models/hsamsegment.json", (place / "hsamsegment.json").read_bytes())
        server.serve("/models/theirs.safetensors", content, drops=2, drop_after=len(content) // 3)
        done = other("models", "download", "theirs", "--from", address.rpartition("/")[0], "--yes")
    assert done.returncode == 0, done.stderr
    assert stored(other.home) == ["theirs.safetensors"]


def test_a_web_server_without_an_index_is_answered_with_a_sentence(other):
    with fake_server() as server:
        done = other("models", "list", "--from", server.address + "/models")
    assert done.returncode == 6
    assert "the server answered 404" in one_line(done)
    done = other("models", "list", "--from", "http://127.0.0.1:9/models")
    assert done.returncode == 6


def test_a_model_travels_through_the_hub(owner, other, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    dry = owner.in_a_process("models", "push", "theirs", "hf://clinic/theirs", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert hub.seen == []

    done = owner.in_a_process("models", "push", "theirs", "hf://clinic/theirs", "--yes")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["clinic/theirs"]
    assert repository.is_private
    files = repository.commits[repository.resolve("main")]
    assert sorted(files) == ["README.md", "hsamsegment.json", "theirs.safetensors"]
    card = files["README.md"].decode()
    assert card.startswith('---\nlicense: "cc0-1.0"\n')
    assert "hsam-segment models download theirs --from hf://clinic/theirs" in card

    first = repository.resolve("main")
    again = owner.in_a_process("models", "push", "theirs", "hf://clinic/theirs", "--yes")
    assert again.returncode == 8
    assert "--overwrite" in one_line_of_last(again)

    done = other.in_a_process("models", "download", f"hf://clinic/theirs@{first}", "--yes")
    assert done.returncode == 0, done.stderr
    assert (other.home / "models" / "theirs.safetensors").read_bytes() == files["theirs.safetensors"]
    assert not (other.home / "incoming").exists()


def test_nothing_is_uploaded_without_a_token_or_a_yes(owner, hub, monkeypatch):
    done = owner.in_a_process("models", "push", "theirs", "hf://clinic/theirs", "--yes")
    assert done.returncode == 2
    assert "HF_TOKEN" in one_line_of_last(done)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = owner.in_a_process("models", "push", "theirs", "hf://clinic/theirs")
    assert done.returncode == 2
    assert hub.writes == []
    monkeypatch.setenv("HF_TOKEN", "hf_another_token")
    done = owner.in_a_process("models", "push", "theirs", "hf://clinic/theirs", "--yes")
    assert done.returncode == 6
    assert hub.repositories == {}


def test_a_repository_that_was_filled_by_hand_is_read_too(other, hub, shared_bundle):
    repository = hub.repositories["somebody/models"] = Repository()
    repository.commit({"README.md": b"# by hand", "theirs.safetensors": shared_bundle.read_bytes()})
    done = other.in_a_process("models", "download", "hf://somebody/models", "--yes")
    assert done.returncode == 0, done.stderr
    assert stored(other.home) == ["theirs.safetensors"]


def test_what_the_hub_does_not_have_is_said(other, hub):
    assert "knows no hf://some/thing" in one_line(other.in_a_process("models", "list", "--from", "hf://some/thing"))
    repository = hub.repositories["some/thing"] = Repository()
    assert "has no model of HSAMSegment" in one_line(other.in_a_process("models", "list", "--from", "hf://some/thing"))
    assert "no such revision" in one_line(other.in_a_process("models", "list", "--from", "hf://some/thing@v9"))
    repository.is_private = True
    assert "private" in one_line(other.in_a_process("models", "list", "--from", "hf://some/thing"))
    assert "looks like hf://owner/name" in one_line(other.in_a_process("models", "list", "--from", "hf://thing"))
    unreachable = other.in_a_process("models", "list", "--from", "hf://some/thing", HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in one_line(unreachable)


def test_a_file_that_the_hub_damages_is_refused(owner, other, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert owner.in_a_process("models", "push", "theirs", "hf://clinic/theirs", "--yes").returncode == 0
    hub.damage = True
    done = other.in_a_process("models", "download", "hf://clinic/theirs", "--yes")
    assert done.returncode in (4, 6), done.stderr
    assert stored(other.home) == []


def test_a_missing_extra_is_one_sentence_with_its_command(other, tmp_path):
    # A module of this name that cannot be found: the import system is told so before anything else runs.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "hidden = ('huggingface_hub', 'fastapi')\n"
        "importlib.util.find_spec = lambda name, *more: None if name in hidden else found(name, *more)\n"
    )
    path = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    done = other.in_a_process("models", "list", "--from", "hf://some/thing", **path)
    assert done.returncode == 2
    assert "pip install 'hsamsegment[hub]'" in one_line(done)
    done = other.in_a_process("serve", **path)
    assert done.returncode == 2
    assert "pip install 'hsamsegment[serve]'" in one_line(done)
