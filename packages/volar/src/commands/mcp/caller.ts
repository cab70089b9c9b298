import { TOTAL_COUNT_HEADER } from "@volant/contract/endpoints";
import type { CallRoute } from "@volant/mcp";
import type { VolantClient } from "@volant/sdk";

async function gather<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const gathered: Item[] = [];
  for await (const item of items) gathered.push(item);
  return gathered;
}

/** How a tool asks a route of the volantd that volar talks to. */
export function callerOf(client: VolantClient): CallRoute {
  return async (route, { params, query, body }, signal) => {
    if (route === "vms.logs") {
      const lines = client.vms.logs(params["name"] ?? "", { tail: query["tail"] as number, signal });
      return { body: await gather(lines) };
    }
    const answer = await client.call(route, { params, query, signal, ...(body === undefined ? {} : { body }) });
    const total = answer.headers.get(TOTAL_COUNT_HEADER);
    return { body: answer.body, ...(total === null ? {} : { total: Number(total) }) };
  };
}
