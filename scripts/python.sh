#!/bin/sh
# Lints the Python of the repository: ruff (ruff.toml) and mypy. LINT_PYTHON names a Python that has both.
set -eu
cd "$(dirname "$0")/.."
python=${LINT_PYTHON:-python3}
if ! "$python" -c 'import mypy, ruff' 2>/dev/null; then
    if [ -n "${CI:-}" ]; then
        echo "ruff and mypy are missing (pip install ruff mypy), and with CI set a skip is a failure" >&2
        exit 1
    fi
    echo "SKIPPED: the lints of Python: they need ruff and mypy (pip install ruff mypy)" >&2
    exit 0
fi
git ls-files -z '*.py' | xargs -0 "$python" -m ruff check -q
git ls-files -z '*.py' | xargs -0 "$python" -m ruff format -q --check
# Each program alone, as they have modules of the same names; modules of others' are not looked into.
(cd backup-core/tests && "$python" -m mypy --strict --ignore-missing-imports -p reference)
for program in $(git ls-files '*.py' | grep -v '^backup-core/tests/reference/'); do
    "$python" -m mypy --strict --ignore-missing-imports "$program"
done
