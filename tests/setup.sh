#!/usr/bin/env bash
# Finds or makes what the tests need, below the target directory; nothing is installed on the machine.
#
#   bash tests/setup.sh           all of it; prints a line NAME=path for each
#   bash tests/setup.sh nats      nats-server alone; prints its path
#   bash tests/setup.sh python    the Python environments alone; prints a line NAME=path for each
#   bash tests/setup.sh openapi   what tries the OpenAPI document alone; prints a line NAME=path
#
# What it does goes to stderr. See tests/setup/ for where each thing comes from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/setup"

case "${1:-all}" in
    nats) bash nats.sh ;;
    python) bash python.sh ;;
    openapi) bash python.sh openapi ;;
    all)
        nats="$(bash nats.sh)"
        python="$(bash python.sh)"
        openapi="$(bash python.sh openapi)"
        printf 'PYOCO_NATS_SERVER_BIN=%s\n%s\n' "$nats" "$python"
        printf '%s\n' "$openapi"
        ;;
    *)
        echo "setup: unknown part \`$1\`; say nats, python or openapi, or nothing for all" >&2
        exit 1
        ;;
esac
