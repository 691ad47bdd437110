#!/usr/bin/env bash
# Finds or makes what the tests need, below the target directory; nothing is installed on the machine.
#
#   bash tests/setup.sh           all of it; prints a line NAME=path for each
#   bash tests/setup.sh nats      nats-server alone; prints its path
#   bash tests/setup.sh python    the Python environments alone; prints a line NAME=path for each
#
# What it does goes to stderr. See tests/setup/ for where each thing comes from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/setup"

case "${1:-all}" in
    nats) bash nats.sh ;;
    python) bash python.sh ;;
    all)
        nats="$(bash nats.sh)"
        python="$(bash python.sh)"
        printf 'PYOCO_NATS_SERVER_BIN=%s\n%s\n' "$nats" "$python"
        ;;
    *)
        echo "setup: unknown part \`$1\`; say nats or python, or nothing for both" >&2
        exit 1
        ;;
esac
