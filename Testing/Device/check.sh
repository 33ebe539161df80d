#!/bin/sh
# One table about the accelerator of this machine, in under eight minutes. Needs torch; what else a part needs and does
# not find is said in its row. `Testing/Device/check.sh --device cpu --quick` tries the script itself without a GPU.
set -e
cd "$(dirname "$0")/../.."
PYTHONPATH="$PWD:$PWD/Testing/Device:$PWD/Testing/Benchmarks:$PWD/Testing/Python" exec "${PYTHON:-python3}" Testing/Device/check_device.py "$@"
