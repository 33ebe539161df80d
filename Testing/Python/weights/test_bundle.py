"""Bundles: what goes in comes out, to the bit, and nothing is lost when writing fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import manifest
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file

from HSAMSegmentLib.errors import CheckpointError, OutputError
from HSAMSegmentLib.weights.bundle import read_manifest, read_shapes, read_tensors, require_fit, save_bundle
from HSAMSegmentLib.weights.manifest import SCHEMA_VERSION, Manifest

REPOSITORY = Path(__file__).resolve().parents[3]
TENSORS = {
    "head.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "head.half": torch.tensor([1.5, -2.25, 65504.0], dtype=torch.float16),
    "encoder.brain": torch.tensor([[1.0, 3e38], [-1e-38, 0.0]], dtype=torch.bfloat16),
    "encoder.count": torch.tensor(7, dtype=torch.int64),
    "encoder.empty": torch.zeros(0, 5),
    "encoder.turned": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_tensors_of_every_type_come_back_to_the_bit(tmp_path):
    path = save_bundle(tmp_path / "model", TENSORS, manifest())
    assert path.name == "model.safetensors"
    assert_same(read_tensors(path), TENSORS)


def test_the_safetensors_library_reads_the_same_file(tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", TENSORS, manifest())
    assert_same(load_torch_file(path), TENSORS)


def test_numpy_arrays_are_tensors_too(tmp_path):
    arrays = {"a": np.eye(3, dtype=np.float32), "b": np.arange(4)[::-1].astype(np.int64)}
    path = save_bundle(tmp_path / "model.safetensors", arrays, manifest())
    found = load_file(path)
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floating_tensors_can_be_stored_at_half_the_size_and_integers_stay(tmp_path, dtype):
    path = save_bundle(tmp_path / "model.safetensors", TENSORS, manifest(), dtype=dtype)
    kind = getattr(torch, dtype)
    wanted = {name: t.to(kind) if t.is_floating_point() else t for name, t in TENSORS.items()}
    assert_same(read_tensors(path), wanted)


def test_a_whole_network_is_written_by_its_state_dict(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    path = save_bundle(tmp_path / "model.safetensors", network, manifest())
    assert_same(read_tensors(path), dict(network.state_dict()))


def test_the_manifest_comes_back_with_every_field(tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", TENSORS, manifest())
    assert read_manifest(path) == manifest()


def test_the_manifest_and_the_shapes_are_read_without_torch(tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", TENSORS, manifest())
    code = (
        "import sys; from HSAMSegmentLib.weights.bundle import read_manifest, read_shapes;"
        f"print(read_manifest({str(path)!r}).id, read_shapes({str(path)!r})['head.weight'], 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "tiny (3, 4) False"


def test_shapes_are_told(tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", TENSORS, manifest())
    assert read_shapes(path) == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


def test_an_existing_file_is_replaced_only_when_told(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"somebody's work")
    with pytest.raises(OutputError, match="exists already"):
        save_bundle(path, TENSORS, manifest())
    assert path.read_bytes() == b"somebody's work"
    save_bundle(path, TENSORS, manifest(), overwrite=True)
    assert read_manifest(path).id == "tiny"


def test_nothing_is_left_and_the_old_file_stays_when_writing_fails(tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", TENSORS, manifest("old"))

    class Breaks:
        shape, dtype = (2,), np.dtype("float32")

        def tobytes(self) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_bundle(path, {**TENSORS, "z": Breaks()}, manifest("new"), overwrite=True)
    assert read_manifest(path).id == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes exist on POSIX only")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    code = (
        "import resource, signal, numpy as np, sys; sys.path.insert(0, 'Testing/Python');"
        "from model_files import manifest; from HSAMSegmentLib.weights.bundle import save_bundle\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        f"    save_bundle({str(tmp_path / 'm.safetensors')!r}, {{'a': np.ones(10**6, np.float32)}}, manifest())\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("OutputError The disk is full: m.safetensors could not be written to")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, where a folder is needed"):
        save_bundle(tmp_path / "file" / "m.safetensors", TENSORS, manifest())


def test_a_truncated_bundle_is_told_with_both_sizes(tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", TENSORS, manifest())
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match=r"truncated: it has .* of .*"):
        read_manifest(path)
    path.write_bytes(whole[:40])
    with pytest.raises(CheckpointError, match="truncated"):
        read_tensors(path)


@pytest.mark.parametrize(
    "header", [b"{]", b"{}", b'{"a":1}', b'{"a":{"data_offsets":"xy"}}', b'{"a":[[[[' + b"[" * 900]
)
def test_a_damaged_header_is_one_sentence(tmp_path, header):
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"rest")
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        read_manifest(path)


def test_tensors_without_a_manifest_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not made by HSAMSegment"):
        read_manifest(tmp_path / "other.safetensors")


def test_a_manifest_of_a_newer_version_says_to_update():
    data = json.loads(manifest().to_json())
    data["schema_version"] = SCHEMA_VERSION + 1
    with pytest.raises(CheckpointError, match="Update HSAMSegment"):
        Manifest.from_json(json.dumps(data))


def test_what_does_not_fit_is_named_on_both_sides():
    found = {"same": np.zeros(2), "shape": np.zeros((9, 256)), "surplus": np.zeros(1)}
    wanted = {"same": np.zeros(2), "shape": np.zeros((4, 256)), "gone": np.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        require_fit(found, wanted, file="a.pth", network="the network")
    assert str(caught.value) == (
        "a.pth does not fit the network: the file lacks gone; the network has no surplus; "
        "shape is [9, 256] in the file and [4, 256] in the network."
    )


def test_what_fits_is_accepted():
    require_fit({"a": np.zeros(2)}, {"a": np.ones(2)}, file="f", network="n")
