"""What the embedded models are: data, splits, rules, augmentation. Plain data; `embedded` trains them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, PredictionRule, SliceRule
from HSAMSegmentLib.training.data.augment import AugmentRule
from HSAMSegmentLib.training.recipe import NEIGHBORS_MM
from HSAMSegmentLib.weights.manifest import License

HEAD_OPTIONS = {"mlp_dim": 256, "dropout": 0.1, "embedding_noise": 0.02}
STRONG_INTENSITIES = {"gamma": (0.55, 1.8), "contrast": (0.7, 1.4), "brightness": 0.1, "bias_field": 0.25}
LAST_STAGE = PredictionRule(stages="last")
THIN_SLICES = PredictionRule(stages="last", neighbors_mm=NEIGHBORS_MM)
TWO_VIEWS = PredictionRule(stages="last", views=((0.0, 1.0), (15.0, 1.0)))
INHERITED = "A model trained on these scans inherits the terms of the scans."


@dataclass(frozen=True)
class BuiltinTask:
    """One embedded model.

    Attributes:
        id: of the model.
        title: as a user reads it.
        folder: of the data set, with a `dataset.json`.
        labels: names of the label values 1..K.
        image_size: side of the network's input in segmenting.
        train_size: rows and columns of the views in training; smaller than the input where the rest is empty.
        full_size_every: every n-th step trains on views of `image_size` instead.
        batch_size: views per step.
        slices: how volumes are cut and framed.
        augment: how far views differ from slices.
        validation: ids of the scans held out.
        field_of_view_mm: plausible extent of slices.
        license: terms.
        citation: data sets to cite.
        description: what it is for.
        weak_points: where it fails.
        intensity: how grey values are scaled.
        prediction: how the outputs are read.
    """

    id: str
    title: str
    folder: str
    labels: tuple[str, ...]
    image_size: int
    train_size: tuple[int, int]
    batch_size: int
    slices: SliceRule
    augment: AugmentRule
    validation: tuple[str, ...]
    field_of_view_mm: tuple[float, float]
    license: License
    citation: tuple[str, ...]
    description: str
    weak_points: str
    full_size_every: int = 1
    intensity: IntensityRule = field(default_factory=IntensityRule)
    prediction: PredictionRule = LAST_STAGE

    @property
    def architecture(self) -> Architecture:
        """The compact encoder with an H-SAM head in the paper's form."""
        encoder = EncoderSpec("compact", self.image_size)
        return Architecture(encoder, "hsam", len(self.labels), form="paper", options=dict(HEAD_OPTIONS))


@dataclass(frozen=True)
class DatasetCase:
    """Files of one scan of a data set."""

    id: str
    image: Path
    label: Path


def dataset_cases(folder: Path) -> tuple[DatasetCase, ...]:
    """The scans that a data set's `dataset.json` lists.

    Raises:
        TrainingError: if the folder is not there.
    """
    index = folder / "dataset.json"
    if not index.is_file():
        raise TrainingError(f"There is no data set in {folder}: dataset.json is missing.")
    entries = json.loads(index.read_text(encoding="utf-8"))["cases"]
    return tuple(DatasetCase(item["id"], folder / item["image"], folder / item["label"]) for item in entries)


ABDOMEN = BuiltinTask(
    id="abdomen-mr-t2",
    title="Abdomen, T2-weighted MR",
    folder="chaos_t2",
    labels=("liver", "right kidney", "left kidney", "spleen"),
    image_size=256,
    train_size=(176, 224),
    batch_size=4,
    full_size_every=4,
    slices=SliceRule(framing="spacing", pixel_spacing_mm=1.25, context="adjacent", context_mm=7.5),
    augment=AugmentRule(rotation_degrees=20, scale=(0.75, 1.3), elastic_px=5, **STRONG_INTENSITIES),
    validation=("chaos_t2_05", "chaos_t2_20", "chaos_t2_34"),
    prediction=TWO_VIEWS,
    field_of_view_mm=(200.0, 500.0),
    license=License(
        name="CC-BY-NC-SA-4.0",
        terms="Research only, non-commercial: trained on CHAOS scans (CC-BY-NC-SA 4.0: credit, no commercial use, "
        f"changed versions under the same terms). {INHERITED}",
        url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    ),
    citation=(
        "Kavur et al., CHAOS Challenge - combined (CT-MR) healthy abdominal organ segmentation, Medical Image Analysis "
        "69 (2021) 101950",
    ),
    description="Liver, kidneys and spleen in axial fat-suppressed T2-weighted (SPIR) MR with thick slices.",
    weak_points="Taught on healthy abdomens from one challenge: large lesions, missing or transplanted kidneys, and "
    "other sequences (T1, CT) are outside of what it knows.",
)

HEART = BuiltinTask(
    id="cardiac-mr-bssfp",
    title="Heart, short-axis bSSFP MR",
    folder="cmr_bssfp",
    labels=("left ventricular myocardium", "left ventricle", "right ventricle"),
    image_size=256,
    train_size=(128, 128),
    batch_size=3,
    full_size_every=8,
    slices=SliceRule(framing="spacing", pixel_spacing_mm=1.25, context="adjacent", context_mm=8.0),
    augment=AugmentRule(rotation_degrees=20, scale=(0.8, 1.25), shift_px=8, noise=0.03, **STRONG_INTENSITIES),
    validation=("cmr_bssfp_04", "cmr_bssfp_11", "cmr_bssfp_19", "cmr_bssfp_25", "cmr_bssfp_31"),
    prediction=TWO_VIEWS,
    field_of_view_mm=(200.0, 450.0),
    license=License(
        name="Research only",
        terms="Research only, non-commercial, not for a product: trained on scans of the MS-CMRSeg 2019 challenge, "
        f"which its organizers give out for research on registration. {INHERITED}",
        url="https://zmiclab.github.io/zxh/0/mscmrseg19",
    ),
    citation=(
        "Zhuang, Multivariate mixture model for myocardial segmentation combining multi-source images, IEEE TPAMI "
        "41(12), 2019",
        "Zhuang et al., Medical Image Analysis 81 (2022) 102528",
    ),
    description="Left ventricular myocardium, left and right ventricle in short-axis balanced SSFP MR.",
    weak_points="The slices at the base, where the ring of muscle opens into the atria, and at the apex are the least "
    "certain: it may go on one slice too far or stop one too early.",
)

ATRIUM = BuiltinTask(
    id="left-atrium-lge",
    title="Left atrium, late gadolinium enhanced MR",
    folder="la_lge",
    labels=("left atrium",),
    image_size=208,
    train_size=(144, 176),
    batch_size=2,
    full_size_every=8,
    slices=SliceRule(framing="spacing", pixel_spacing_mm=0.8, context="adjacent", context_mm=5.0),
    augment=AugmentRule(rotation_degrees=15, scale=(0.85, 1.2), shift_px=8, noise=0.03, **STRONG_INTENSITIES),
    validation=(
        "la_1MHBF3G6DCPWHSKG7XCP",
        "la_3DA0T2V6JJ2NLUAV6FWM",
        "la_57SGAJMLCTCH92QUA0EE",
        "la_5UB5KFD2PK38Z4LS6W80",
        "la_8M99G0JLAXG9GLPV0O8G",
        "la_9DQYTIU00I4JC0OEOKQQ",
        "la_BNK95S2SJXEGSW7VAKYU",
    ),
    prediction=THIN_SLICES,
    field_of_view_mm=(80.0, 450.0),
    license=License(
        name="Research only",
        terms="Research only, non-commercial, not for a product: trained on scans of the 2018 Atrial Segmentation "
        f"Challenge. {INHERITED}",
        url="http://atriaseg2018.cardiacatlas.org/",
    ),
    citation=(
        "Xiong et al., A global benchmark of algorithms for segmenting the left atrium from LGE cardiac MR, Medical "
        "Image Analysis 67 (2021) 101832",
        "Yu et al., Uncertainty-aware self-ensembling model for semi-supervised 3D left atrium segmentation, MICCAI "
        "2019",
    ),
    description="Cavity of the left atrium in axial 3-D late gadolinium enhanced MR.",
    weak_points="Taught on scans cut out around the atrium: on an uncropped scan give a region of interest. The "
    "pulmonary veins and the plane of the mitral valve are where it is least certain.",
)

TASKS = (ABDOMEN, HEART, ATRIUM)
