#!/bin/sh
# The vectors, confirmed by independent implementations in Python.
set -eu
python=${VECTORS_PYTHON:-python3}
if "$python" -c 'import cryptography, argon2, blake3, zstandard' 2>/dev/null; then
    "$python" backup-core/tests/vectors/check.py
elif [ -n "${CI:-}" ]; then
    echo "the Python modules cryptography, argon2-cffi, blake3 and zstandard are missing, and with CI set a skip is a failure" >&2
    exit 1
else
    echo "SKIPPED: vectors in Python (pip install cryptography argon2-cffi blake3 zstandard)" >&2
fi
