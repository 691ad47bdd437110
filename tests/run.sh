#!/usr/bin/env bash
# The test command: format, lints, supply chain, all tests. Ends non-zero when any of them failed.
#
#   tests/run.sh             what every change has to pass
#   tests/run.sh --full      then what takes hours (docs/reliability.md), in a release build
#
#   PYOCO_TEST_TIMEOUT_SEC   bound for building and running the tests (default 2400)
#   PYOCO_NATS_SERVER_BIN    the nats-server to use; see tests/setup/nats.sh
#   PYOCO_TEST_PYTHON_08     the Python environments to use; see tests/setup/python.sh
#   PYOCO_TEST_PYTHON_06
#   PYOCO_TEST_SCHEMATHESIS  the Python environment that tries the OpenAPI document
#   PYOCO_TEST_CHROMIUM      the browser to use; see tests/setup/browser.sh
#   PYOCO_TEST_PLAYWRIGHT    the Python environment that drives it; see tests/setup/python.sh
#   PYOCO_TEST_NGINX         the reverse proxies to use; see tests/setup/proxies.sh
#   PYOCO_TEST_CADDY
#   PYOCO_TEST_HAPROXY
#   PYOCO_TEST_PREVIOUS      folder of the programs of the release before this one; see
#                            tests/setup/previous.sh
#   CARGO_TARGET_DIR         as cargo has it
#   RUST_TEST_THREADS        tests at once (default: one more than there are processors)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=""
case "$*" in
"") ;;
--full) full=1 ;;
*)
    echo "usage: tests/run.sh [--full]" >&2
    exit 2
    ;;
esac
limit="${PYOCO_TEST_TIMEOUT_SEC:-2400}"
# The bound of each step of --full, in seconds.
full_limit=14400
failed=()
notes=()
running=""
# Each step is a session of its own, by which whatever it leaves running is found.
sessions=" "
log="$(mktemp)"

say() { echo "== $*"; }

# The processes of our sessions that still run, zombies aside.
remaining() {
    local stat fields
    for stat in /proc/[0-9]*/stat; do
        # After the name, which may hold anything: state, parent, group, session.
        read -r -a fields < <(sed 's/.*) //' "$stat" 2>/dev/null) || continue
        if [ "${fields[0]}" != Z ] && [[ "$sessions" == *" ${fields[3]} "* ]]; then
            basename "$(dirname "$stat")"
        fi
    done
}

# Leaves no process behind. What ends by itself gets a moment to do so.
sweep() {
    local left
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        left="$(remaining)"
        [ -n "$left" ] || return 0
        sleep 0.5
    done
    say "these processes outlived their tests and are killed:"
    for pid in $left; do
        echo "   $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
        kill -KILL "$pid" 2>/dev/null
    done
    return 1
}

stopped() {
    trap - INT TERM
    say "stopped; ending what runs"
    [ -z "$running" ] || { kill -TERM "$running" 2>/dev/null; wait "$running"; }
    sweep
    rm -f "$log"
    exit 130
}
trap stopped INT TERM

# In the background and waited for, so that a signal is seen at once.
bounded() {
    setsid timeout --kill-after=30 "$limit" "$@" </dev/null &
    running=$!
    sessions+="$running "
    wait "$running"
    local code=$?
    running=""
    [ "$code" -ne 124 ] || say "not done within $limit s"
    return "$code"
}

step() {
    local name="$1" began=$SECONDS
    shift
    say "$name: $*"
    if bounded "$@"; then
        say "$name: ok ($((SECONDS - began)) s)"
    else
        say "$name: FAILED ($((SECONDS - began)) s)"
        failed+=("$name")
    fi
}

say "tools"
if ! tools="$(bash tests/setup.sh)"; then
    say "a tool is missing (see above), so no tests"
    rm -f "$log"
    exit 1
fi
while IFS= read -r variable; do
    export "${variable?}"
done <<<"$tools"
[ -n "${PYOCO_TEST_PREVIOUS:-}" ] ||
    notes+=("upgrades were not tested: the history here lacks the previous release (see above)")

if cargo fmt --version >/dev/null 2>&1; then
    step format cargo fmt --check
else
    notes+=("format was not checked: cargo fmt is not installed (rustup component add rustfmt)")
fi
if cargo clippy --version >/dev/null 2>&1; then
    step lints cargo clippy --locked --all-targets --quiet -- -D warnings
else
    notes+=("lints were not checked: cargo clippy is not installed (rustup component add clippy)")
fi
if cargo deny --version >/dev/null 2>&1; then
    step "supply chain" cargo deny --locked check bans licenses sources
else
    notes+=("the supply chain was not checked: cargo deny is not installed (cargo install cargo-deny)")
fi

export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
# Most tests wait most of the time.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) + 1))}"
exec 3>&1
tests() {
    step tests cargo test --locked --all-targets --no-fail-fast
    step "documentation tests" cargo test --locked --doc
}
tests > >(tee "$log" >&3) 2>&1
# The function above ran in this shell, so its list of failures is ours. What a test left running may
# hold the pipe open, so it is swept first; then the log is whole.
if ! sweep; then
    failed+=("processes left behind")
fi
wait

if [ -n "$full" ]; then
    limit="$full_limit"
    step "release build" cargo build --locked --release --bins --examples
    step "millions of histories" cargo run --locked --release --quiet --example simulate -- 3000000
    step "100,000 runs under fire" cargo run --locked --release --quiet --example chaos -- --runs 100000
    sweep || failed+=("processes left behind")
fi

say "summary"
grep -E '^ *Running |^test result: |^test .* \.\.\. FAILED$' "$log"
rm -f "$log"
for note in "${notes[@]+"${notes[@]}"}"; do
    say "note: $note"
done
if [ "${#failed[@]}" -gt 0 ]; then
    printf -v list '%s, ' "${failed[@]}"
    say "FAILED: ${list%, }"
    exit 1
fi
say "all passed in $SECONDS s"
