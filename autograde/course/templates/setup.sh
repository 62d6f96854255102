#!/usr/bin/env bash
# Runs once, when Gradescope builds the image.
set -euo pipefail
cd "$(dirname "$0")"
apt-get update
apt-get install -y --no-install-recommends bubblewrap python3 python3-venv
python3 -m venv /autograder/venv
/autograder/venv/bin/python -m pip install --no-cache-dir {{ install | safe }}
