"""Anatomical structures that are known by name: SNOMED CT codes and the colors Slicer gives them.

Codes and colors are those of Slicer's General Anatomy list and of the DICOM master list that comes with Slicer; the
myocardium is coded as SNOMED CT's "Myocardium". Where these lists have no color (myocardium, portal vein, femur), or
the same one as a neighbor, the color is ours. Slicer paints both sides of a paired organ alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from HSAMSegmentLib.labels.label_set import Code, Terminology
from HSAMSegmentLib.runtime.fixed_tuples import triple

ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
TISSUE = Code("SCT", "85756007", "Tissue")
"""What Slicer and DICOM objects call a structure until somebody says what it is."""
RIGHT = Code("SCT", "24028007", "Right")
LEFT = Code("SCT", "7771000", "Left")


@dataclass(frozen=True)
class Structure:
    """A known structure.

    Attributes:
        name: as a user reads it.
        terminology: its code.
        color: red, green, blue, each 0 to 1.
        single_piece: whether it is one connected piece in any usual field of view.
        synonyms: other names, each a set of words in any order.
    """

    name: str
    terminology: Terminology
    color: tuple[float, float, float]
    single_piece: bool
    synonyms: tuple[str, ...]


def _structure(
    name: str,
    code: str,
    meaning: str,
    color: tuple[int, int, int],
    *synonyms: str,
    side: Code | None = None,
    pieces: bool = False,
) -> Structure:
    terminology = Terminology(ANATOMICAL_STRUCTURE, Code("SCT", code, meaning), side)
    unit_color = triple(round(part / 255.0, 6) for part in color)
    return Structure(name, terminology, unit_color, not pieces, synonyms)


def _pair(name: str, code: str, meaning: str, color: tuple[int, int, int], *synonyms: str) -> tuple[Structure, ...]:
    """The structure on the right, on the left, and without a side (then it may be two pieces)."""
    right = _structure(f"right {name}", code, meaning, color, *(f"right {s}" for s in synonyms), side=RIGHT)
    left = _structure(f"left {name}", code, meaning, color, *(f"left {s}" for s in synonyms), side=LEFT)
    return (right, left, _structure(name, code, meaning, color, *synonyms, pieces=True))


KNOWN_STRUCTURES: tuple[Structure, ...] = (
    _structure("liver", "10200004", "Liver", (221, 130, 101)),
    _structure("spleen", "78961009", "Spleen", (157, 108, 162)),
    *_pair("kidney", "64033007", "Kidney", (185, 102, 83), "kidneys"),
    _structure("gallbladder", "28231008", "Gallbladder", (139, 150, 98), "gall bladder"),
    _structure("stomach", "69695003", "Stomach", (216, 132, 105)),
    _structure("aorta", "15825003", "Aorta", (224, 97, 76), pieces=True),
    _structure("pancreas", "15776009", "Pancreas", (249, 180, 111), pieces=True),
    _structure("esophagus", "32849002", "Esophagus", (211, 171, 143), "oesophagus", pieces=True),
    _structure("duodenum", "38848004", "Duodenum", (255, 253, 229), pieces=True),
    _structure("small intestine", "30315005", "Small Intestine", (205, 167, 142), "small bowel", pieces=True),
    _structure("colon", "71854001", "Colon", (204, 168, 143), pieces=True),
    *_pair("adrenal gland", "23451007", "Adrenal gland", (249, 186, 150), "adrenal"),
    _structure(
        "inferior vena cava",
        "64131007",
        "Inferior vena cava",
        (0, 151, 206),
        "ivc",
        "postcava",
        "post cava",
        pieces=True,
    ),
    _structure("portal vein", "32764006", "Portal vein", (0, 122, 171), "portal and splenic vein", pieces=True),
    _structure("bladder", "89837001", "Bladder", (222, 154, 132), "urinary bladder"),
    _structure("prostate", "41216001", "Prostate", (230, 158, 140), "prostate gland"),
    _structure("uterus", "35039007", "Uterus", (255, 181, 158)),
    _structure("heart", "80891009", "Heart", (206, 110, 84)),
    _structure(
        "left ventricular myocardium",
        "74281007",
        "Myocardium",
        (236, 200, 110),
        *(
            "left ventricle myocardium",
            "myocardium",
            "myocardium of left ventricle",
            "myocardium of the left ventricle",
        ),
        *("lv myocardium", "left ventricular muscle", "left ventricular wall", "heart myocardium"),
    ),
    _structure(
        "left ventricle",
        "87878005",
        "Left Ventricle",
        (152, 55, 13),
        *(
            "left ventricular blood pool",
            "left ventricle blood pool",
            "left ventricular cavity",
            "left ventricle cavity",
        ),
        *("lv blood pool", "lv cavity", "heart left ventricle", "left ventricle of heart"),
    ),
    _structure(
        "right ventricle",
        "53085002",
        "Right Ventricle",
        (181, 85, 57),
        *("right ventricular blood pool", "right ventricle blood pool", "right ventricular cavity"),
        *("right ventricle cavity", "rv blood pool", "rv cavity", "heart right ventricle", "right ventricle of heart"),
    ),
    _structure(
        "left atrium",
        "82471001",
        "Left atrium",
        (203, 108, 81),
        *("left atrium cavity", "left atrial cavity", "left atrium blood pool", "heart left atrium"),
    ),
    _structure(
        "right atrium",
        "73829009",
        "Right atrium",
        (210, 115, 89),
        *("right atrium cavity", "right atrial cavity", "right atrium blood pool", "heart right atrium"),
    ),
    *_pair("lung", "39607008", "Lung", (197, 165, 145), "lungs"),
    _structure("trachea", "44567001", "Trachea", (182, 228, 255)),
    _structure("brain", "12738006", "Brain", (250, 250, 225)),
    _structure("spinal cord", "2748008", "Spinal cord", (244, 214, 49)),
    _structure("thyroid", "69748006", "Thyroid", (62, 162, 114), "thyroid gland", pieces=True),
    *_pair("femur", "71341001", "Femur", (241, 214, 145), "femurs"),
)
