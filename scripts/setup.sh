# Sourced by check.sh: makes a new machine ready. Needs Rust, a C compiler and Python 3.11; the rest it installs.
# Sets CARGO_TARGET_DIR (outside of the checkout, so that fresh clones share it) and DAITN_PYTHON, unless they are set.

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/daitn-target}"

# cargo-deny checks licences and bans.
if ! command -v cargo-deny >/dev/null 2>&1; then
  cargo install cargo-deny --locked --quiet
fi

# Real clients that the tests run against the gateway, in an environment of their own.
python_env="${DAITN_PYTHON_ENV:-$HOME/.cache/daitn-python}"
requirements=scripts/requirements.txt
if ! cmp -s "$requirements" "$python_env/requirements.txt"; then
  python3 -m venv --clear "$python_env"
  "$python_env/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$python_env/requirements.txt"
fi
export DAITN_PYTHON="${DAITN_PYTHON:-$python_env/bin/python}"

# Two nodes behind NAT are tested with network namespaces, where there is root, and what a process connects to with
# strace; a test that lacks its tool says so and is passed over.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && ! { command -v ip && command -v nft && command -v strace; } >/dev/null 2>&1; then
  echo "installing iproute2, nftables and strace with apt-get" >&2
  packages="iproute2 nftables strace"
  # Word splitting is meant.
  apt-get install -y -qq $packages >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq $packages; } >/dev/null 2>&1 ||
    echo "$packages could not be installed: the tests that need them are passed over" >&2
fi
