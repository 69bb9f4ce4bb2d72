# Recipes. `just check` is what CI runs.

# Everything that CI runs.
check:
    ./scripts/check.sh

# The demo: a whole network on this machine.
demo:
    cargo run --release -- demo

# Format, then lint with warnings as errors.
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# Tests only.
test:
    cargo nextest run --workspace

# Licences, duplicate versions, one owner for each outside technology.
deny:
    cargo deny check bans licenses sources

# The book.
book:
    mdbook build docs/book

# The pure benchmarks.
bench:
    cargo bench -p daitn-learning -p daitn-topology -p daitn-policy

# Fuzz one decoder for a minute (needs cargo-fuzz and a C++ compiler; on the stable toolchain without a sanitizer).
fuzz target:
    python3 fuzz/dictionary.py > fuzz/names.dict
    cd fuzz && cargo fuzz run --sanitizer none --features terminals {{target}} -- -max_total_time=60 -dict=names.dict
