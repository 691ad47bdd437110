#!/usr/bin/env bash
# Finds or installs chromium, in which the tests open the dashboard.
# Prints the path of the program on stdout and what it does on stderr.
#
# Looked for in this order: PYOCO_TEST_CHROMIUM; CHROMIUM; PATH; else Debian's package chromium is
# installed, when this is root or sudo asks for no password. It needs some hundred other packages, so
# it cannot be unpacked beside the machine as nats-server can.
set -euo pipefail

# Longest times in seconds: lists of packages, and the packages themselves (about 100 MB).
lists_limit=300
install_limit=900

say() { echo "setup: $*" >&2; }

works() { [ -x "$1" ] && timeout 60 "$1" --headless --no-sandbox --version >/dev/null 2>&1; }

found() {
    say "$("$1" --headless --no-sandbox --version 2>/dev/null | head -n 1) at $1"
    echo "$1"
    exit 0
}

on_path() {
    local name path
    for name in chromium chromium-browser google-chrome; do
        if path="$(command -v "$name")" && works "$path"; then
            found "$path"
        fi
    done
}

for variable in PYOCO_TEST_CHROMIUM CHROMIUM; do
    named="${!variable:-}"
    [ -n "$named" ] || continue
    works "$named" && found "$named"
    say "$variable names $named, which does not run; correct or unset it"
    exit 1
done
on_path

install() {
    command -v apt-get >/dev/null || { say "no apt-get here, so no Debian package"; return 1; }
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || { say "only root can install the Debian package"; return 1; }
        root=(sudo -n)
    fi
    say "installing the Debian package chromium (100 MB)"
    local log
    log="$(mktemp)"
    apt() { timeout "$1" "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "${@:2}" >>"$log" 2>&1 </dev/null; }
    if ! apt "$install_limit" install -y --no-install-recommends chromium; then
        # The lists of packages may be missing or old.
        apt "$lists_limit" update || true
        if ! apt "$install_limit" install -y --no-install-recommends chromium; then
            tail -n 5 "$log" >&2
            rm -f "$log"
            return 1
        fi
    fi
    rm -f "$log"
}

install && on_path
say "no browser: install chromium or Google Chrome (Debian: apt-get install chromium) and put it on"
say "PATH, or name it with PYOCO_TEST_CHROMIUM"
exit 1
