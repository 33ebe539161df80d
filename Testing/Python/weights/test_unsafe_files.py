"""Files that are not weights, or worse: each is refused with its own sentence, and nothing in them is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.weights.convert.torch_header import TensorInfo, read_torch_header
from HSAMSegmentLib.weights.file_kind import SAFETENSORS, file_kind

REPOSITORY = Path(__file__).resolve().parents[3]
STATE = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(4, dtype=torch.float16), n=torch.tensor(3))


class Attack:
    """Pickled, this asks the reader to run a command that creates a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return (os.system, (f"touch {self.witness}",))


def refusal(path: Path) -> str:
    """The sentence with which a file is refused; the folder must stay as it was."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(CheckpointError) as caught:
        read_torch_header(path)
    assert sorted(path.parent.iterdir()) == before
    return str(caught.value)


def write(folder: Path, content: bytes, name: str = "weights.pth") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def torch_zip(folder: Path, pickled: bytes, *, compression: int = zipfile.ZIP_STORED, **blocks: bytes) -> Path:
    """A zip as torch writes it, with a table of contents of our choice."""
    with zipfile.ZipFile(folder / "weights.pth", "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in blocks.items():
            archive.writestr(f"archive/data/{name}", content)
    return folder / "weights.pth"


@pytest.mark.parametrize("new_format", [True, False])
def test_names_and_shapes_are_read_from_both_formats_of_torch(tmp_path, new_format):
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=new_format)
    assert read_torch_header(tmp_path / "w.pth") == {
        "a": TensorInfo((2, 3), "float32"),
        "b": TensorInfo((4,), "float16"),
        "n": TensorInfo((), "int64"),
    }


def test_the_header_is_read_without_torch(tmp_path):
    torch.save({"model": STATE, "epoch": 3, "rate": 1e-3}, tmp_path / "w.pth")
    code = (
        "import sys; from HSAMSegmentLib.weights.convert.torch_header import read_torch_header;"
        f"print(read_torch_header({str(tmp_path / 'w.pth')!r})['epoch'], 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "3 False"


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_of_torch_is_named_and_not_run(tmp_path, new_format):
    witness = tmp_path / "ran"
    torch.save(
        {"a": torch.ones(2), "b": Attack(witness)}, tmp_path / "w.pth", _use_new_zipfile_serialization=new_format
    )
    assert "contains 'posix.system', which is program code" in refusal(tmp_path / "w.pth")
    assert not witness.exists()


def test_code_in_a_plain_pickle_is_named_and_not_run(tmp_path):
    witness = tmp_path / "ran"
    path = write(tmp_path, pickle.dumps(Attack(witness), protocol=2))
    assert "'posix.system'" in refusal(path)
    assert not witness.exists()


def test_code_that_hides_behind_a_harmless_name_is_not_run(tmp_path):
    """OrderedDict is known; what can be reached through its attributes is not."""
    name = b"OrderedDict.__init__.__globals__"
    attack = b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(name)]) + name + b"\x93."
    assert "'collections.OrderedDict.__init__.__globals__'" in refusal(torch_zip(tmp_path, attack))


def test_a_whole_pickled_network_is_refused_with_its_class(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    assert "'torch.nn.modules.linear.Linear'" in refusal(tmp_path / "w.pth")


def test_a_torchscript_program_is_refused_as_what_it_is(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    assert "TorchScript program" in refusal(tmp_path / "w.pt")


def test_a_pickle_that_is_no_file_of_torch_is_refused(tmp_path):
    assert "no file of weights made by PyTorch" in refusal(write(tmp_path, pickle.dumps({"a": 1}, protocol=2)))


def test_a_zip_bomb_is_refused_unopened(tmp_path):
    path = torch_zip(tmp_path, pickle.dumps({}), compression=zipfile.ZIP_DEFLATED, **{"0": bytes(50_000_000)})
    assert path.stat().st_size < 100_000
    text = refusal(path)
    assert "claims to hold 2 entries of 50.0 MB" in text
    assert "not unpacked" in text


def test_a_zip_whose_entries_overlap_is_refused(tmp_path):
    """Many directory records that point to one block: what David Fifield's bomb does."""
    path = torch_zip(tmp_path, pickle.dumps({}), **{"0": bytes(1000)})
    with zipfile.ZipFile(path, "a") as archive:
        block = archive.getinfo("archive/data/0")
        for number in range(1, 50):
            copy = zipfile.ZipInfo(f"archive/data/{number}")
            for name in ("header_offset", "compress_size", "file_size", "CRC"):
                setattr(copy, name, getattr(block, name))
            archive.filelist.append(copy)
        archive._didModify = True
    assert "refused" in refusal(path)


def test_a_zip_with_countless_entries_is_refused(tmp_path):
    path = torch_zip(tmp_path, pickle.dumps({}), **{str(number): b"" for number in range(20_001)})
    assert "20002 entries" in refusal(path)


def test_another_zip_is_no_file_of_weights(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "zip archive, but no file of weights" in refusal(tmp_path / "w.pth")


def test_a_tensor_that_claims_more_than_its_block_is_refused(tmp_path):
    """One number expanded to a million million: loading it would fill the memory."""
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "w.pth")
    assert "a tensor of 1000000000000 numbers in a block of 1" in refusal(tmp_path / "w.pth")


def test_a_tensor_whose_numbers_are_missing_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as whole:
        pickled = next(whole.read(name) for name in whole.namelist() if name.endswith("data.pkl"))
    assert "a part of its numbers is missing" in refusal(torch_zip(tmp_path, pickled, **{"0": bytes(24)}))


def test_an_endless_table_of_contents_is_refused(tmp_path):
    legacy = io.BytesIO()
    for item in (0x1950A86A20F9469CFC6C, 1001, {}):
        pickle.dump(item, legacy, protocol=2)
    text = pickle.dumps("x" * (5 << 20), protocol=2)
    assert "it is longer than 4.2 MB" in refusal(write(tmp_path, legacy.getvalue() + text))
    assert "table of contents alone takes 5.2 MB" in refusal(torch_zip(tmp_path, text))


MEMO_BOMBS = {
    "binary": b"\x80\x02Nr" + struct.pack("<I", 60_000_000) + b".",
    "text": b"\x80\x02Np60000000\n.",
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be asked for the peak of one process's memory")
@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("bomb", MEMO_BOMBS)
def test_a_few_bytes_cannot_fill_the_memory_with_a_memo(tmp_path, bomb, in_zip):
    """Pickle's memo is as long as its highest number: these few bytes once took almost a gigabyte."""
    path = torch_zip(tmp_path, MEMO_BOMBS[bomb]) if in_zip else write(tmp_path, MEMO_BOMBS[bomb])
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from HSAMSegmentLib.weights.convert.torch_header import read_torch_header\n"
        "from HSAMSegmentLib.errors import CheckpointError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (300_000_000, 300_000_000))\n"
        "try: read_torch_header(Path(sys.argv[1]))\n"
        "except CheckpointError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "it numbers an object 60000000" in run.stdout


def test_a_table_of_contents_of_countless_small_things_is_refused(tmp_path):
    assert "more than 500000 steps" in refusal(torch_zip(tmp_path, b"\x80\x04(" + b"\x8f" * 600_000 + b"l."))


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_told_as_such(tmp_path, new_format, part):
    torch.save({"a": torch.zeros(5000)}, tmp_path / "w.pth", _use_new_zipfile_serialization=new_format)
    whole = (tmp_path / "w.pth").read_bytes()
    assert "truncated" in refusal(write(tmp_path, whole[: int(len(whole) * part)], "cut.pth"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>\n<html><title>Login</title></html>", "is a web page"),
        (b"\xef\xbb\xbf  <HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "Git LFS pointer"),
        (b"just a note\n", "is a text file"),
        (bytes(4096), "starts with zeros"),
        (b"\x1f\x8b\x08" + bytes(range(200)), "compressed archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(99)), "is not a file of weights"),
        (b"PK\x03\x04" + bytes(500), "truncated or damaged"),
        (b"\x80\x02\xff\xff\xff", "damaged or no file of weights"),
        (struct.pack("<4sI", b"\x80\x04\x95\xff", 2**31), "damaged or no file of weights"),
    ],
)
def test_what_is_no_file_of_weights_is_told_by_what_it_is(tmp_path, content, words):
    assert words in refusal(write(tmp_path, content))


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_bundle_is_one_whatever_the_length_of_its_header(tmp_path, length):
    """The length is written first, and these lengths read like the start of a pickle."""
    bare = json.dumps({"__metadata__": {"filling": ""}})
    header = json.dumps({"__metadata__": {"filling": "x" * (length - len(bare))}}).encode()
    assert file_kind(write(tmp_path, struct.pack("<Q", length) + header)) == SAFETENSORS


def test_a_folder_and_a_missing_file_are_told(tmp_path):
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder")
    assert "There is no file" in refusal(tmp_path / "gone.pth")


def test_random_damage_ends_in_a_sentence_or_in_plain_data(tmp_path):
    """Flip bytes of a real file a few hundred times: it is read or refused, and never anything else happens."""
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "w.pth").read_bytes()
    chance = random.Random(5)
    sentences = []
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(2, len(content))] = chance.randrange(256)
        try:
            read_torch_header(write(tmp_path, bytes(content), "damaged.pth"))
        except CheckpointError as error:
            sentences.append(str(error))
    assert len(sentences) > 30
    assert all("damaged.pth" in sentence for sentence in sentences)
