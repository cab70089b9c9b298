# Sets `node` to a Node that can run Volant (engines in package.json: 24.15 up to 27), for the programs in bin/.
# The checkout's own is preferred: asking another Node for its version costs a start of it.
node="$root/.toolchain/node/node_modules/node-linux-$(uname -m | sed 's/x86_64/x64/;s/aarch64/arm64/')/bin/node"
if [ ! -x "$node" ]; then
  node=$(command -v node || true)
  version=$("${node:-false}" -p 'process.versions.node' 2>/dev/null || echo 0.0)
  major=${version%%.*}
  minor=${version#*.}
  minor=${minor%%.*}
  if [ "$major" -lt 24 ] || [ "$major" -gt 26 ] || { [ "$major" -eq 24 ] && [ "$minor" -lt 15 ]; }; then
    echo "${0##*/}: Node 24.15 or later is needed and $version is here; 'npm start' or 'npm test' in $root brings one" >&2
    exit 1
  fi
fi
# Compiled modules are kept between starts; see https://nodejs.org/api/module.html#module-compile-cache
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$root/.cache/node-compile}"
