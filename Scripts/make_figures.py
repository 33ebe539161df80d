"""Draw the figures of Docs/methods.md as SVG files: python Scripts/make_figures.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "Docs" / "figures"
LINE_HEIGHT = 17
FROZEN, TRAINED, DATA = "#dfe6ee", "#fde3c4", "#ffffff"
STROKE = "#33475b"


@dataclass(frozen=True)
class Box:
    """A box with its center, size, lines of text and color; the first line is bold."""

    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]
    fill: str

    def svg(self) -> str:
        """The box as SVG."""
        left, top = self.x - self.width // 2, self.y - self.height // 2
        parts = [
            f'<rect x="{left}" y="{top}" width="{self.width}" height="{self.height}" rx="6" fill="{self.fill}" '
            f'stroke="{STROKE}"/>'
        ]
        first = self.y - (len(self.lines) - 1) * LINE_HEIGHT / 2 + 5
        for number, line in enumerate(self.lines):
            weight = ' font-weight="bold"' if number == 0 else ""
            y = first + number * LINE_HEIGHT
            parts.append(f'<text x="{self.x}" y="{y:g}" text-anchor="middle"{weight}>{_text(line)}</text>')
        return "\n".join(parts)


@dataclass
class Figure:
    """Boxes, arrows and notes on a white page."""

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, center: tuple[int, int], size: tuple[int, int], lines: tuple[str, ...], fill: str) -> Box:
        """Add a box."""
        box = Box(*center, *size, lines, fill)
        self.parts.append(box.svg())
        return box

    def arrow(self, *points: tuple[int, int]) -> None:
        """Add an arrow along some points."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{STROKE}" marker-end="url(#tip)"/>')

    def right(self, start: Box, end: Box) -> None:
        """Add an arrow from the right edge of a box to the left edge of the next one at the same height."""
        self.arrow((start.x + start.width // 2, end.y), (end.x - end.width // 2, end.y))

    def note(self, x: int, y: int, text: str, anchor: str = "start") -> None:
        """Add a line of small text."""
        self.parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="12">{_text(text)}</text>')

    def legend(self) -> None:
        """Add a color legend at the lower left."""
        for number, (fill, text) in enumerate(((FROZEN, "frozen"), (TRAINED, "trained"), (DATA, "data"))):
            x = 20 + 100 * number
            self.parts.append(
                f'<rect x="{x}" y="{self.height - 30}" width="16" height="16" fill="{fill}" stroke="{STROKE}"/>'
            )
            self.note(x + 24, self.height - 18, text)

    def write(self, name: str) -> None:
        """Write the figure."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#1b2733">\n'
            f"<title>{escape(self.title)}</title>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{STROKE}"/></marker></defs>\n'
            f'<rect width="{self.width}" height="{self.height}" rx="8" fill="#ffffff"/>'
        )
        (FOLDER / name).write_text("\n".join([head, *self.parts, "</svg>\n"]), encoding="utf-8")


def _text(line: str) -> str:
    return escape(line).replace(" x ", " &#215; ")


def hsam() -> Figure:
    """The two stages of H-SAM."""
    figure = Figure(960, 450, "H-SAM: the second decoder is guided by the first")
    image = figure.box((70, 110), (100, 60), ("slice", "3 x S x S"), DATA)
    encoder = figure.box(
        (235, 110), (160, 80), ("SAM's image encoder", "frozen; LoRA on", "queries and values"), FROZEN
    )
    embedding = figure.box((410, 110), (120, 60), ("embedding", "C x h x w"), DATA)
    first = figure.box((600, 110), (170, 80), ("first decoder", "SAM's mask decoder,", "one token per class"), TRAINED)
    coarse = figure.box((830, 110), (150, 60), ("first logits", "(K + 1) x 4h x 4w"), DATA)
    figure.box(
        (410, 255), (170, 80), ("class-balanced gate", "enlarges the embedding", "where classes are rare"), TRAINED
    )
    second = figure.box(
        (600, 355), (170, 96), ("second decoder", "mask cross-attention,", "hierarchical", "pixel decoder"), TRAINED
    )
    fine = figure.box((830, 355), (150, 60), ("second logits", "(K + 1) x 16h x 16w"), DATA)
    for start, end in ((image, encoder), (encoder, embedding), (embedding, first), (first, coarse), (second, fine)):
        figure.right(start, end)
    figure.arrow((410, 140), (410, 215))
    figure.arrow((410, 295), (410, 355), (515, 355))
    figure.arrow((560, 150), (560, 225), (495, 225))
    figure.note(500, 246, "tokens")
    figure.arrow((620, 150), (620, 307))
    figure.note(612, 282, "upscaled features", "end")
    figure.arrow((830, 140), (830, 230), (660, 230), (660, 307))
    figure.note(675, 222, "where each class is")
    figure.note(20, 30, "H-SAM (Cheng et al., CVPR 2024): stage one finds, stage two refines.")
    figure.legend()
    return figure


def autosam() -> Figure:
    """The three heads of AutoSAM."""
    figure = Figure(960, 420, "AutoSAM: three heads on a frozen encoder")
    image = figure.box((70, 200), (100, 60), ("slice", "3 x S x S"), DATA)
    encoder = figure.box((235, 200), (160, 60), ("SAM's image encoder", "frozen"), FROZEN)
    embedding = figure.box((410, 200), (120, 60), ("embedding", "C x h x w"), DATA)
    figure.right(image, encoder)
    figure.right(encoder, embedding)
    heads = (
        (90, ("ViT head", "SAM's mask decoder once per class,", "tokens of its own for each")),
        (200, ("CNN head", "blocks of convolutions,", "the last two double the resolution")),
        (310, ("linear head", "upscaling,", "a perceptron for each pixel")),
    )
    for y, lines in heads:
        head = figure.box((640, y), (240, 80), lines, TRAINED)
        figure.arrow((470, 200), (495, 200), (495, y), (520, y))
        logits = figure.box((860, y), (140, 60), ("logits", "(K + 1) x 4h x 4w"), DATA)
        figure.right(head, logits)
    figure.note(20, 30, "AutoSAM (Hu et al., 2023): the encoder stays as it is, a head without prompts is trained.")
    figure.legend()
    return figure


def main() -> None:
    """Draw all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    hsam().write("hsam.svg")
    autosam().write("autosam.svg")


if __name__ == "__main__":
    main()
