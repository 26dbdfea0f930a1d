#!/bin/sh
# Find a Python that is new enough and let it set up everything (infra/bootstrap.py). PYTHON=… chooses one.
here=$(cd "$(dirname "$0")/.." && pwd)
for python in "${PYTHON:-}" "$here/.venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11 python; do
    [ -n "$python" ] || continue
    # Asked, not just looked up: the shims of version managers are there even when their Python is not.
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$python" "$here/infra/bootstrap.py"
    fi
done
cat >&2 <<'TEXT'
agentstream needs Python 3.11 or newer, and none was found on the PATH.
  Debian, Ubuntu:  apt-get install python3 python3-venv
  Fedora:          dnf install python3
  macOS:           brew install python
Or name one: make PYTHON=/path/to/python3 demo
TEXT
exit 1
