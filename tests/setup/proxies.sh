#!/usr/bin/env bash
# Finds or installs the reverse proxies that the tests put in front of a gateway.
# Prints a line NAME=path for each on stdout and what it does on stderr.
#
#   PYOCO_TEST_NGINX
#   PYOCO_TEST_CADDY
#   PYOCO_TEST_HAPROXY
#
# Each is looked for in this order: the variable of that name; PATH and the folders of system programs;
# else its Debian package is installed, when this is root or sudo asks for no password. No service is
# started: the tests start the programs themselves, on loopback ports and with configurations of their own.
set -euo pipefail

# Longest times in seconds: lists of packages, and the packages themselves (about 20 MB).
lists_limit=300
install_limit=600

# Debian keeps servers where only root's PATH looks.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { echo "setup: $*" >&2; }

version_of() {
    case "$1" in
        nginx) timeout 20 "$2" -v 2>&1 ;;
        caddy) timeout 20 "$2" version 2>&1 ;;
        haproxy) timeout 20 "$2" -v 2>&1 ;;
    esac
}

works() { [ -x "$2" ] && version_of "$1" "$2" >/dev/null; }

found() {
    say "$1 ($(version_of "$1" "$2" | head -n 1)) at $2"
    echo "PYOCO_TEST_${1^^}=$2"
}

on_path() {
    local path
    path="$(command -v "$1")" && works "$1" "$path" && found "$1" "$path"
}

# The Debian packages $@, without starting their services.
install() {
    command -v apt-get >/dev/null || { say "no apt-get here, so no Debian package"; return 1; }
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || { say "only root can install Debian packages"; return 1; }
        root=(sudo -n)
    fi
    say "installing the Debian packages $* (20 MB)"
    local log policy=/usr/sbin/policy-rc.d code=0
    log="$(mktemp)"
    if [ ! -e "$policy" ]; then
        # Debian's way to keep the scripts of a package from starting its service (101: forbidden).
        remove_policy=("${root[@]}" rm -f "$policy")
        trap '"${remove_policy[@]}"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod 755 "$policy"
    fi
    apt() {
        local limit="$1" quiet=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)
        timeout "$limit" "${root[@]}" "${quiet[@]}" "${@:2}" >>"$log" 2>&1 </dev/null
    }
    if ! apt "$install_limit" install -y --no-install-recommends "$@"; then
        # The lists of packages may be missing or old.
        apt "$lists_limit" update || true
        apt "$install_limit" install -y --no-install-recommends "$@" || code=1
    fi
    [ "$code" -eq 0 ] || tail -n 5 "$log" >&2
    rm -f "$log"
    return "$code"
}

missing=()
for name in nginx caddy haproxy; do
    variable="PYOCO_TEST_${name^^}"
    named="${!variable:-}"
    if [ -n "$named" ]; then
        works "$name" "$named" || {
            say "$variable names $named, which does not run; correct or unset it"
            exit 1
        }
        found "$name" "$named"
    else
        on_path "$name" || missing+=("$name")
    fi
done
[ "${#missing[@]}" -eq 0 ] || install "${missing[@]/#nginx/nginx-light}" || true
for name in "${missing[@]+"${missing[@]}"}"; do
    on_path "$name" || {
        say "no $name: install it (Debian: apt-get install nginx-light caddy haproxy) and put it on PATH, or"
        say "name it with PYOCO_TEST_${name^^}"
        exit 1
    }
done
