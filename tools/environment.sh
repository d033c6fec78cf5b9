#!/bin/sh
# Make or update .venv from requirements.txt. Called by the Makefile when either has changed.
fail() { echo "llmbook: $*" >&2; exit 1; }

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
if [ ! -f .venv/.ready ] || ! .venv/bin/python -c '' 2>/dev/null; then
  python=
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
    if usable "$candidate"; then python=$candidate; break; fi
  done
  [ -n "$python" ] || fail "Python 3.11 or newer is needed, and none was found (set PYTHON=/path/to/python to name one)."
  echo "Making .venv with $("$python" --version) ..."
  "$python" -m venv --clear .venv || fail "the environment could not be made (on Debian or Ubuntu: apt install python3-venv)."
fi
echo "Installing what requirements.txt lists (the first time takes some minutes) ..."
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt ||
  fail "the packages could not be installed; is a package index reachable from here? Run the same command again to go on."
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . ||
  fail "the package llmbook could not be installed into .venv; the message above says why."
touch .venv/.ready
