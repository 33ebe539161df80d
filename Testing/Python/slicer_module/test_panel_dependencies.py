from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from panel_driver import Answers

from HSAMSegmentLib.workflows.events import sentence_for

pytestmark = pytest.mark.host


@pytest.fixture
def dependencies(scene):
    from HSAMSegmentLib.slicer.panels import dependencies

    return dependencies


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A folder of packages that Python looks into."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def add_package(library, name):
    (library / name).mkdir()
    (library / name / "__init__.py").write_text("raise SystemExit('it must not be imported')")


def add_metadata(library, name, version):
    folder = library / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_everything_that_is_needed_is_here(dependencies):
    assert dependencies.Dependencies(Answers()).missing() == []


def test_torch_is_examined_without_being_imported(dependencies, library):
    package = dependencies.Package("sometorch", "sometorch")
    assert dependencies.torch_problem(package) == "PyTorch is not installed."
    add_package(library, "sometorch")
    assert "half installed" in dependencies.torch_problem(package)
    add_metadata(library, "sometorch", "2.2.2")
    assert dependencies.torch_problem(package) == ""


def test_a_torch_without_its_files_is_half_installed_and_an_old_one_too_old(dependencies, library):
    add_metadata(library, "removedtorch", "2.4.0")
    assert "half installed" in dependencies.torch_problem(dependencies.Package("removedtorch", ""))
    add_package(library, "oldtorch")
    add_metadata(library, "oldtorch", "1.13.1+cu117")
    assert "1.13.1+cu117 is too old" in dependencies.torch_problem(dependencies.Package("oldtorch", ""))


def test_nothing_is_installed_without_a_yes(dependencies):
    answers = Answers()
    answers.agrees = False
    packages = (dependencies.Package("nosuchpackage", "nosuchpackage>=1"),)
    with pytest.raises(dependencies.DependencyError, match="Nothing was installed"):
        dependencies.Dependencies(answers, packages=packages).ensure()
    assert "nosuchpackage>=1" in answers.questions[0]


def test_a_question_speaks_of_pytorch_only_where_it_is_missing(dependencies):
    answers = Answers()
    answers.agrees = False
    packages = (dependencies.Package("nosuchpackage", "nosuchpackage>=1"),)
    part = dependencies.Dependencies(answers, packages=packages, torch=None, purpose="Comparing")
    with pytest.raises(
        dependencies.DependencyError, match=r"^Nothing was installed\. Comparing needs: nosuchpackage>=1\.$"
    ):
        part.ensure()
    assert "PyTorch" not in answers.questions[0]


def test_a_missing_pytorch_extension_is_said_with_the_next_step(dependencies):
    missing = dependencies.Package("nosuchtorch", "nosuchtorch")
    with pytest.raises(dependencies.DependencyError, match="Extensions Manager"):
        dependencies.Dependencies(Answers(), packages=(), torch=missing).ensure()


class OldTorchLogic:
    def installTorch(self, confirm=True):  # noqa: N802 - the extension's own name
        self.confirm = confirm
        return object()


class NewTorchLogic:
    def installTorch(self, askConfirmation=True, torchVersionRequirement=None):  # noqa: N802, N803
        self.arguments = (askConfirmation, torchVersionRequirement)
        return object()


class FailingTorchLogic:
    def installTorch(self):  # noqa: N802
        return None


def test_every_version_of_the_pytorch_extension_is_asked_in_its_own_words(dependencies):
    old, new = OldTorchLogic(), NewTorchLogic()
    dependencies.install_torch_by(old)
    dependencies.install_torch_by(new)
    assert new.arguments == (False, ">=2.2")
    with pytest.raises(dependencies.DependencyError, match="did not install"):
        dependencies.install_torch_by(FailingTorchLogic())


def test_a_torch_that_breaks_while_loading_is_told_as_such(library):
    add_package(library, "torch")
    (library / "torch" / "__init__.py").write_text("import torch.missing_part")
    script = (
        "from HSAMSegmentLib.workflows.events import sentence_for\n"
        "try:\n    import torch\nexcept ImportError as error:\n    print(sentence_for(error))"
    )
    environment = {"PYTHONPATH": str(library)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert "half installed or damaged" in done.stdout


def test_an_absent_package_is_called_by_its_name():
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("nosuchpackage")
    assert "'nosuchpackage' is not installed" in sentence_for(caught.value)
