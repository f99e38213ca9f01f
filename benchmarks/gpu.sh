#!/usr/bin/env bash
# Everything that is measured on a machine with a GPU, in less than nine minutes:
#
#     benchmarks/gpu.sh [--authors CHECKOUT] [--wheels FOLDER] [--out FOLDER] [--quick]
#
# Needs JAX or PyTorch, or both, built for the GPU, and no TensorFlow. FOLDER holds
# wheels of what else is missing, at least of keras and keras-hub. They are unpacked
# into a temporary folder, so that the machine stays as it is. The other options are
# those of benchmarks/gpu.py.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
arguments=()
while [ $# -gt 0 ]; do
    if [ "$1" = --wheels ]; then
        site=$(mktemp -d)
        trap 'rm -rf "$site"' EXIT
        "$python" -m pip install --quiet --no-deps --no-index --no-compile \
            --find-links "$2" --target "$site" "$2"/*.whl
        PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
        shift 2
    else
        arguments+=("$1")
        shift
    fi
done
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
"$python" benchmarks/gpu.py --seconds $((500 - SECONDS)) "${arguments[@]}"
