#!/usr/bin/env bash
# From nothing to a finished run: builds, starts NATS, gateway and worker, submits a flow.
# Everything is started on free ports of 127.0.0.1 with a scratch store, and stopped at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "▸ $*"; }

scratch="$(mktemp -d)"
server=""
stop() {
    trap - EXIT INT TERM
    if [ -n "$server" ] && kill -TERM "$server" 2>/dev/null; then
        # It stops its nats-server and its worker; if it does not, it is killed and they follow.
        for _ in $(seq 200); do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        say "stopped"
    fi
    rm -rf "$scratch"
}
trap stop EXIT
trap 'exit 130' INT TERM

fail() {
    echo "✗ $*" >&2
    if [ -s "$scratch/server.log" ]; then
        echo "  the last lines of the server's log:" >&2
        tail -n 30 "$scratch/server.log" | sed 's/^/  /' >&2
    fi
    exit 1
}

# Nobody listens there; ports below 32768 are not taken by outgoing connections.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 12000))
        [[ " $taken " == *" $port "* ]] && continue
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            taken+=" $port"
            found_port=$port
            return
        fi
    done
    fail "no free port between 20000 and 32000"
}

# The status of a GET, without needing curl.
status_of() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
        read -r -t 5 _ status _ <&3
        echo "$status"
    ) 2>/dev/null
}

say "looking for nats-server"
PYOCO_NATS_SERVER_BIN="$(bash tests/setup.sh nats)" || fail "no nats-server; see above"
export PYOCO_NATS_SERVER_BIN

# A debug build: the first one takes a minute or two on 2 cores, a release build several.
say "building (the first time takes a minute or two)"
began=$SECONDS
cargo build --locked --quiet --bins || fail "the build failed"
bin="${CARGO_TARGET_DIR:-target}/debug"
say "built in $((SECONDS - began)) s"

taken=""
free_port; port=$found_port
free_port; nats_port=$found_port
began=$SECONDS
"$bin/pyoco-server" up --with-nats --with-worker --host 127.0.0.1 --port "$port" \
    --nats-client-port "$nats_port" --nats-store-dir "$scratch/nats" \
    --log-level INFO >"$scratch/server.log" 2>&1 </dev/null &
server=$!
say "starting the gateway on http://127.0.0.1:$port with NATS on port $nats_port and a worker"
until [ "$(status_of "$port" /readyz)" = 200 ]; do
    kill -0 "$server" 2>/dev/null || { server=""; fail "the server ended"; }
    [ $((SECONDS - began)) -lt 60 ] || fail "not ready within 60 s"
    sleep 0.1
done
say "ready after $((SECONDS - began)) s"

export PYOCO_SERVER="http://127.0.0.1:$port"
say "pyoco-client submit-yaml --workflow-file examples/hello/flow.yaml --flow-name hello --tag default --wait"
began=$SECONDS
outcome=0
"$bin/pyoco-client" submit-yaml --workflow-file examples/hello/flow.yaml --flow-name hello \
    --tag default --wait --timeout-sec 60 --exit-status >"$scratch/run.jsonl" || outcome=$?
run_id="$(sed -n '1s/.*"run_id":"\([^"]*\)".*/\1/p' "$scratch/run.jsonl")"
[ -n "$run_id" ] || fail "the run was not accepted"
"$bin/pyoco-client" list --output table
echo
say "pyoco-client tasks $run_id --output table"
"$bin/pyoco-client" tasks "$run_id" --output table
echo
[ "$outcome" -eq 0 ] || fail "the run did not complete (exit code $outcome)"
# With --exit-status 0 means a terminal run that neither failed nor was cancelled.
say "COMPLETED after $((SECONDS - began)) s"
