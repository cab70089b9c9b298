/**
 * A plugin for tests: a guest that does over HTTP what a test asks of it. Its pages are CGI scripts of busybox httpd, each with its one
 * argument in the query string: `/cgi-bin/ping?<address>`, `/cgi-bin/resolve?<name>`, `/cgi-bin/fetch?<host name>`, `/cgi-bin/read?<path>`.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync, copyFileSync } from "node:fs";
import { join } from "node:path";

const scripts: Readonly<Record<string, string>> = {
  ping: 'busybox ping -c 1 -W 3 "$QUERY_STRING"',
  resolve: 'busybox nslookup "$QUERY_STRING"',
  // Debian's static busybox crashes in wget, and in each applet that resolves a name through the C library.
  fetch: [
    "address=$(busybox nslookup -type=a \"$QUERY_STRING\" | busybox awk '/^Address:/ { last = $2 } END { print last }')",
    'printf "GET / HTTP/1.0\\r\\nHost: $QUERY_STRING\\r\\n\\r\\n" | busybox nc -w 5 "$address" 80',
  ].join("\n"),
  read: 'busybox cat "$QUERY_STRING"',
  links: "busybox ip -o addr show",
};

/** A CGI script that runs one command and reports its output and exit code as plain text. */
function cgi(command: string): string {
  return `#!/bin/busybox sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n${command} 2>&1\necho "exit code $?"\n`;
}

/**
 * Builds the plugin under `directory` and returns its manifest's path.
 *
 * @param changes manifest fields that replace the usual ones
 */
export function buildProbePlugin(directory: string, changes: Readonly<Record<string, unknown>> = {}): string {
  const tree = join(directory, "tree");
  for (const folder of ["bin", "www/cgi-bin"]) mkdirSync(join(tree, folder), { recursive: true });
  const busybox = execFileSync("which", ["busybox"], { encoding: "utf8" }).trim();
  copyFileSync(busybox, join(tree, "bin/busybox"));
  chmodSync(join(tree, "bin/busybox"), 0o755);
  symlinkSync("busybox", join(tree, "bin/sh"));
  writeFileSync(join(tree, "www/index.html"), "probe\n");
  for (const [name, command] of Object.entries(scripts)) {
    writeFileSync(join(tree, "www/cgi-bin", name), cgi(command), { mode: 0o755 });
  }
  const names = execFileSync("find", ["."], { cwd: tree });
  const archive = execFileSync("busybox", ["cpio", "-o", "-H", "newc"], {
    cwd: tree,
    input: names,
    stdio: ["pipe", "pipe", "ignore"],
    maxBuffer: 64 * 1024 * 1024,
  });
  rmSync(tree, { recursive: true });
  writeFileSync(join(directory, "probe.cpio"), archive);
  const manifest = {
    schema_version: "1",
    name: "probe",
    version: "1.0.0",
    resources: { cpu_cores: 1, memory_mb: 96 },
    workload: {
      type: "http",
      base_url: "http://127.0.0.1:80",
      entrypoint: ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"],
    },
    initramfs: { url: "probe.cpio" },
    health_check: { endpoint: "/", timeout_ms: 2000 },
    ...changes,
  };
  const path = join(directory, "manifest.json");
  writeFileSync(path, JSON.stringify(manifest, undefined, 2));
  return path;
}
