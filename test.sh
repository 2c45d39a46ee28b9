#!/usr/bin/env bash
# Runs everything that must hold before a change lands: format, lints, tests, docs.
# Installs what the tests need and says so. The last line counts the tests.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$1"; }
have() { command -v "$1" >/dev/null 2>&1; }

tools="$PWD/target/tools"
mkdir -p "$tools"
export PATH="$tools:$PATH"

# --- what the tests need ---------------------------------------------------------------------------------------------
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
updated=
apt_update() { [ -n "$updated" ] || as_root apt-get update -qq; updated=yes; }
# install COMMAND PACKAGE: from Debian's packages, when COMMAND is missing.
install() {
    have "$1" && return
    have apt-get || { echo "test.sh: please install $1; the tests need it" >&2; exit 1; }
    say "installing $2 (for $1) with apt-get"
    apt_update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}
have cargo || { echo "test.sh: Rust is missing; see the README" >&2; exit 1; }
install cc build-essential
install python3 python3
install curl curl
if ! have promtool; then
    have apt-get || { echo "test.sh: please install promtool (Prometheus); the tests need it" >&2; exit 1; }
    # Unpacked, not installed: the package would start a Prometheus server.
    say "unpacking promtool from Debian's prometheus package into target/tools"
    apt_update
    (
        cd "$tools"
        apt-get download -qq prometheus
        dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - --strip-components=3 ./usr/bin/promtool
        rm -f prometheus_*.deb
    )
fi
# The programs that are sent through the gateway. The folder is made anew when one of these lists has changed.
install node nodejs
install npm npm
install chromium chromium
clients="$tools/clients"
if ! cat tests/clients/requirements.txt tests/clients/package-lock.json | cmp -s - "$clients/installed"; then
    say "installing the clients of tests/clients into target/tools/clients with pip and npm"
    # Debian has what makes virtual environments in a package of its own, which brings no command.
    python3 -c 'import ensurepip' 2>/dev/null || install "a command of python3-venv" python3-venv
    rm -rf "$clients"
    python3 -m venv "$clients/python"
    "$clients/python/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
    cp tests/clients/package.json tests/clients/package-lock.json "$clients"
    (cd "$clients" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    cat tests/clients/requirements.txt tests/clients/package-lock.json >"$clients/installed"
fi
if ! have initdb && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    have apt-get || { echo "test.sh: please install PostgreSQL (initdb, postgres, psql); the tests need it" >&2; exit 1; }
    say "installing postgresql with apt-get, without a cluster of its own: the tests make theirs"
    apt_update
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
fi
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
done

# --- the checks ------------------------------------------------------------------------------------------------------
say "format"
cargo fmt --all --check
say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
say "tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log"
say "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

passed=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
failed=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
[ "$passed" -gt 0 ] || { echo "test.sh: no test ran" >&2; exit 1; }
say "all checks passed"
echo "$passed passed, $failed failed"
