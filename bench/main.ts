/** `npm run bench`: every measurement, in a network namespace of its own; a table in Markdown. Exit code 1 when a target is missed. */
import { enterOwnNamespace } from "../test/namespace.ts";
import { benchBoot } from "./boot.ts";
import { resultTable } from "./result.ts";
import { benchTaps } from "./taps.ts";

enterOwnNamespace(import.meta.url);

const results = [...(await benchTaps()), ...(await benchBoot())];
process.stdout.write(`${resultTable(results)}\n`);
process.exit(results.every((result) => result.ok) ? 0 : 1);
