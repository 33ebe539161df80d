"""Entry point of the worker process: `python start_worker.py FOLDER`."""

from __future__ import annotations

import os
import sys


def _main() -> int:
    # Python puts this script's folder first on the path; its modules must not shadow top-level ones of the same name.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from HSAMSegmentLib.worker.worker_process import serve

    return serve(sys.argv[1])


if __name__ == "__main__":
    sys.exit(_main())
