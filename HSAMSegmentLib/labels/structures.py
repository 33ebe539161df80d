"""Anatomical structures that are known by name, with their SNOMED CT codes and colors.

Codes are from Slicer's General Anatomy list and from the DICOM master list that comes with Slicer; the myocardium has
SNOMED CT's "Myocardium". The colors are our own, since Slicer's list gives nearly the same one to the liver and both
kidneys, and to both ventricles: structures that are seen together differ in color, and neighbors also in brightness,
for grayscale prints.
"""

from __future__ import annotations

from dataclasses import dataclass

from HSAMSegmentLib.labels.label_set import Code, Terminology
from HSAMSegmentLib.runtime.serialization import triple

ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
TISSUE = Code("SCT", "85756007", "Tissue")
"""The name that Slicer and DICOM objects use for a structure without terminology."""
RIGHT = Code("SCT", "24028007", "Right")
LEFT = Code("SCT", "7771000", "Left")


@dataclass(frozen=True)
class Structure:
    """A known structure.

    Attributes:
        name: display name.
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


def _pair(
    name: str,
    code: str,
    meaning: str,
    right_color: tuple[int, int, int],
    left_color: tuple[int, int, int],
    *synonyms: str,
) -> tuple[Structure, ...]:
    """The structure on the right, on the left, and without a side (which may be two pieces)."""
    right = _structure(f"right {name}", code, meaning, right_color, *(f"right {s}" for s in synonyms), side=RIGHT)
    left = _structure(f"left {name}", code, meaning, left_color, *(f"left {s}" for s in synonyms), side=LEFT)
    return (right, left, _structure(name, code, meaning, right_color, *synonyms, pieces=True))


KNOWN_STRUCTURES: tuple[Structure, ...] = (
    _structure("liver", "10200004", "Liver", (149, 108, 27)),
    _structure("spleen", "78961009", "Spleen", (152, 94, 200)),
    *_pair("kidney", "64033007", "Kidney", (102, 219, 120), (243, 200, 66), "kidneys"),
    _structure("gallbladder", "28231008", "Gallbladder", (187, 255, 104), "gall bladder"),
    _structure("stomach", "69695003", "Stomach", (246, 141, 170)),
    _structure("aorta", "15825003", "Aorta", (236, 41, 40), pieces=True),
    _structure("pancreas", "15776009", "Pancreas", (255, 227, 153), pieces=True),
    _structure("esophagus", "32849002", "Esophagus", (200, 129, 95), "oesophagus", pieces=True),
    _structure("duodenum", "38848004", "Duodenum", (234, 123, 10), pieces=True),
    _structure("small intestine", "30315005", "Small Intestine", (165, 177, 172), "small bowel", pieces=True),
    _structure("colon", "71854001", "Colon", (51, 110, 16), pieces=True),
    *_pair("adrenal gland", "23451007", "Adrenal gland", (166, 255, 241), (253, 244, 238), "adrenal"),
    _structure(
        "inferior vena cava",
        "64131007",
        "Inferior vena cava",
        (110, 190, 255),
        "ivc",
        "postcava",
        "post cava",
        pieces=True,
    ),
    _structure("portal vein", "32764006", "Portal vein", (20, 80, 190), "portal and splenic vein", pieces=True),
    _structure("bladder", "89837001", "Bladder", (254, 255, 76), "urinary bladder"),
    _structure("prostate", "41216001", "Prostate", (143, 88, 150), "prostate gland"),
    _structure("uterus", "35039007", "Uterus", (230, 90, 152)),
    _structure("heart", "80891009", "Heart", (202, 46, 120)),
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
        (150, 30, 40),
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
        (70, 140, 230),
        *("right ventricular blood pool", "right ventricle blood pool", "right ventricular cavity"),
        *("right ventricle cavity", "rv blood pool", "rv cavity", "heart right ventricle", "right ventricle of heart"),
    ),
    _structure(
        "left atrium",
        "82471001",
        "Left atrium",
        (240, 130, 161),
        *("left atrium cavity", "left atrial cavity", "left atrium blood pool", "heart left atrium"),
    ),
    _structure(
        "right atrium",
        "73829009",
        "Right atrium",
        (20, 70, 90),
        *("right atrium cavity", "right atrial cavity", "right atrium blood pool", "heart right atrium"),
    ),
    *_pair("lung", "39607008", "Lung", (138, 186, 227), (201, 217, 176), "lungs"),
    _structure("trachea", "44567001", "Trachea", (225, 245, 255)),
    _structure("brain", "12738006", "Brain", (250, 250, 225)),
    _structure("spinal cord", "2748008", "Spinal cord", (244, 214, 49)),
    _structure("thyroid", "69748006", "Thyroid", (62, 162, 114), "thyroid gland", pieces=True),
    *_pair("femur", "71341001", "Femur", (243, 211, 150), (190, 160, 90), "femurs"),
)
