#!/usr/bin/env bash
# Shows that tests/sim finds bugs: puts each of mutations/*.patch into a copy of the sources, runs the seeds, expects
# them to fail, and prints the seed and what the checker said. `mutations.sh NAME...` runs those alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents --target-directory "$copy"
# Dependencies are compiled once for all of them.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/mutations}" RUST_BACKTRACE=0

if [ $# -eq 0 ]; then
    mapfile -t names < <(basename --suffix=.patch tests/sim/mutations/*.patch)
    set -- "${names[@]}"
fi
missed=0
for name in "$@"; do
    patch="tests/sim/mutations/$name.patch"
    git -C "$copy" init --quiet
    git -C "$copy" apply "$PWD/$patch"
    if ! cargo test --manifest-path "$copy/Cargo.toml" --test sim --no-run --quiet >"$copy/said" 2>&1; then
        echo "$name: does not compile"
        cat "$copy/said"
        missed=1
    elif cargo test --manifest-path "$copy/Cargo.toml" --test sim >"$copy/said" 2>&1; then
        echo "$name: NOT FOUND"
        missed=1
    else
        seed="$(grep -m1 -o 'KITTIWAKE_SEED=[0-9]*' "$copy/said" || true)"
        why="$(grep -m1 -A1 'panicked at' "$copy/said" | tail -n1 | cut -c1-120)"
        echo "$name: found, ${seed:-no seed}: $why"
    fi
    git -C "$copy" apply --reverse "$PWD/$patch"
done
exit "$missed"
