"""The check of a device: every part in turn, and one table as Markdown.

    Testing/Device/check.sh                          # the first CUDA device, all of it
    Testing/Device/check.sh --device cpu --quick     # the script itself, small, on any machine
    Testing/Device/check.sh --parts parity volume --output table.md

A part that fails or lacks a package has a row that says so; the others run. The exit code is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import time
import traceback
from pathlib import Path

import torch
from device_tools import Row, Setting, matrix_rate

PARTS = ("parity", "throughput", "volume", "finetuning", "memory")


def main() -> int:
    """Read the options, run the parts, print the table."""
    options = read_options()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("torch sees no CUDA device here. Use a machine with one, or --device cpu --quick.\n")
        return 2
    setting = Setting(torch.device(options.device), options.quick)
    if setting.quick:
        torch.manual_seed(0)
    rows, failed = about(setting), False
    for part in options.parts:
        started = time.perf_counter()
        found, is_broken = rows_of(part, setting)
        failed |= is_broken
        rows += [*found, Row(part, "duration of this part", f"{time.perf_counter() - started:.0f} s")]
        sys.stderr.write(f"{part}: {time.perf_counter() - started:.0f} s\n")
    table = "\n".join(["| part | what | result |", "|---|---|---|", *(row.markdown for row in rows)])
    print(table)
    if options.output:
        options.output.write_text(table + "\n", encoding="utf-8")
    return int(failed)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="small networks and volumes: tries the script, not a card")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--output", type=Path, help="file for the table")
    return parser.parse_args()


def about(setting: Setting) -> list[Row]:
    """What this machine is, and how fast its own matrix products are."""
    name = torch.cuda.get_device_name(setting.device) if setting.is_cuda else platform.processor() or "CPU"
    rows = [Row("machine", "device", f"{name}, torch {torch.__version__}, Python {platform.python_version()}")]
    for dtype in (torch.float32, torch.bfloat16):
        rate = matrix_rate(setting, dtype)
        rows.append(Row("machine", f"matrix products, {str(dtype)[6:]}", f"{rate / 1e12:.3g} TFLOP/s"))
    return rows


def rows_of(part: str, setting: Setting) -> tuple[list[Row], bool]:
    """The rows of a part, and whether it failed; a missing package is no failure."""
    try:
        rows = importlib.import_module(f"check_{part}").rows(setting)
        return rows, any(row.is_failure for row in rows)
    except ImportError as error:
        return [Row(part, "left out", f"the package {error.name or error} is missing")], False
    except Exception as error:  # noqa: BLE001 - the other parts still have something to say
        traceback.print_exc()
        return [Row(part, "FAILED", f"{type(error).__name__}: {error}".splitlines()[0])], True


if __name__ == "__main__":
    sys.exit(main())
