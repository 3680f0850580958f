#!/usr/bin/env bash
# `make parity`: our R2 against tensorflow-addons, in two environments because they cannot share one.
set -euo pipefail
cd "$(dirname "$0")/.."
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 # a CPU is enough, and quieter

ours=.venv/bin/python
old=.venv-parity/bin/python
cases=.venv-parity/cases.npz
requirements=benchmarks/requirements-parity.txt

if [ ! -x "$ours" ]; then
    echo "parity: no .venv here; run \`make venv\` first" >&2
    exit 1
fi

# Once, and again when the requirements change: about 1.3 GB.
if [ ! .venv-parity/.installed -nt "$requirements" ]; then
    python311=""
    for candidate in "${PYTHON:-python3.11}" python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            python311="$candidate"
            break
        fi
    done
    if [ -z "$python311" ]; then
        echo "parity: tensorflow-addons needs Python 3.11; name one with PYTHON=..." >&2
        exit 1
    fi
    "$python311" -m venv --clear .venv-parity
    "$old" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    touch .venv-parity/.installed
fi

"$ours" benchmarks/parity_r2.py cases "$cases"
"$old" benchmarks/parity_r2.py check "$cases" # its last line is the verdict
