"""Compare by clicks in a process that has none of the packages that Slicer does not come with; prints what is said."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

from conftest import REPOSITORY

MISSING = {"torch", "segment_anything", "safetensors", "requests", "psutil", "monai"}


class Poorer(PathFinder):
    """Finds everything but what is missing."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Like its base."""
        return None if name.partition(".")[0] in MISSING else super().find_spec(name, path, target)


def main():
    """Compare two drawn blocks."""
    sys.meta_path[sys.meta_path.index(PathFinder)] = Poorer
    sys.path[:0] = [str(REPOSITORY / "Testing" / "Host"), str(REPOSITORY / "Testing" / "Python" / "slicer_module")]
    from slicerhost import start_host

    host = start_host()
    from tab_driver import TabDriver
    from test_nodes_comparison import add_segmentation, blocks

    from HSAMSegmentLib.slicer.panels.compare.compare_tab import CompareTab

    nodes = [add_segmentation(blocks(shift), name) for shift, name in ((1, "Mine"), (0, "Reference"))]
    driver = TabDriver(host, CompareTab, None, models=())
    for selector, node in zip((driver.ui.firstSelector, driver.ui.secondSelector), nodes):
        selector.setCurrentNode(node)
    driver.click(driver.ui.compareButton)
    driver.wait(lambda: not driver.tab.engine.is_busy)
    print(driver.status, driver.answers.questions, sorted(MISSING & set(sys.modules)), sep="\n")
    driver.close()


if __name__ == "__main__":
    main()
