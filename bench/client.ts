import { Agent, request } from "node:http";

/** A client of volantd of the benches' own, since what they measure is the server: fetch() takes several times as long over a large body. */
export class Client {
  readonly #agent = new Agent({ keepAlive: true });

  ask(method: string, path: string, body?: object): Promise<{ readonly status: number; readonly text: string }> {
    return new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { "content-type": "application/json" };
      const options = { host: "127.0.0.1", port: 7777, method, path: `/api/v1/${path}`, agent: this.#agent, headers };
      const outgoing = request(options, (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part));
        response.on("error", reject);
        response.on("end", () => {
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") });
        });
      });
      outgoing.on("error", reject);
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  async expect(status: number, method: string, path: string, body?: object): Promise<string> {
    const answer = await this.ask(method, path, body);
    if (answer.status !== status) throw new Error(`${method} ${path}: ${answer.status} ${answer.text}`);
    return answer.text;
  }

  close(): void {
    this.#agent.destroy();
  }
}
