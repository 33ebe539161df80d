"""The Python packages that the engine needs: found out without importing them, installed after a question."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs

logger = logging.getLogger(__name__)

TORCH_REQUIREMENT = ">=2.2"


class DependencyError(HSAMSegmentError):
    """A package is missing and cannot, or shall not, be installed."""


@dataclass(frozen=True)
class Package:
    """One package.

    Attributes:
        module: what is imported.
        requirement: what pip is asked for.
    """

    module: str
    requirement: str


TORCH = Package("torch", f"torch{TORCH_REQUIREMENT}")
PACKAGES = (
    Package("psutil", "psutil>=5.9"),
    Package("scipy", "scipy>=1.11"),
    Package("safetensors", "safetensors>=0.4"),
    Package("SimpleITK", "SimpleITK>=2.3"),
    Package("pydicom", "pydicom>=2.4"),
    Package("requests", "requests>=2.31"),
    Package("nibabel", "nibabel>=5.0"),
)
COMPARING = tuple(package for package in PACKAGES if package.module in ("scipy", "SimpleITK"))
"""All that two segmentations are compared with; Slicer comes with both."""


def is_present(package: Package) -> bool:
    """Whether the package can be found; it is not imported, since that may take seconds or crash."""
    return importlib.util.find_spec(package.module) is not None


def is_known(package: Package) -> bool:
    """Whether pip or Python knows anything of the package, complete or not."""
    from importlib import metadata

    try:
        metadata.version(package.module)
    except metadata.PackageNotFoundError:
        return is_present(package)
    return True


def torch_problem(package: Package | None = TORCH) -> str:
    """What is wrong with PyTorch, as a sentence (missing, too old, half installed), or nothing; does not import it."""
    from importlib import metadata  # slow to import, and not needed to open the panel

    if package is None:
        return ""
    try:
        version = metadata.version(package.module)
    except metadata.PackageNotFoundError:
        version = None
    if version is None and not is_present(package):
        return _("PyTorch is not installed.")
    if version is None or not is_present(package):
        return _(
            "PyTorch is only half installed (an installation was interrupted). Remove it in the module 'PyTorch "
            "Utils', restart Slicer, and install it again."
        )
    if tuple(int(part) for part in version.split(".")[:2]) < (2, 2):
        return _(
            "PyTorch {version} is too old; 2.2 or later is needed. Update it in the module 'PyTorch Utils'."
        ).format(version=version)
    return ""


class Dependencies:
    """Checks and installs. pip runs on the main thread only, never without a question."""

    def __init__(
        self,
        dialogs: Dialogs,
        *,
        packages: tuple[Package, ...] = PACKAGES,
        torch: Package | None = TORCH,
        purpose: str = _("Segmenting"),
    ) -> None:
        """Say what is needed.

        Args:
            dialogs: asks the user.
            packages: what pip installs.
            torch: what the PyTorch extension installs, None if it is not needed.
            purpose: what they are needed for, as a sentence begins.
        """
        self._dialogs = dialogs
        self._packages = packages
        self._torch = torch
        self._purpose = purpose

    def missing(self) -> list[str]:
        """Names of what would have to be installed first."""
        names = [package.requirement for package in self._packages if not is_present(package)]
        return (["PyTorch"] if torch_problem(self._torch) else []) + names

    def ensure(self) -> None:
        """Make everything available.

        Raises:
            DependencyError: with a sentence, if the user declines or an installation fails.
        """
        missing = self.missing()
        if not missing:
            return
        size = _("PyTorch is a large download. ") if torch_problem(self._torch) else ""
        question = _(
            "These Python packages are needed and not installed:\n\n{names}\n\nInstall them now? {size}Without "
            "internet, cancel and follow the offline page of the documentation."
        ).format(names="\n".join(missing), size=size)
        if not self._dialogs.confirm(_("Install packages"), question):
            sentence = _("Nothing was installed. {purpose} needs: {names}.")
            raise DependencyError(sentence.format(purpose=self._purpose, names=", ".join(missing)))
        problem = torch_problem(self._torch)
        if problem and is_known(self._torch):
            raise DependencyError(problem)
        if problem:
            _install_torch()
        install([package.requirement for package in self._packages if not is_present(package)])


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise DependencyError(
            _(
                "PyTorch is installed by the extension 'PyTorch', which is missing. Install it in the Extensions "
                "Manager, restart Slicer, and click again."
            )
        ) from error
    install_torch_by(PyTorchUtils.PyTorchUtilsLogic())


def install_torch_by(logic) -> None:
    """Let the PyTorch extension install torch, whatever arguments its version takes.

    Raises:
        DependencyError: if it does not.
    """
    wanted = {"askConfirmation": False, "torchVersionRequirement": TORCH_REQUIREMENT}
    known = inspect.signature(logic.installTorch).parameters
    if logic.installTorch(**{key: value for key, value in wanted.items() if key in known}) is None:
        raise DependencyError(_("The PyTorch extension did not install PyTorch. Try it in the module 'PyTorch Utils'."))


def install(requirements: list[str]) -> None:
    """Install with pip.

    Raises:
        DependencyError: if pip fails.
    """
    if not requirements:
        return
    try:
        if importlib.util.find_spec("slicer.packaging") is not None:
            from slicer import packaging

            packaging.pip_ensure(requirements, prompt_install=False, requester="HSAMSegment")
        else:
            slicer.util.pip_install(requirements)
    except Exception as error:
        raise DependencyError(
            _(
                "Installing {names} failed ({error}). Check the internet connection and the proxy, or follow the "
                "offline page of the documentation."
            ).format(names=", ".join(requirements), error=error)
        ) from error
