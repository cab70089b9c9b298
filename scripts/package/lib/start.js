/** Starts the program that its first argument names, where this Node can run it. In words that every Node understands. */
const program = process.argv[2];
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 24 || (major === 24 && minor < 15) || major > 26) {
  console.error(
    `${program}: Node 24.15 or later, below 27, is needed, and ${process.execPath} is ${process.versions.node}: see nodejs.org`,
  );
  process.exit(1);
}
// It is started in place of the program that the first argument names.
process.argv.splice(2, 1);
await import(`./main/${program}.js`);
