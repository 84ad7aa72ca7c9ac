#!/bin/sh
# Installs what is missing: Debian packages, then the npm packages with their native parts. Silent when all is there.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' 2>/dev/null ||
	fail "Node.js 20 or newer is needed and $(node --version 2>/dev/null || echo none) was found; see https://nodejs.org/en/download"

# What it is built with; then what it runs on; then what the tests and the demo use.
packages="build-essential pkg-config python3 clang-14 llvm-14 clang-format-14 libbpf-dev libelf-dev zlib1g-dev libpcap-dev
	bpftool iproute2 ethtool nftables openssl procps util-linux
	clang-19 iperf3 socat curl tshark iputils-ping prometheus chromium mmdebstrap etcd-server etcd-client
	keepalived bird2 frr zsh fish"
missing=""
for package in $packages; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
# A hand-installed program that does the job is as good as its Debian package.
[ "${missing#* python3}" = "$missing" ] || ! command -v python3 >/dev/null || missing=$(echo " $missing" | sed 's/ python3\b//')
if [ -n "$(echo $missing)" ]; then
	[ "$(id -u)" = 0 ] || fail "run as root once, or install:$missing"
	say "Debian packages:$missing"
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	{ apt-get -qq update && apt-get -qq -y --no-install-recommends install $missing; } >"$log" 2>&1 ||
		{ tail -n 20 "$log" >&2; fail "apt-get failed; its whole output is in $log"; }
	rm -f "$log"
fi

stamp=node_modules/.tandem-setup
native_parts() { [ -e node_modules/cap/build/Release/cap.node ] && [ -e node_modules/raw-socket/build/Release/raw.node ]; }
if [ ! -e "$stamp" ] || [ package-lock.json -nt "$stamp" ] || ! native_parts; then
	# npm ci empties what the link points to, which belongs to another work tree.
	[ ! -L node_modules ] || fail "node_modules is a symbolic link: set up the tree it belongs to, or copy it"
	say "npm packages (cap and raw-socket are compiled)"
	# The headers that came with Node, when they are there: node-gyp would download them.
	[ -e /usr/include/node/node_api.h ] && export npm_config_nodedir=/usr
	npm ci --no-audit --no-fund --loglevel=error >/dev/null || fail "npm ci failed"
	native_parts || fail "npm did not build cap and raw-socket (npm config get ignore-scripts; see allowScripts in package.json)"
	touch "$stamp"
fi
