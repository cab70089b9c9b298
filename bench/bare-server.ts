/**
 * The rival of bench/api.ts, a process of its own as volantd is: node:http alone, which gives answers that it was told. It listens on a free port of 127.0.0.1, and ends with
 * whoever forked it.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** What is answered to a GET of a path. */
export interface CannedAnswer {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

process.once("message", (answers: Readonly<Record<string, CannedAnswer>>) => {
  const server = createServer((request, response) => {
    const answer = answers[request.url ?? ""];
    if (answer === undefined) response.writeHead(404).end();
    else response.writeHead(200, answer.headers).end(answer.body);
  });
  server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
});
process.once("disconnect", () => process.exit());
