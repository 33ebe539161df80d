"""The arguments of every subcommand. Imports nothing heavy, since help must be immediate."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from HSAMSegmentLib.cli.cohort_arguments import add_cohort_arguments
from HSAMSegmentLib.errors import RequestError

_PLACE = "FOLDER|URL|hf://OWNER/NAME"

PROGRAM = "hsam-segment"


def checked(kind: Callable[[str], float], lowest: float, description: str) -> Callable[[str], float]:
    """Argument type: a finite number of at least `lowest`; `description` completes "'x' is not ..."."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not {description}") from None
        if not lowest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"'{text}' is not {description}")
        return value

    return parse


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Address, tokens, models and limits."""
    number = checked(float, 0.001, "a positive number")
    count = checked(int, 1, "a whole number from 1 on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this computer only")
    parser.add_argument("--port", type=checked(int, 0, "a port"), default=8000, help="default: 8000; 0 for a free one")
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="tokens, one a line; or $HSAMSEGMENT_TOKEN")
    parser.add_argument("--certificate", metavar="PEM", type=Path, help="serve HTTPS with this certificate")
    parser.add_argument("--key", metavar="PEM", type=Path, help="private key, if the certificate's file lacks it")
    parser.add_argument("--model", metavar="ID|FILE", help="for requests that name none; default: what fits the scan")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: auto")
    parser.add_argument("--workers", metavar="N", type=count, default=1, help="jobs at the same time; default: 1")
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, help="for uploads; default: the folder for temporary files"
    )
    parser.add_argument("--max-upload-mb", metavar="MB", type=number, default=2000.0, help="default: 2000")
    parser.add_argument("--max-unpacked-mb", metavar="MB", type=number, default=8000.0, help="of a ZIP; default: 8000")
    parser.add_argument("--max-waiting", metavar="N", type=count, default=100, help="jobs in the queue; default: 100")
    parser.add_argument("--max-job-minutes", metavar="M", type=number, default=60.0, help="default: 60")
    parser.add_argument("--keep-minutes", metavar="M", type=number, default=60.0, help="for the client; default: 60")
    parser.add_argument("--silence-seconds", metavar="S", type=number, default=30.0, help="longest pause; default: 30")


def add_source(parser: argparse.ArgumentParser) -> None:
    """`--from`, for listing."""
    parser.add_argument("--from", dest="source", metavar=_PLACE, default="", help="a place of others with models")


def add_download_options(parser: argparse.ArgumentParser) -> None:
    """What to download, and its source."""
    parser.add_argument("id", metavar="ID", nargs="?", help="a model's id, or hf://owner/name[@revision]")
    add_source(parser)
    parser.add_argument("--as", dest="new_id", metavar="ID", help="the id that it gets here (with --from)")
    parser.add_argument("--yes", action="store_true", help="do not ask: the license is accepted")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of the same id (with --from)")


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """What to share, and the destination."""
    parser.add_argument("id", metavar="ID", help="a model's id")
    parser.add_argument("destination", metavar="FOLDER|hf://OWNER/NAME", help="where to")
    parser.add_argument("--dry-run", action="store_true", help="show what would go, and send nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--public", action="store_true", help="a new repository of the hub is open to everybody")
    parser.add_argument("--keep-scan-names", action="store_true", help="do not replace names of training scans")
    parser.add_argument("--overwrite", action="store_true", help="replace the model if it is there")


class CommandParser(argparse.ArgumentParser):
    """An argument parser that reports errors as a `RequestError`, in one sentence with a suggestion."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_command(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the whole command line.

        Raises:
            RequestError: if anything is missing, malformed or unknown.
        """
        namespace, unknown = self.parse_known_args(argv)
        if unknown:
            help_text = namespace.parser.format_help()
            known = sorted(set(re.findall(r"--[a-z0-9-]+", help_text)))
            near = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            namespace.parser.error(f"unknown argument {unknown[0]}.{hint}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """Reject the command line.

        Raises:
            RequestError: always.
        """
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        near = difflib.get_close_matches(choice[1], re.findall(r"[\w.-]+", choice[2]), n=1) if choice else []
        hint = f" Did you mean {near[0]}?" if near else ""
        end = "" if message.endswith((".", "?")) else "."
        raise RequestError(f"{message}{end}{hint} See '{self.prog} --help'.")


def add_segment(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`segment INPUT -o OUTPUT`."""
    parser = _command(
        subparsers,
        "segment",
        "Find the organs in a scan, a DICOM folder, or every scan of a folder or list.",
        epilog="Lists of scans: a folder or BIDS data set; a glob pattern in quotes; a .csv file with a column 'path' "
        "and, if wanted, 'id'; '-' for paths on standard input. A second run does only what is missing.",
    )
    parser.add_argument(
        "input", metavar="INPUT", type=Path, help="a volume file, a DICOM folder, or a folder or list of scans"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        type=Path,
        required=True,
        help="a .seg.nrrd, .nrrd, .nii, .nii.gz, .mha, .dcm (DICOM Segmentation, or RT Structure Set with --format "
        "rtstruct), .stl, .obj or .vtp file; a folder if INPUT is a folder or list of scans",
    )
    parser.add_argument("--model", metavar="ID|FILE", help="a model of 'hsam-segment models', or a model file")
    parser.add_argument("--organs", metavar="A,B", type=_names, default=(), help="only these; default: all")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: auto")
    parser.add_argument(
        "--roi",
        metavar="I0,I1,J0,J1,K0,K1",
        type=_roi,
        help="segment only this box of voxel indices; the first of each pair is inside, the second is not",
    )
    parser.add_argument("--preview", metavar="PNG", type=Path, help="write a picture with outlines; for one scan")
    parser.add_argument("--report", metavar="JSON", type=Path, help="write volumes, confidence, warnings; for one scan")
    parser.add_argument(
        "--statistics",
        metavar="CSV",
        type=Path,
        help="write volume, surface, intensities, place and confidence of each structure, for one scan or a folder",
    )
    parser.add_argument("--previews", action="store_true", help="a picture per scan, for a folder of scans")
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="seg.nrrd, nrrd, nii.gz, nii, mha, dicom-seg, rtstruct, stl, obj or vtp; default: by the name of OUTPUT, "
        "seg.nrrd for a folder of scans",
    )
    parser.add_argument("--series", metavar="UID", help="UID (or its end), number or description of a DICOM series")
    parser.add_argument("--batch-size", metavar="N", type=_count, help="slices at once; default: what memory allows")
    parser.add_argument("--flip-averaging", action="store_true", help="average over flipped slices: slower, steadier")
    parser.add_argument(
        "--no-tta",
        action="store_true",
        help="no test-time augmentation: one pass per slice, even for models that average over rotated slices or other "
        "planes; faster",
    )
    parser.add_argument("--single-view", action="store_true", dest="no_tta", help=argparse.SUPPRESS)  # name in 0.1
    parser.add_argument("--full-precision", action="store_true", help="compute in float32 throughout")
    parser.add_argument("--no-postprocessing", action="store_true", help="none of the three steps below")
    parser.add_argument("--keep-islands", action="store_true", help="do not reduce organs to their largest piece")
    parser.add_argument("--keep-holes", action="store_true", help="do not fill holes")
    parser.add_argument("--keep-specks", action="store_true", help="do not drop specks")
    add_cohort_arguments(parser)
    _common(parser, overwrite="replace OUTPUT, PNG and JSON if they exist")


def add_evaluate(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`evaluate PREDICTION REFERENCE`."""
    parser = _command(
        subparsers,
        "evaluate",
        "Compare a segmentation with a reference: Dice, Jaccard, HD95, ASD and volumes of each structure.",
        epilog="A structure that is empty in both is absent and in no mean. Empty in one of them: Dice 0, and no "
        "surface distance. The convention 'hsam' is the papers': distances in voxels; predicted without reference "
        "counts as Dice 1 and HD95 0, missed or absent as Dice 0 and HD95 0, and all of them are in the means.",
    )
    parser.add_argument("prediction", metavar="PREDICTION", type=Path, help="the segmentation to judge")
    parser.add_argument("reference", metavar="REFERENCE", type=Path, help="the segmentation taken as true")
    parser.add_argument("--organs", metavar="A,B", type=_names, default=(), help="compare only these")
    parser.add_argument("--names", metavar="1=A,2=B", type=_named_values, help="what unnamed values mean")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers, those of each slice included")
    parser.add_argument("--convention", choices=("ours", "hsam"), default="ours", help="default: ours (millimeters)")
    _common(parser, overwrite="replace FILE if it exists")


def add_models(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`models [list|show|download|push|import|export|remove]`."""
    parser = _command(subparsers, "models", "List, fetch, share, import, export and remove models.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    _common(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=CommandParser)
    parser.set_defaults(action="list", source="")
    listing = _action(actions, "list", "what is there and what can be fetched (the default)")
    listing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    add_source(listing)
    show = _action(actions, "show", "everything a model says about itself")
    show.add_argument("id", metavar="ID|FILE", help="a model's id, or a model file")
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    download = _action(actions, "download", "fetch a model; shows its size and license first and asks")
    add_download_options(download)
    add_push_options(_action(actions, "push", "share a model: with a folder, or a repository of the Hugging Face hub"))
    importing = _action(actions, "import", "check a file of weights and copy it to the store")
    importing.add_argument("file", metavar="FILE", type=Path, help="a model file, or an official file of weights")
    importing.add_argument("--id", metavar="ID", help="how to call an official file")
    importing.add_argument("--names", metavar="1=A,2=B", type=_named_values, help="what its classes are")
    importing.add_argument("--image-size", metavar="S", type=_count, help="pixels, if the file does not tell")
    importing.add_argument("--overwrite", action="store_true", help="replace a model of the same id")
    export = _action(actions, "export", "copy a model to a file, to share it")
    export.add_argument("id", metavar="ID", help="a model's id")
    export.add_argument("file", metavar="FILE", type=Path, help="where to")
    export.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    remove = _action(actions, "remove", "delete a model from the store")
    remove.add_argument("id", metavar="ID", help="a model's id")


def add_convert(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`convert LABELS -o OUTPUT`."""
    parser = _command(
        subparsers, "convert", "Write labels, such as corrected ones, in another format, and measure them."
    )
    parser.add_argument("labels", metavar="LABELS", type=Path, help="a segmentation or label map")
    parser.add_argument("-o", "--output", metavar="OUTPUT", type=Path, help="the file to write, as for 'segment'")
    parser.add_argument(
        "--scan",
        metavar="SCAN",
        type=Path,
        help="the scan: a file or DICOM folder; DICOM formats and intensities need it",
    )
    parser.add_argument("--series", metavar="UID", help="UID (or its end), number or description of a DICOM series")
    parser.add_argument("--format", metavar="NAME", help="as for 'segment'; default: by the name of OUTPUT")
    parser.add_argument("--names", metavar="1=A,2=B", type=_named_values, help="what unnamed values mean")
    parser.add_argument("--statistics", metavar="CSV", type=Path, help="write volume, surface, place, intensities")
    _common(parser, overwrite="replace OUTPUT and CSV if they exist")


def add_report(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`report FOLDER -o PAGE`."""
    parser = _command(
        subparsers,
        "report",
        "Make one web page of a folder of results: distributions, what is unusual, pictures.",
        epilog="The page needs nothing but itself and works offline. Links lead to the files beside it.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="a folder that a folder of scans was segmented into"
    )
    parser.add_argument("-o", "--output", metavar="HTML", type=Path, required=True, help="where to write the page")
    parser.add_argument("--title", metavar="TEXT", default="", help="headline; default: the name of FOLDER")
    parser.add_argument("--no-pictures", action="store_true", help="no pictures: quicker and smaller; no scan is read")
    _common(parser, overwrite="replace HTML if it exists")


def add_doctor(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`doctor`."""
    parser = _command(
        subparsers,
        "doctor",
        "Check versions, devices, weights and disk, and say what to do.",
        epilog="The exit code is 0 if this computer can segment, 5 if no model is ready to use, and 7 if a package or "
        "torch is missing, no device works, or the self-test fails.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--self-test", action="store_true", help="also segment a synthetic scan and compare with the recorded result"
    )
    _common(parser)


def add_finetune(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`finetune --case IMAGE LABELS -o MODEL`; `teach`, its name in version 0.1, is hidden from the help."""
    description = "Fine-tune a model on one or more labeled scans."
    _add_finetune_options(_command(subparsers, "finetune", description))
    _add_finetune_options(_command(subparsers, "teach", description, is_hidden=True))


def _add_finetune_options(parser: CommandParser) -> None:
    pair: dict[str, Any] = {"metavar": ("IMAGE", "LABELS"), "nargs": 2, "type": Path, "action": "append"}
    parser.add_argument("--case", dest="cases", help="a scan and its labels; may be repeated", **pair)
    parser.add_argument("--validate", default=[], help="a scan and its labels to choose the best state by", **pair)
    parser.add_argument("-o", "--output", metavar="MODEL", type=Path, help="a .safetensors file")
    parser.add_argument(
        "--suggest",
        metavar=("N", "FOLDER"),
        nargs=2,
        help="instead of training, say which N scans of FOLDER to label next; --start-from names the model",
    )
    parser.add_argument("--names", metavar="1=A,2=B", type=_named_values, help="what the label values mean")
    parser.add_argument("--head", choices=("hsam", "autosam", "cnn", "linear"), help="default: what measured best")
    parser.add_argument("--encoder", metavar="ID", help="image encoder, see 'hsam-segment models'")
    parser.add_argument("--start-from", metavar="ID|FILE", help="take over what fits of another model")
    parser.add_argument("--lora-blocks", metavar="K", type=_count_or_zero, help="adapt the encoder's last K blocks")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", metavar="M", type=_minutes, help="how long it may take")
    budget.add_argument("--epochs", metavar="N", type=_count, help="how many epochs, instead of a time")
    parser.add_argument(
        "--schedule",
        choices=("constant", "cosine", "hsam", "autosam"),
        default="",
        help="of the learning rate; default: constant for few scans, else cosine; the others are those of the papers",
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="same seed, same machine, same model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: auto")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run of this MODEL stopped")
    parser.add_argument("--stream", metavar="FOLDER", type=Path, help="keep slices there instead of in memory")
    parser.add_argument("--report", metavar="JSON", type=Path, help="write settings, losses and metrics; suggestions")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="write the curves as a picture")
    _common(parser, overwrite="replace MODEL, JSON and PNG if they exist")


def add_serve(subparsers: argparse._SubParsersAction[CommandParser]) -> None:
    """`serve [--host HOST] [--port PORT]`."""
    parser = _command(
        subparsers,
        "serve",
        "Segment scans for other programs, over HTTP.",
        epilog="Needs the extra 'serve'. /docs of the running service describes its addresses and answers. Scans and "
        "results are deleted when they were delivered.",
    )
    add_serve_options(parser)
    _common(parser)


def _command(
    subparsers: argparse._SubParsersAction[CommandParser],
    name: str,
    description: str,
    epilog: str | None = None,
    is_hidden: bool = False,
) -> CommandParser:
    listed: dict[str, Any] = {} if is_hidden else {"help": description}  # a command without help is not listed
    parser = subparsers.add_parser(name, description=description, epilog=epilog, **listed)
    parser.set_defaults(parser=parser)
    return parser


def _action(actions: argparse._SubParsersAction[CommandParser], name: str, description: str) -> CommandParser:
    parser = _command(actions, name, description)
    # Without a default of its own, the action does not override an earlier option: `models --quiet list`.
    _common(parser, default=argparse.SUPPRESS)
    return parser


def _common(parser: CommandParser, overwrite: str | None = None, default: object = False) -> None:
    if overwrite is not None:
        parser.add_argument("--overwrite", action="store_true", help=overwrite)
    parser.add_argument("--quiet", "-q", action="store_true", default=default, help="nothing but errors")
    parser.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise argparse.ArgumentTypeError("give names separated by commas")
    return names


def _named_values(text: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for part in text.split(","):
        value, equals, name = part.partition("=")
        if not (equals and value.strip().isdigit() and 1 <= int(value) <= 255 and name.strip()):
            raise argparse.ArgumentTypeError(f"'{part}' is not of the form VALUE=NAME with a value from 1 to 255")
        if int(value) in names:
            raise argparse.ArgumentTypeError(f"the value {int(value)} has two names")
        names[int(value)] = name.strip()
    return names


def _roi(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 6 or not all(re.fullmatch(r"\s*\d+\s*", part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not six voxel indices i0,i1,j0,j1,k0,k1")
    bounds = tuple(int(part) for part in parts)
    if any(low >= high for low, high in zip(bounds[::2], bounds[1::2])):
        raise argparse.ArgumentTypeError(f"'{text}' is an empty box: the second index of each pair must be larger")
    return bounds


_count = checked(int, 1, "a whole number from 1 on")
_count_or_zero = checked(int, 0, "a whole number from 0 on")
_minutes = checked(float, 0.01, "a number of minutes")
