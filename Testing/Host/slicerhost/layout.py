"""Stand-in for the layout manager: three slice views and a 3D view, made when somebody asks for them."""

from __future__ import annotations

_ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class ViewWidget:
    """Wraps a view as `sliceWidget("Red")` and `threeDWidget(0)` do."""

    def __init__(self, view):
        self.view = view

    def sliceLogic(self):
        return self.view.logic

    def mrmlSliceNode(self):
        return self.view.node

    mrmlViewNode = mrmlSliceNode

    def threeDView(self):
        return self

    def resetFocalPoint(self):
        self.view.fit()

    def fitSliceToBackground(self):
        self.view.logic.FitSliceToBackground()


class LayoutManager:
    """Hands out view widgets by name."""

    threeDViewCount = 1

    def __init__(self, scene_host):
        self._scene_host = scene_host
        self._slices, self._three_d = {}, None

    def sliceViewNames(self):
        return tuple(_ORIENTATIONS)

    def sliceWidget(self, name):
        from slicerhost.views import SliceView

        if name not in self._slices:
            self._slices[name] = ViewWidget(SliceView(self._scene_host, name, _ORIENTATIONS[name]))
        return self._slices[name]

    def threeDWidget(self, index):
        from slicerhost.views import ThreeDView

        if self._three_d is None:
            self._three_d = ViewWidget(ThreeDView(self._scene_host))
        return self._three_d

    def resetSliceViews(self):
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self):
        self.threeDWidget(0).resetFocalPoint()
