#!/bin/sh
# What a fresh machine needs before anything else: checks Python and Node, makes .venv, installs
# the locked packages of both languages and finds or installs Chromium. Each step leaves a stamp
# in .make/ and is skipped until what it depends on changes.
#
#   build/setup.sh python | node | chromium | oracle | ipfs | postgres | hivemind | nat | federation
set -eu
cd "$(dirname "$0")/.."
mkdir -p .make

say() { printf '\033[1m▸ %s\033[0m\n' "$*" >&2; }
die() { printf '\033[31m%s\033[0m\n' "$*" >&2; exit 1; }

# Debian packages, for root only: nobody else's machine is changed.
debian_install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return 1; fi
    say "Installing $* (Debian)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } \
        >.make/apt.log 2>&1 || { tail -n 20 .make/apt.log >&2; return 1; }
}

stamp_is() { [ -f ".make/$1" ] && [ "$(cat ".make/$1")" = "$2" ]; }

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed; install it, or name it: PYTHON=/path/to/python make …"
}

setup_python() {
    python=$(find_python)
    want=$(cat requirements.lock pyproject.toml | sha256sum)
    if stamp_is python "$want" && [ -x .venv/bin/python ]; then return; fi
    if [ ! -x .venv/bin/python ]; then
        say "Making .venv with $($python --version)"
        "$python" -m venv .venv 2>/dev/null || {
            rm -rf .venv
            debian_install python3-venv || die "Python's venv module is missing: apt install python3-venv"
            "$python" -m venv .venv
        }
    fi
    say "Installing Python packages (about a minute the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar on \
        --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
        --no-build-isolation -e .
    echo "$want" >.make/python
}

# What our numbers are compared with: heavy, and not needed to run anything. Tests that miss it say
# so and are skipped.
setup_oracle() {
    want=$(cat build/oracle.txt | sha256sum)
    if stamp_is oracle "$want"; then return; fi
    say "Installing PyTorch, transformers and a second model builder (for comparison only)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar on \
        --only-binary :all: -r build/oracle.txt
    echo "$want" >.make/oracle
}

setup_node() {
    command -v node >/dev/null || debian_install nodejs npm || die "Node 20 or newer is needed"
    node -e 'process.exit(+(parseInt(process.versions.node) < 20))' ||
        die "Node 20 or newer is needed; this is $(node --version)"
    want=$(cat package-lock.json | sha256sum)
    if stamp_is node "$want" && [ -d node_modules ]; then return; fi
    say "Installing Node packages"
    npm ci --no-audit --no-fund --loglevel=error >&2
    echo "$want" >.make/node
}

# A Helia node to fetch from: large, with a Node of its own, and for tests only.
setup_ipfs() {
    want=$(cat tests/ipfs/package-lock.json | sha256sum)
    if stamp_is ipfs "$want" && [ -d tests/ipfs/node_modules ]; then return; fi
    say "Installing an IPFS node (for tests only)"
    (cd tests/ipfs && npm ci --loglevel=error >&2)
    echo "$want" >.make/ipfs
}

# libp2p, by which relays know each other, and js-libp2p for its tests, with a Node of its own. One of
# libp2p's parts is compiled.
setup_federation() {
    want=$(cat build/federation.lock requirements.lock tests/federation/package-lock.json | sha256sum)
    if stamp_is federation "$want" && [ -d tests/federation/node_modules ]; then return; fi
    if ! command -v gcc >/dev/null || ! echo '#include <gmp.h>' | gcc -E - >/dev/null 2>&1; then
        debian_install gcc libc6-dev libgmp-dev python3-dev || {
            say "libp2p needs gcc and GMP: apt install gcc libgmp-dev python3-dev"
            return 1
        }
    fi
    say "Installing libp2p (for relays that know each other)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar on \
        --require-hashes -r build/federation.lock
    (cd tests/federation && npm ci --loglevel=error >&2)
    echo "$want" >.make/federation
}

# A server for tests to start clusters of their own with; Debian's own cluster is not touched.
setup_postgres() {
    for program in /usr/lib/postgresql/*/bin/initdb "$(command -v initdb || true)"; do
        if [ -x "$program" ]; then return; fi
    done
    if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common  # or Debian makes a cluster and starts it
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    fi
    debian_install postgresql || { say "No PostgreSQL: apt install postgresql"; return 1; }
}

# Real hivemind, whose peers the bridge is tested with: apart from .venv, since it wants another
# protobuf. Its PyTorch, which the DHT only imports, is the oracle's where that is installed.
setup_hivemind() {
    lock=tests/relay_server/bridge/hivemind.lock
    want=$(cat $lock | sha256sum)
    if stamp_is hivemind "$want" && [ -x .venv-hivemind/bin/python ]; then return; fi
    [ -x .venv/bin/python ] || setup_python
    say "Installing hivemind (for tests only)"
    rm -rf .venv-hivemind
    .venv/bin/python -m venv .venv-hivemind
    .venv-hivemind/bin/python -m pip install --quiet --disable-pip-version-check \
        --progress-bar on --no-deps --require-hashes -r $lock
    where='import site; print(site.getsitepackages()[0])'
    if .venv/bin/python -W ignore -c 'import torch' 2>/dev/null; then
        # Last on the path: what hivemind brought itself comes first.
        .venv/bin/python -c "$where" >"$(.venv-hivemind/bin/python -c "$where")/oracle.pth"
    else
        .venv-hivemind/bin/python -m pip install --quiet --disable-pip-version-check \
            --progress-bar on --only-binary :all: torch==2.13.0
    fi
    echo "$want" >.make/hivemind
}

# NATs in network namespaces, and a real TURN server: for tests only, and for root only. Debian
# starts coturn with a configuration of its own; nobody asked for that.
setup_nat() {
    if command -v turnserver >/dev/null && command -v nft >/dev/null && command -v ip >/dev/null; then
        return
    fi
    had=$(command -v turnserver || true)
    debian_install coturn nftables iproute2 || die "coturn, nftables and iproute2 are needed"
    if [ -n "$had" ]; then return; fi
    if [ -d /run/systemd/system ]; then
        systemctl disable --now --quiet coturn
    else
        service coturn stop >/dev/null 2>&1 || true
        update-rc.d coturn disable >/dev/null 2>&1 || true
    fi
}

setup_chromium() {
    if [ -n "${CHROMIUM_PATH:-}" ]; then
        [ -x "$CHROMIUM_PATH" ] || die "CHROMIUM_PATH=$CHROMIUM_PATH is not there"
        return
    fi
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name" >/dev/null; then return; fi
    done
    debian_install chromium || die "Chromium is needed: install it, or set CHROMIUM_PATH"
}

for step in "$@"; do "setup_$step"; done
