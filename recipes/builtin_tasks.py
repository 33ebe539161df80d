"""The built-in models as plain data: data sets, splits, preprocessing, augmentation, licenses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.preprocess.rules import IntensityRule, PredictionRule, SliceRule
from HSAMSegmentLib.training.data.augment import AugmentRule
from HSAMSegmentLib.training.loop.losses import DICE_SMOOTHING
from HSAMSegmentLib.training.recipe import NEIGHBORS_MM
from HSAMSegmentLib.weights.manifest import License
from recipes.synthetic_contrast import ContrastRule

HEAD_OPTIONS = {"mlp_dim": 256, "dropout": 0.1, "embedding_noise": 0.02}
STRONG_INTENSITIES: dict[str, Any] = {
    "gamma": (0.55, 1.8),
    "contrast": (0.7, 1.4),
    "brightness": 0.1,
    "bias_field": 0.25,
}
LAST_STAGE = PredictionRule(stages="last")
THIN_SLICES = PredictionRule(stages="last", neighbors_mm=NEIGHBORS_MM)
TWO_VIEWS = PredictionRule(stages="last", views=((0.0, 1.0), (15.0, 1.0)))
INHERITED = "A model trained on these scans inherits the terms of the scans."


@dataclass(frozen=True)
class DataSource:
    """An additional data set of a task.

    Attributes:
        folder: folder of the data set, with a `dataset.json`.
        labels: names of its label values 1..K; those that the task does not have become background.
    """

    folder: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class BuiltinTask:
    """One built-in model.

    Attributes:
        id: ID of the model.
        title: display name.
        folder: folder of the data set, with a `dataset.json`.
        labels: names of the label values 1..K.
        modality: modality of the scans.
        image_size: side of the network's input in inference.
        train_size: rows and columns of the crops in training.
        full_size_every: every n-th step trains on crops of `image_size` instead.
        batch_size: crops per step.
        full_size_batch: crops per step of `image_size`, None for `batch_size`.
        centers_on_labels: whether crops are centered on the labels of the scan instead of on the slice.
        slices: how volumes are sliced and framed.
        augment: augmentation.
        dice_weight: weight of Dice in the loss.
        dice_smoothing: smoothing of Dice in the loss.
        start_from: ID of a model whose matching weights a new training starts from, "" for random weights.
        validation: IDs of the validation scans.
        field_of_view_mm: plausible extent of slices.
        license: license of the weights.
        citation: data sets to cite.
        description: purpose of the model.
        weak_points: where it fails.
        intensity: how intensities are scaled.
        prediction: how the outputs are combined.
        sources: additional data sets; each step draws the same number of slices from each of them.
        slice_size: side of the training slices that crops are cut from, 0 for `image_size`.
        contrast: random contrast, None to train on real intensities only.
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
    modality: str = "MR"
    full_size_every: int = 1
    full_size_batch: int | None = None
    centers_on_labels: bool = False
    dice_weight: float = 0.5
    dice_smoothing: float = DICE_SMOOTHING
    start_from: str = ""
    intensity: IntensityRule = field(default_factory=IntensityRule)
    prediction: PredictionRule = LAST_STAGE
    sources: tuple[DataSource, ...] = ()
    slice_size: int = 0
    contrast: ContrastRule | None = None

    @property
    def architecture(self) -> Architecture:
        """The compact encoder with an H-SAM head in the paper's form."""
        encoder = EncoderSpec("compact", self.image_size)
        return Architecture(encoder, "hsam", len(self.labels), form="paper", options=dict(HEAD_OPTIONS))


@dataclass(frozen=True)
class DatasetCase:
    """Files of one scan in a data set."""

    id: str
    image: Path
    label: Path


def dataset_cases(folder: Path) -> tuple[DatasetCase, ...]:
    """The scans listed in a data set's `dataset.json`.

    Raises:
        TrainingError: if the folder does not exist.
    """
    index = folder / "dataset.json"
    if not index.is_file():
        raise TrainingError(f"There is no data set in {folder}: dataset.json is missing.")
    content = json.loads(index.read_text(encoding="utf-8"))
    if "cases" in content:
        return tuple(
            DatasetCase(item["id"], folder / item["image"], folder / item["label"]) for item in content["cases"]
        )
    names = ((name, f"{name}.nii.gz") for name in content["scans"])
    return tuple(DatasetCase(name, folder / "images" / file, folder / "labels" / file) for name, file in names)


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
    weak_points="Trained on healthy abdomens from one challenge: large lesions, missing or transplanted kidneys, and "
    "other sequences (T1, CT) are not covered.",
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
    "certain: the mask may end one slice too late or too early.",
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
    weak_points="Trained on scans cut out around the atrium: on an uncropped scan give a region of interest. The "
    "pulmonary veins and the plane of the mitral valve are where it is least certain.",
)

ABDOMEN_CT = BuiltinTask(
    id="abdomen-ct",
    title="Abdomen, CT",
    folder="ct_btcv",
    labels=(
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "esophagus",
        "liver",
        "stomach",
        "aorta",
        "inferior vena cava",
        "portal and splenic vein",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
    ),
    modality="CT",
    image_size=352,
    train_size=(176, 224),
    batch_size=6,
    full_size_every=8,
    full_size_batch=3,
    centers_on_labels=True,
    dice_weight=0.6,
    dice_smoothing=20.0,
    start_from="abdomen-mr-t2",
    slices=SliceRule(framing="spacing", pixel_spacing_mm=1.25, context="adjacent", context_mm=4.0),
    intensity=IntensityRule("window", window_hu=(-125.0, 275.0)),
    augment=AugmentRule(
        rotation_degrees=20,
        scale=(0.75, 1.3),
        shift_px=16,
        elastic_px=5,
        gamma=(0.7, 1.45),
        contrast=(0.75, 1.35),
        brightness=0.08,
        bias_field=0.08,
        noise=0.06,
        blur_probability=0.2,
        lone_slice_probability=0.1,
        swap_neighbors=True,
        structure_contrast=0.1,
        enhancing_labels=(1, 2, 3, 8, 9, 10),
    ),
    validation=("ct_btcv_07", "ct_btcv_26", "ct_btcv_34"),
    prediction=PredictionRule(stages="last", neighbors_mm=3.0),
    field_of_view_mm=(250.0, 520.0),
    license=License(
        name="Research only",
        terms="Research only, non-commercial, not for a product: trained on scans of the BTCV challenge, which its "
        f"organizers give out on registration. {INHERITED}",
        url="https://www.synapse.org/Synapse:syn3193805",
    ),
    citation=("Landman et al., Multi-Atlas Labeling Beyond the Cranial Vault, MICCAI 2015, Synapse syn3193805",),
    description="Thirteen structures in abdominal CT, trained on scans in the portal venous phase.",
    weak_points="Trained on 15 scans of one center: small structures (adrenal glands, gallbladder, veins) are the "
    "least certain, and large lesions are not covered.",
)

ABDOMEN_MR = replace(
    ABDOMEN,
    id="abdomen-mr",
    title="Abdomen, MR of any contrast",
    license=License(
        name="Research only",
        terms="Research only, non-commercial, not for a product: trained on CHAOS scans (CC-BY-NC-SA 4.0: credit, no "
        "commercial use, changed versions under the same terms) and on scans of the BTCV challenge, which its "
        f"organizers give out on registration. {INHERITED}",
        url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    ),
    citation=(*ABDOMEN.citation, *ABDOMEN_CT.citation),
    description="Liver, kidneys and spleen in axial MR, whatever the sequence: trained on fat-suppressed T2-weighted "
    "MR, on CT, and on random contrast made of their label maps (Billot et al., Medical Image Analysis 86 (2023) "
    "102789).",
    weak_points="Validated on fat-suppressed T2-weighted MR and on CT; other sequences were only simulated. Large "
    "lesions, missing or transplanted kidneys are not covered. A kidney that is shrunken may be missed.",
    batch_size=6,
    full_size_batch=4,
    centers_on_labels=True,
    dice_smoothing=20.0,
    start_from="abdomen-mr-t2",
    validation=(*ABDOMEN.validation, *ABDOMEN_CT.validation),
    augment=replace(
        ABDOMEN.augment,
        shift_px=16,
        noise=0.06,
        blur_probability=0.2,
        lone_slice_probability=0.1,
        swap_neighbors=True,
    ),
    sources=(DataSource("ct_btcv", ABDOMEN_CT.labels),),
    slice_size=352,
    contrast=ContrastRule(synthetic_probability=0.3, curve_probability=0.15, band_probability=0.05),
)

ABDOMEN_MR_WITHOUT_CT = replace(
    ABDOMEN_MR,
    id="abdomen-mr-without-ct",
    sources=(),
    slice_size=0,
    validation=ABDOMEN.validation,
    start_from="cardiac-mr-bssfp",
    contrast=ContrastRule(
        synthetic_probability=0.55,
        curve_probability=0.2,
        band_probability=0.1,
        narrow_probability=0.5,
        ordered_probability=0.4,
        patches=0.12,
        smooth_probability=0.6,
        is_stretched=True,
        lung_probability=0.3,
        lung_labels=(1, 4),
        darkest_structure=0.15,
    ),
)
"""For the ablation table; not shipped. Starts from a model that has not seen CT images either."""

TASKS = (ABDOMEN, HEART, ATRIUM)
"""Trained together: the first bundle holds the encoder of all."""

SHIPPED_TASKS = (ABDOMEN_CT, ABDOMEN_MR, HEART, ATRIUM)

ALL_TASKS = (*TASKS, ABDOMEN_CT, ABDOMEN_MR, ABDOMEN_MR_WITHOUT_CT)


def tasks_of(ids: Sequence[str], without: Sequence[str] = ()) -> tuple[BuiltinTask, ...]:
    """The tasks with these IDs, or all of `TASKS` if there are none.

    Raises:
        TrainingError: if a task does not exist.
    """
    known = {task.id: task for task in ALL_TASKS}
    for name in (*ids, *without):
        if name not in known:
            raise TrainingError(f"There is no task '{name}'; choose from {', '.join(known)}.")
    chosen = tuple(known[name] for name in ids) or TASKS
    return tuple(task for task in chosen if task.id not in without)
