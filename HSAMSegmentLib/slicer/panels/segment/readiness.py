"""What is in the way before the click, in words; and what to ask before a download."""

from __future__ import annotations

from slicer.i18n import tr as _

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.slicer.nodes.segmentations.segments import output_problem
from HSAMSegmentLib.slicer.nodes.volumes import roi_bounds, volume_problem
from HSAMSegmentLib.slicer.panels.widgets.model_list import ListedModel


def obstacle(volume_node, model: ListedModel | None, organs: tuple[str, ...], output_node, roi_node) -> str:
    """The first thing that keeps the job from starting, as a sentence; empty if it can start."""
    problem = volume_problem(volume_node)
    if problem:
        return problem
    if model is None:
        return _("There is no model. Import one from a file.")
    if model.problem:
        return model.problem
    if model.page:
        return _("The file of '{title}' is not on this computer. Get it from its page, then click Import.").format(
            title=model.title
        )
    if not organs:
        return _("Check at least one organ.")
    return output_problem(output_node, volume_node) or _region_problem(roi_node, volume_node)


def _region_problem(roi_node, volume_node) -> str:
    if roi_node is None:
        return ""
    try:
        roi_bounds(roi_node, volume_node)
    except RequestError as error:
        return str(error)
    return ""


def download_question(model: ListedModel) -> str:
    """What the user agrees to: size and terms."""
    terms = ""
    if model.license is not None:
        terms = _("\n\nTerms: {name}. {terms}").format(name=model.license.name, terms=model.license.terms)
    return (
        _("'{title}' is not on this computer yet. Download {size} now?").format(
            title=model.title, size=format_bytes(model.download_bytes)
        )
        + terms
    )
