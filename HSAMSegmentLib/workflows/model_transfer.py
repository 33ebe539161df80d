"""What importing and exporting a model are asked to do, and what they hand back; the panel reads both without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ImportModelRequest:
    """Copy a file of weights into the store, after the checks of a download.

    Attributes:
        path: a bundle, or an official file of SAM, MobileSAM, H-SAM, SAMed or AutoSAM.
        model_id: which model of the catalog it shall be, or an id of the user's choice; empty to tell by content.
        names: values and names of the classes of an official file, where the user knows them.
        image_size: input side in pixels of an official file that does not tell it.
        overwrite: whether a stored model of the same id may be replaced.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the one that comes with the program.
    """

    kind: ClassVar[str] = "import model"

    path: str
    model_id: str = ""
    names: tuple[tuple[int, str], ...] = ()
    image_size: int | None = None
    overwrite: bool = False
    folder: str = ""
    catalog_file: str = ""


@dataclass(frozen=True)
class ImportedModel:
    """The result of an `ImportModelRequest`.

    Attributes:
        id: the id under which it is stored.
        title: as a user reads it.
        kind: "model" or "encoder".
        notes: what was assumed about it and could be wrong.
        missing: one sentence for each file that it needs and that is not here.
    """

    id: str
    title: str
    kind: str
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportModelRequest:
    """Write a model of the store to one file, for another computer.

    Attributes:
        model: its id.
        path: the file to write; the suffix is added if there is none.
        overwrite: whether an existing file may be replaced.
        folder: the store's folder; empty for the user's own.
        catalog_file: another catalog than the one that comes with the program.
    """

    kind: ClassVar[str] = "export model"

    model: str
    path: str
    overwrite: bool = False
    folder: str = ""
    catalog_file: str = ""


@dataclass(frozen=True)
class ExportedModel:
    """The result of an `ExportModelRequest`.

    Attributes:
        path: the file that was written.
        bytes: its size.
        encoder: id of the encoder that the other computer needs in addition; empty if the file is all.
    """

    path: str
    bytes: int
    encoder: str = ""


@dataclass(frozen=True)
class FetchModelRequest:
    """Bring a model from a place of others into the store.

    Attributes:
        source: a folder with an index, http(s)://..., or hf://owner/name[@revision].
        model: its id there; empty for the only one.
        model_id: the id that it gets here; empty to keep its own.
        overwrite: whether a stored model of the same id may be replaced.
        folder: the store's folder; empty for the user's own.
    """

    kind: ClassVar[str] = "fetch model"

    source: str
    model: str = ""
    model_id: str = ""
    overwrite: bool = False
    folder: str = ""
