# Sets `node` to the Node that runs Volant, for the programs in bin/. Whether it is one that can is looked at there (start.js): to ask it here costs another start of it.
# `npm install --global` puts a package into <prefix>/lib/node_modules, and Node is in <prefix>/bin, whether PATH names it or not: systemd's does not.
node="$root/../../../bin/node"
[ -x "$node" ] || node=$(command -v node || true)
if [ -z "$node" ]; then
  echo "${0##*/}: Node 24.15 or later is needed, and there is none: see nodejs.org" >&2
  exit 1
fi
# Compiled modules are kept between starts; see https://nodejs.org/api/module.html#module-compile-cache
# Where nobody else may write: what stands there is run.
if [ -w "$root" ]; then cache="$root/.cache"; else cache="${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/volant"; fi
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$cache/node-compile}"
