"""Make pictures of every tab in every state, for several screen sizes and palettes: for review, not to commit.

    python Scripts/make_panel_pictures.py build/panel
    python Scripts/make_panel_pictures.py build/panel --widths 380 --colors dark

One picture per tab, width, height and palette, with its states side by side.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTHS, HEIGHTS = (380, 510, 700), (720, 1050)


def main() -> int:
    """Make all pictures; return the exit code."""
    options = _arguments()
    for folder in ("Testing/Host", "Testing/Python", "."):
        sys.path.insert(0, str(REPOSITORY / folder))
    from slicerhost import start_host

    host = start_host()
    host.load_module(str(REPOSITORY / "HSAMSegment" / "HSAMSegment.py"))
    options.folder.mkdir(parents=True, exist_ok=True)
    for colors in options.colors:
        for height in options.heights:
            for width in options.widths:
                grab_all(host, options.folder, width, height, colors)
    return 0


def grab_all(host, folder: Path, width: int, height: int, colors: str) -> None:
    """One picture per tab."""
    import qt
    from panel_states import STATES, show_state

    host.use_colors(colors)
    for key, states in STATES.items():
        sheet = qt.QPixmap((width + 8) * len(states), height)
        sheet.fill(qt.QColor("magenta"))
        painter = qt.QPainter(sheet)
        for number, state in enumerate(states):
            widget = host.open_module("HSAMSegment")
            panel = host.show_in_panel(widget, width, height, colors)
            show_state(host, widget, key, state)
            painter.drawPixmap(number * (width + 8), 0, panel.grab())
            widget.cleanup()
            panel.give_back()
            host.process_events()
        painter.end()
        sheet.save(str(folder / f"{key}_{width}x{height}_{colors}.png"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--heights", type=int, nargs="+", default=HEIGHTS)
    parser.add_argument("--colors", nargs="+", default=("light", "dark"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
