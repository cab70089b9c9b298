/** The server's life: listening, hanging clients, closing. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, get, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import test from "node:test";
import { VolantError } from "@volant/contract";
import { rawRequest } from "./testing/raw-request.ts";
import { runApi } from "./testing/running-api.ts";

function refused(code: string, sentence: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof VolantError && error.code === code && sentence.test(error.message);
}

test("a port in use is named", async () => {
  const first = await runApi();
  const { port } = new URL(first.address);
  await assert.rejects(
    runApi({ listenPort: Number(port) }),
    refused("in_use", new RegExp(`127\\.0\\.0\\.1:${port}: the address is in use`)),
  );
  await first.api.close();
});

test("an address that this host does not have is named", async () => {
  // 192.0.2.0/24 is for documentation (RFC 5737): no host has it.
  await assert.rejects(
    runApi({ listenHost: "192.0.2.1", listenPort: 7 }),
    refused("not_ready", /192\.0\.2\.1:7.*no such address/),
  );
});

test("an IPv6 address is written with brackets", async () => {
  const running = await runApi({ listenHost: "::1" });
  assert.match(running.address, /^http:\/\/\[::1\]:\d+$/);
  await running.api.close();
});

test("closing ends idle keep-alive connections, and may be asked for twice", async () => {
  const running = await runApi();
  const agent = new Agent({ keepAlive: true });
  const outgoing = get(`${running.address}/healthz`, { agent });
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  const { socket } = answer;
  answer.resume();
  await once(answer, "end");
  const closed = once(socket, "close");
  await Promise.all([running.api.close(), running.api.close()]);
  await closed;
  agent.destroy();
});

test("closing lets a request under way finish", async () => {
  const running = await runApi();
  await running.useCases.vms.create({ name: "a" });
  const release = Promise.withResolvers<void>();
  const entered = Promise.withResolvers<void>();
  running.useCases.vms.delete = async () => {
    entered.resolve();
    await release.promise;
  };
  const answer = rawRequest(running.address, "/api/v1/vms/a", { method: "DELETE" });
  await entered.promise;
  const closed = running.api.close();
  release.resolve();
  assert.equal((await answer).status, 204);
  await closed;
});

test("a client that speaks no HTTP gets an answer in words and is closed", async () => {
  const running = await runApi();
  const { port } = new URL(running.address);
  const socket = connect(Number(port), "127.0.0.1");
  socket.end("SSH-2.0-OpenSSH_9.2\r\n\r\n");
  const text = Buffer.concat(await socket.toArray()).toString();
  assert.match(text, /^HTTP\/1\.1 400 .*"error":"this is not an HTTP request","code":"invalid"\}$/s);
  await running.api.close();
});
