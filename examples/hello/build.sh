#!/bin/sh
# Builds build/hello.cpio: a static busybox and the files under rootfs/, as a cpio archive that the kernel unpacks (newc).
set -eu
cd "$(dirname "$0")"
busybox=$(command -v busybox) || { echo "build.sh: busybox is missing: apt-get install busybox-static" >&2; exit 1; }
rm -rf build/tree
mkdir -p build/tree
cp -R rootfs/. build/tree/
cp "$busybox" build/tree/bin/busybox
# Its programs by name, for `volar vms exec` and `shell`.
for applet in $("$busybox" --list); do
  [ -e "build/tree/bin/$applet" ] || ln -s busybox "build/tree/bin/$applet"
done
(cd build/tree && find . | "$busybox" cpio -o -H newc 2>/dev/null) > build/hello.cpio.new
mv build/hello.cpio.new build/hello.cpio
rm -rf build/tree
