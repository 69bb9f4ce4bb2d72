#!/usr/bin/env bash
# Passes or fails the tree: format, lints, licences and bans, then every test. Ends with the test runner's summary.
# Installs what it needs (see scripts/setup.sh). Works in a fresh clone.
set -euo pipefail
cd "$(dirname "$0")/.."
. ./scripts/setup.sh

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step "licences, duplicates, owners"
cargo deny --log-level error check bans licenses sources
step "tests"
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --workspace --locked --no-fail-fast
fi
exec cargo test --workspace --locked --no-fail-fast
