from __future__ import annotations

import pytest

pytestmark = pytest.mark.host


@pytest.fixture
def parameters(scene):
    from HSAMSegmentLib.slicer.nodes.parameter_node import ParameterNode

    return ParameterNode(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "HSAMSegment"))


def test_settings_start_at_their_defaults_and_come_back_as_stored(parameters):
    from HSAMSegmentLib.slicer.nodes.parameter_node import PanelSettings

    assert parameters.settings == PanelSettings()
    changed = PanelSettings(model="hsam", left_out=("Liver", "Right kidney"), quality="best", minimum_ml=0.0)
    parameters.settings = changed
    assert parameters.settings == changed


@pytest.mark.parametrize("text", ["{", "[]", "17", '{"left_out": 5}'])
def test_settings_that_cannot_be_read_are_the_defaults(parameters, text):
    from HSAMSegmentLib.slicer.nodes.parameter_node import SETTINGS, PanelSettings

    parameters.node.SetParameter(SETTINGS, text)
    assert parameters.settings == PanelSettings()


def test_a_field_of_a_newer_version_is_left_aside(parameters):
    from HSAMSegmentLib.slicer.nodes.parameter_node import SETTINGS

    parameters.node.SetParameter(SETTINGS, '{"device": "cpu", "from_the_future": 1}')
    assert parameters.settings.device == "cpu"


def test_settings_and_nodes_survive_the_saved_scene(host, scene, parameters, tmp_path):
    import slicer

    from HSAMSegmentLib.slicer.nodes.parameter_node import SCAN, PanelSettings, ParameterNode

    parameters.settings = PanelSettings(model="hsam")
    parameters.set_reference(SCAN, scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan"))
    assert host.save_scene(tmp_path / "scene.mrml")
    assert host.load_scene(tmp_path / "scene.mrml")
    restored = ParameterNode(slicer.util.getNode("HSAMSegment"))
    assert restored.settings.model == "hsam"
    assert restored.reference(SCAN).GetName() == "Scan"


def test_the_options_of_the_engine_follow_the_settings():
    from HSAMSegmentLib.slicer.nodes.parameter_node import PanelSettings

    options = PanelSettings(quality="best", fill_holes=False).options(("Liver",), (0, 1, 0, 1, 0, 1))
    assert options.flip_averaging
    assert not options.postprocess.fill_holes
    assert (options.organs, options.roi) == (("Liver",), (0, 1, 0, 1, 0, 1))


def test_the_speed_chooses_how_often_a_slice_is_seen():
    from HSAMSegmentLib.slicer.nodes.parameter_node import PanelSettings

    seen = {}
    for quality in ("fast", "balanced", "best"):
        options = PanelSettings(quality=quality).options((), None)
        seen[quality] = (options.view_averaging, options.flip_averaging)
    assert seen == {"fast": (False, False), "balanced": (True, False), "best": (True, True)}
