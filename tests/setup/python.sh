#!/usr/bin/env bash
# Finds or makes the Python environments of the tests, and prints a line NAME=path with the interpreter
# of each. Without an argument those that the tests run Pyoco in:
#
#   PYOCO_TEST_PYTHON_08   the present Pyoco and the Python package pyoco-server
#   PYOCO_TEST_PYTHON_06   the oldest Pyoco that a worker has to run
#
# With the argument `openapi` the one that tries the OpenAPI document:
#
#   PYOCO_TEST_SCHEMATHESIS  Schemathesis, and a validator of such documents
#
# With the argument `browser` the one that drives a browser:
#
#   PYOCO_TEST_PLAYWRIGHT  Playwright; the browser itself comes from browser.sh
#
# A variable of that name that is set already is used when its interpreter has these packages. Else
# the packages come from PyPI into target/tools (python-0.8, python-0.6, playwright,
# schemathesis). An environment cannot be moved, so it is made where it stays. It counts only with its
# stamp, which is written last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Longest times in seconds: the packages of one environment, and another run making both.
fetch_limit=300
lock_limit=900

tools="${CARGO_TARGET_DIR:-target}/tools"
mkdir -p "$tools"
tools="$(cd "$tools" && pwd)"
unfinished=""
trap '[ -z "$unfinished" ] || rm -rf "$unfinished"' EXIT
trap 'exit 130' INT TERM

say() { echo "setup: $*" >&2; }

# The stamp names the place, because an environment that was moved or copied does not work.
stamp_of() { printf '%s\n' "$1" "${@:2}"; }

is_whole() {
    [ -x "$1/bin/python" ] || return 1
    [ "$(cat "$1/stamp" 2>/dev/null)" = "$(stamp_of "$@")" ] || return 1
    # The interpreter below it may have been removed since.
    timeout 20 "$1/bin/python" -c '' 2>/dev/null
}

has_packages() {
    timeout 20 "$1" - "${@:2}" 2>/dev/null <<'PYTHON'
import sys
from importlib.metadata import version
for requirement in sys.argv[1:]:
    name, _, wanted = requirement.partition("==")
    assert version(name) == wanted
PYTHON
}

quiet_pip() {
    timeout "$fetch_limit" "$@" --quiet --no-input --disable-pip-version-check \
        >>"$log" 2>&1 </dev/null
}

# An environment with pip of its own; else one without, filled by the pip beside python3.
make() {
    local directory="$1"
    shift
    if timeout 120 python3 -m venv "$directory" >>"$log" 2>&1; then
        quiet_pip "$directory/bin/python" -m pip install "$@"
        return
    fi
    say "python3 -m venv does not work by itself here; trying it with the pip of python3"
    rm -rf "$directory"
    if timeout 120 python3 -m venv --without-pip "$directory" >>"$log" 2>&1 &&
        quiet_pip python3 -m pip --python "$directory/bin/python" install "$@"; then
        return
    fi
    if command -v virtualenv >/dev/null; then
        say "trying virtualenv"
        rm -rf "$directory"
        timeout 120 virtualenv --quiet "$directory" >>"$log" 2>&1 &&
            quiet_pip "$directory/bin/python" -m pip install "$@"
        return
    fi
    return 1
}

fail() {
    [ -z "${log:-}" ] || tail -n 5 "$log" >&2
    say "$1"
    exit 1
}

# The environment $2 with the packages $3…, for the variable $1.
provide() {
    local variable="$1" directory="$tools/$2" named="${!1:-}"
    shift 2
    if [ -n "$named" ]; then
        has_packages "$named" "$@" ||
            fail "$variable names $named, which does not run or lacks $*; correct or unset it"
        say "$* at $named"
        echo "$variable=$named"
        return
    fi
    if ! is_whole "$directory" "$@"; then
        locked
        # Another run may have made it meanwhile.
        is_whole "$directory" "$@" || build "$directory" "$@"
    fi
    say "$* at $directory"
    echo "$variable=$directory/bin/python"
}

build() {
    local directory="$1"
    shift
    command -v python3 >/dev/null ||
        fail "no python3 here; install 3.10 or newer (Debian: apt-get install python3 python3-venv)"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$(python3 --version) is too old; put 3.10 or newer on PATH as python3"
    say "fetching $* from PyPI"
    log="$directory.log"
    : >"$log"
    unfinished="$directory"
    rm -rf "$directory"
    make "$directory" "$@" || fail "cannot make $directory; see $log. If it is venv or pip \
that is missing: Debian has them in python3-venv and python3-pip (apt-get install python3-venv)"
    has_packages "$directory/bin/python" "$@" || fail "$directory does not have $*; see $log"
    stamp_of "$directory" "$@" >"$directory/stamp.new"
    mv "$directory/stamp.new" "$directory/stamp"
    unfinished=""
}

# One run at a time from here on.
locked() {
    [ -z "${has_lock:-}" ] || return 0
    exec 9>"$tools/python.lock"
    if command -v flock >/dev/null && ! flock -w "$lock_limit" 9; then
        fail "another run has held $tools/python.lock for $lock_limit s; end it and try again"
    fi
    has_lock=yes
}

case "${1:-pyoco}" in
    pyoco)
        provide PYOCO_TEST_PYTHON_08 python-0.8 pyoco==0.8.0 pyoco-server==0.5.1
        provide PYOCO_TEST_PYTHON_06 python-0.6 pyoco==0.6.2
        ;;
    openapi)
        provide PYOCO_TEST_SCHEMATHESIS schemathesis \
            schemathesis==4.32.5 openapi-spec-validator==0.9.0
        ;;
    browser) provide PYOCO_TEST_PLAYWRIGHT playwright playwright==1.65.2 ;;
    *) fail "unknown environments \`$1\`; say pyoco, browser or openapi" ;;
esac
