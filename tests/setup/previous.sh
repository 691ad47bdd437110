#!/usr/bin/env bash
# Finds or builds the programs of the release before this one, which the tests let work beside ours.
# Prints the line PYOCO_TEST_PREVIOUS=folder on stdout and what it does on stderr.
#
# A variable of that name that is set already is used when its folder has the programs. Else they are built
# once, from the history of this repository, and kept below target/tools under the name of their commit. In
# a checkout without that commit (a shallow clone, an archive) it prints nothing and ends well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The commit of the release before this one. From the first release on this is the tag of the last release.
release=d474847253d2c0b15e3e1dc3af763ed552af9610
programs=(pyoco-server pyoco-worker pyoco-client pyoco-server-admin)
# Needs the dev-dependencies and is small; see below.
example=embedded_worker

# Longest times in seconds: the build, and another run building the same.
build_limit=2400
lock_limit=2500

mkdir -p "${CARGO_TARGET_DIR:-target}/tools"
target="$(cd "${CARGO_TARGET_DIR:-target}" && pwd)"
tools="$target/tools"
kept="$tools/previous-$release"
log="$kept.log"

say() { echo "setup: $*" >&2; }

has_programs() {
    local name
    for name in "${programs[@]}"; do
        [ -x "$1/$name" ] && timeout 20 "$1/$name" --version >/dev/null 2>&1 || return 1
    done
}

found() {
    say "the previous release at $1"
    echo "PYOCO_TEST_PREVIOUS=$1"
    exit 0
}

if [ -n "${PYOCO_TEST_PREVIOUS:-}" ]; then
    has_programs "$PYOCO_TEST_PREVIOUS" && found "$PYOCO_TEST_PREVIOUS"
    say "PYOCO_TEST_PREVIOUS names $PYOCO_TEST_PREVIOUS, which lacks programs that run; correct or unset it"
    exit 1
fi
has_programs "$kept" && found "$kept"
if ! why="$(git rev-parse --verify "$release^{commit}" 2>&1 >/dev/null)"; then
    say "the history here lacks the previous release, $release (${why:-no reason given})"
    say "the tests of upgrades are not run; fetch the whole history (git fetch --unshallow) for them"
    exit 0
fi

# From here on one run at a time: the second one finds what the first one has built.
exec 9>"$tools/previous.lock"
if command -v flock >/dev/null && ! flock -w "$lock_limit" 9; then
    say "another run has held $tools/previous.lock for $lock_limit s; end it and try again"
    exit 1
fi
has_programs "$kept" && found "$kept"

say "building the previous release, $release"
unfinished="$kept.unfinished"
trap 'rm -rf "$unfinished"' EXIT
trap 'exit 130' INT TERM
rm -rf "$kept" "$unfinished"
mkdir -p "$unfinished/source" "$unfinished/programs"
git archive --format=tar "$release" | tar -xf - -C "$unfinished/source"

# The crates that both releases need are built once: cargo keeps them in our own target directory, but puts
# the programs into one that goes away (a cargo before 1.91 does not know the difference, and builds all of
# it there). The example is there because the dev-dependencies change features of those crates.
build() {
    cd "$unfinished/source"
    CARGO_BUILD_BUILD_DIR="$target" CARGO_TARGET_DIR="$unfinished/target" CARGO_INCREMENTAL=0 \
        timeout --foreground "$build_limit" cargo build --locked --bins --example "$example"
}
began=$SECONDS
if ! (build) >"$log" 2>&1 9>&-; then
    tail -n 20 "$log" >&2
    say "cannot build the previous release; see $log"
    exit 1
fi
for name in "${programs[@]}"; do
    cp "$unfinished/target/debug/$name" "$unfinished/programs/$name"
done
has_programs "$unfinished/programs" || { say "the programs of the previous release do not run"; exit 1; }
# Renamed into place when it is whole, so that nobody ever sees half of it.
mv "$unfinished/programs" "$kept"
say "built it in $((SECONDS - began)) s"
found "$kept"
