"""Draw the figures of Docs/methods.md as SVG.

python Scripts/draw_figures.py
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "Docs" / "figures"
BLUE, GREEN, ORANGE, GRAY = "#d6e6f7", "#d9f0dd", "#fde8cf", "#eceff1"
LINE = "#455a64"


class Figure:
    """Boxes and arrows with texts, in user units of one pixel."""

    def __init__(self, width: int, height: int, title: str) -> None:
        """Begin an empty figure; `title` is read by screen readers."""
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, lines: Iterable[str], fill: str) -> None:
        """A rounded box with centered lines of text; the first one is bold."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{LINE}"/>'
        )
        lines = list(lines)
        top = y + height / 2 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            weight = ' font-weight="bold"' if number == 0 else ""
            self.text(x + width / 2, top + 18 * number + 5, line, extra=weight + ' text-anchor="middle"')

    def text(self, x: float, y: float, line: str, *, extra: str = "") -> None:
        """A line of text; it starts at x unless `extra` says otherwise."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{extra}>{escape(line)}</text>')

    def arrow(self, *points: tuple[int, int]) -> None:
        """A line through the points with a head at the last one."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2" marker-end="url(#head)"/>'
        )

    def write(self, path: Path) -> None:
        """Write the file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="Helvetica, Arial, sans-serif" font-size="14" fill="#263238" '
            f'role="img"><title>{escape(self.title)}</title>'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{LINE}"/></marker></defs>'
            f'<rect width="{self.width}" height="{self.height}" fill="white"/>'
        )
        path.write_text("\n".join([head, *self.parts, "</svg>"]) + "\n", encoding="utf-8")


def hsam() -> Figure:
    """The two stages of H-SAM."""
    figure = Figure(960, 330, "The two stages of H-SAM")
    figure.box(20, 60, 120, 90, ["Slice", "S x S", "3 channels"], GRAY)
    figure.box(180, 60, 150, 90, ["Encoder", "SAM with LoRA,", "or compact"], BLUE)
    figure.box(390, 60, 190, 90, ["First decoder", "K + 1 mask tokens,", "image at S / 16"], GREEN)
    figure.box(390, 220, 190, 80, ["Class weights", "where each class is", "likely, at S / 16"], ORANGE)
    figure.box(650, 130, 170, 90, ["Second decoder", "attends where the", "first one looked"], GREEN)
    figure.text(592, 76, "logits and fine")
    figure.text(592, 94, "maps at S / 4")
    figure.text(836, 164, "logits at S")
    figure.text(836, 184, "labels")
    figure.arrow((140, 105), (178, 105))
    figure.arrow((330, 105), (388, 105))
    figure.arrow((485, 150), (485, 218))
    figure.arrow((580, 118), (620, 118), (620, 150), (648, 150))
    figure.arrow((580, 260), (620, 260), (620, 200), (648, 200))
    figure.arrow((355, 105), (355, 30), (735, 30), (735, 128))
    figure.text(470, 24, "image embedding, weighted by a gate")
    figure.text(440, 190, "mask-guided", extra=' text-anchor="end"')
    figure.arrow((820, 175), (832, 175))
    return figure


def autosam() -> Figure:
    """The heads of AutoSAM."""
    figure = Figure(960, 360, "The heads of AutoSAM")
    figure.box(20, 130, 120, 90, ["Slice", "S x S", "3 channels"], GRAY)
    figure.box(180, 130, 170, 90, ["SAM's encoder", "frozen: its output", "can be stored"], BLUE)
    rows = (
        (20, ["ViT head", "SAM's mask decoder, once per class;", "tokens of its own for each class"]),
        (140, ["CNN head", "four blocks of convolutions,", "the last two double the resolution"]),
        (260, ["Linear head", "upscaling twice, then a small", "perceptron for each pixel"]),
    )
    for top, lines in rows:
        figure.box(440, top, 290, 80, lines, GREEN)
        figure.arrow((350, 175), (395, 175), (395, top + 40), (438, top + 40))
        figure.arrow((730, top + 40), (788, top + 40))
        figure.text(796, top + 36, "logits at S / 4,")
        figure.text(796, top + 54, "enlarged to the slice")
    figure.arrow((140, 175), (178, 175))
    return figure


def main() -> None:
    """Write all figures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    hsam().write(FOLDER / "hsam.svg")
    autosam().write(FOLDER / "autosam.svg")


if __name__ == "__main__":
    main()
