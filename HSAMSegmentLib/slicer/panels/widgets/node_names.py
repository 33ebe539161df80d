"""The whole name of a chosen node where a narrow panel cuts it: on top of the selector's tooltip."""

from __future__ import annotations

from HSAMSegmentLib.slicer.panels.widgets.theme import tip_of


def tell_whole_names(*selectors) -> None:
    """Let node selectors say in their tooltip what is chosen, before what they are for."""
    for selector in selectors:
        _tell(selector, selector.toolTip)


def _tell(selector, purpose: str) -> None:
    def on_node(*_node) -> None:
        node = selector.currentNode()
        selector.toolTip = tip_of((node.GetName() if node is not None else "", purpose))

    selector.connect("currentNodeChanged(vtkMRMLNode*)", on_node)
    on_node()
