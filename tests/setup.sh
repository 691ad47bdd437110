#!/usr/bin/env bash
# Finds or makes what the tests need, below the target directory. Nothing is installed on the machine but
# chromium and the reverse proxies, when they are not there and this user may install them.
#
#   bash tests/setup.sh           all of it; prints a line NAME=path for each
#   bash tests/setup.sh nats      nats-server alone; prints its path
#   bash tests/setup.sh python    the Python environments alone; prints a line NAME=path for each
#   bash tests/setup.sh browser   chromium and what drives it alone; prints a line NAME=path for each
#   bash tests/setup.sh openapi   what tries the OpenAPI document alone; prints a line NAME=path
#   bash tests/setup.sh proxies   nginx, Caddy and HAProxy alone; prints a line NAME=path for each
#   bash tests/setup.sh previous  the programs of the release before this one alone; prints a line NAME=path,
#                                 or nothing where the history lacks that release
#
# What it does goes to stderr. See tests/setup/ for where each thing comes from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/setup"

case "${1:-all}" in
    nats) bash nats.sh ;;
    python) bash python.sh ;;
    openapi) bash python.sh openapi ;;
    proxies) bash proxies.sh ;;
    previous) bash previous.sh ;;
    browser)
        chromium="$(bash browser.sh)"
        driver="$(bash python.sh browser)"
        printf 'PYOCO_TEST_CHROMIUM=%s\n%s\n' "$chromium" "$driver"
        ;;
    all)
        nats="$(bash nats.sh)"
        python="$(bash python.sh)"
        chromium="$(bash browser.sh)"
        driver="$(bash python.sh browser)"
        openapi="$(bash python.sh openapi)"
        proxies="$(bash proxies.sh)"
        previous="$(bash previous.sh)"
        printf 'PYOCO_NATS_SERVER_BIN=%s\n%s\n' "$nats" "$python"
        printf 'PYOCO_TEST_CHROMIUM=%s\n%s\n%s\n' "$chromium" "$driver" "$openapi"
        printf '%s\n' "$proxies"
        [ -z "$previous" ] || printf '%s\n' "$previous"
        ;;
    *)
        echo "setup: unknown part \`$1\`; say nats, python, browser, openapi, proxies, previous or nothing" >&2
        exit 1
        ;;
esac
