/** A host that lives in memory, for tests of plans: the same port as the Linux one, and a network that behaves like Linux's. */
import { isDeepStrictEqual } from "node:util";
import { VolantError } from "@volant/contract";
import { blockOf, formatBlock, parseIpv4 } from "../ipv4.ts";
import type { ForwardChain } from "../setup/forward-chains.ts";
import type { FirewallRequest, ObserveRequest, SetupHost } from "../setup/host-port.ts";
import { disableIpv6Name } from "../setup/lan.ts";
import type { LanObstacle, LanRoute, ObservedStation } from "../setup/lan.ts";
import type { NftTable } from "../setup/nft-table.ts";
import type {
  KernelIdentity,
  ObservedAddress,
  ObservedChain,
  ObservedFirewall,
  ObservedHost,
  ObservedLink,
  ObservedRoute,
} from "../setup/observed.ts";
import { FORWARDING, ruleKey } from "../setup/operation.ts";
import { withFurther } from "../setup/plan-firewall.ts";
import type { Operation } from "../setup/operation.ts";
import { formatRecord, isStale, parseRecord } from "../setup/record.ts";
import type { SetupRecord } from "../setup/record.ts";

export interface ModelState {
  kernel: KernelIdentity;
  links: ObservedLink[];
  addresses: ObservedAddress[];
  routes: ObservedRoute[];
  sysctls: Record<string, string>;
  /** Keys (ruleKey) of rules, and rules of others, by "table chain". */
  rules: Record<string, string[]>;
  tables: string[];
  chains: ObservedChain[];
  systemd: boolean;
  files: Record<string, string>;
  enabled: string[];
  record: string | undefined;
  /** Tables of nftables: what was written into them. */
  nft: Record<string, NftTable>;
  forwardChains: ForwardChain[];
  /** Cards that somebody sees to, by name. */
  owners: Record<string, LanObstacle>;
  folders: string[];
}

/** The route that the kernel makes for an address. */
function connectedRoute({ address, prefixLength }: ObservedAddress): string {
  const number = parseIpv4(address);
  if (number === undefined) throw new Error(`${address} is no address`);
  return formatBlock(blockOf(number, prefixLength));
}

function lanRoute(destination: string): LanRoute {
  return {
    family: "inet",
    destination: destination === "0.0.0.0/0" ? "default" : destination,
    gateway: "10.0.2.2",
    table: 254,
    protocol: "static",
    scope: "global",
    type: "unicast",
    flags: [],
  };
}

/** A host with one network card, forwarding off, no rules. */
export function modelState(change: Partial<ModelState> = {}): ModelState {
  const state: ModelState = {
    kernel: { bootId: "boot-1", networkNamespace: "net:[1]" },
    links: [
      {
        name: "lo",
        index: 1,
        kind: undefined,
        mac: "00:00:00:00:00:00",
        up: true,
        alias: undefined,
        master: undefined,
      },
      {
        name: "eth0",
        index: 2,
        kind: undefined,
        mac: "52:54:00:00:00:01",
        up: true,
        alias: undefined,
        master: undefined,
      },
    ],
    addresses: [
      { link: "lo", address: "127.0.0.1", prefixLength: 8 },
      { link: "eth0", address: "10.0.2.15", prefixLength: 24 },
    ],
    routes: [
      { destination: "0.0.0.0/0", link: "eth0", leads: true },
      { destination: "10.0.2.0/24", link: "eth0", leads: true },
    ],
    sysctls: { [FORWARDING]: "0", "net/ipv4/conf/all/accept_redirects": "1" },
    rules: {},
    tables: [],
    chains: [],
    systemd: true,
    files: {},
    enabled: [],
    record: undefined,
    nft: {},
    forwardChains: [],
    owners: {},
    folders: ["/", "/var"],
    ...change,
  };
  for (const name of ["default", ...state.links.map((link) => link.name)]) {
    state.sysctls[`net/ipv4/conf/${name}/forwarding`] ??= "0";
  }
  return state;
}

/** Ends the process, so to say, before the operation of that number. */
export class Crash extends Error {}

export class ModelHost implements SetupHost {
  readonly state: ModelState;
  /** How many effects (operations and changes of the record) may still happen. */
  effectsLeft = Infinity;
  /** Every operation that was carried out. */
  readonly executed: Operation[] = [];
  root = true;

  constructor(state: ModelState) {
    this.state = state;
  }

  #spend(): void {
    if (this.effectsLeft <= 0) throw new Crash();
    this.effectsLeft -= 1;
  }

  async observe(request: ObserveRequest): Promise<ObservedHost> {
    const { state } = this;
    const { record } = request;
    const forwardingKnown = request.forwardingKnown && record !== undefined && !isStale(record, state.kernel);
    const forwardingOnly = (state.sysctls[FORWARDING] === "1" || forwardingKnown) && !request.everything;
    return await Promise.resolve(
      structuredClone({
        root: this.root,
        kernel: state.kernel,
        recordedNamespaceAlive: false,
        network: { links: state.links, addresses: state.addresses, routes: state.routes },
        sysctls: forwardingOnly
          ? Object.fromEntries(
              Object.entries(state.sysctls).filter(([name]) => name === FORWARDING || request.sysctls.includes(name)),
            )
          : state.sysctls,
        firewall: this.#observeFirewall(withFurther(request.firewall, this.state)),
        stations: Object.fromEntries(
          request.stations
            .filter(({ name }) => state.links.some((link) => link.name === name))
            .map(({ name, judge }) => [name, this.#observeStation(name, judge)]),
        ),
        service: {
          systemd: state.systemd,
          unitText: state.files[request.serviceFile],
          enabled: state.enabled.some((unit) => request.serviceFile.endsWith(`/${unit}`)),
        },
      }),
    );
  }

  #observeFirewall(request: FirewallRequest): ObservedFirewall {
    const { state } = this;
    const rules = request.kind === "iptables" ? request.rules.map(ruleKey) : [];
    const table = request.kind === "nftables" ? request.table : undefined;
    const found = table === undefined ? undefined : state.nft[table.name];
    return {
      state: "usable",
      rules: rules.filter((key) => Object.values(state.rules).flat().includes(key)),
      containers: { tables: state.tables, chains: state.chains },
      table:
        found === undefined
          ? undefined
          : { present: [], complete: isDeepStrictEqual(found, table), foreign: false, handles: [] },
      otherChains: state.forwardChains,
    };
  }

  /** As Linux shows it: without the route that comes with each address. */
  #observeStation(name: string, judge: boolean): ObservedStation {
    const { addresses, routes, owners, sysctls } = this.state;
    const own = addresses.filter(({ link }) => link === name);
    const connected = new Set(own.map(connectedRoute));
    const owner = owners[name];
    return {
      mtu: 1500,
      addresses: own.map(({ address, prefixLength }) => ({
        family: "inet",
        address,
        prefixLength,
        scope: "global",
        flags: [],
      })),
      routes: routes
        .filter(({ link, destination }) => link === name && !connected.has(destination))
        .map(({ destination }) => lanRoute(destination)),
      ipv6Disabled: sysctls[disableIpv6Name(name)],
      obstacles: judge && owner !== undefined ? [owner] : [],
    };
  }

  async readSysctls(): Promise<Readonly<Record<string, string>>> {
    return await Promise.resolve({ ...this.state.sysctls });
  }

  async readRecord(): Promise<SetupRecord | undefined> {
    const { record } = this.state;
    return await Promise.resolve(record === undefined ? undefined : parseRecord(record, "setup.json"));
  }

  async writeRecord(record: SetupRecord): Promise<void> {
    this.#spend();
    this.state.folders = [...new Set([...this.state.folders, ...record.createdFolders])];
    await Promise.resolve((this.state.record = formatRecord(record)));
  }

  async missingFolders(): Promise<readonly string[]> {
    return await Promise.resolve(["/var/lib", "/var/lib/volant"].filter((name) => !this.state.folders.includes(name)));
  }

  async removeGuestPolicy(): Promise<void> {}

  async removeRecord(createdFolders: readonly string[]): Promise<void> {
    this.#spend();
    this.state.folders = this.state.folders.filter((folder) => !createdFolders.includes(folder));
    await Promise.resolve((this.state.record = undefined));
  }

  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    return await work();
  }

  async execute(operation: Operation): Promise<void> {
    this.#spend();
    this.executed.push(operation);
    await Promise.resolve(this.#carryOut(operation));
  }

  #changeLink(name: string, change: Partial<ObservedLink>): void {
    const index = this.state.links.findIndex((link) => link.name === name);
    const link = this.state.links[index];
    if (link === undefined) throw new VolantError("not_found", `there is no link ${name}`);
    this.state.links[index] = { ...link, ...change };
  }

  #setForwarding(value: string): void {
    const { sysctls } = this.state;
    if (sysctls[FORWARDING] === value) return;
    sysctls[FORWARDING] = value;
    sysctls["net/ipv4/conf/all/accept_redirects"] = value === "1" ? "0" : "1";
    for (const name of Object.keys(sysctls)) if (name.endsWith("/forwarding")) sysctls[name] = value;
  }

  #replaceRoute(link: string, { destination: text }: LanRoute): void {
    const { state } = this;
    const destination = text === "default" ? "0.0.0.0/0" : text;
    // A gateway must be in reach, as the kernel has it.
    if (!state.addresses.some((address) => address.link === link)) throw new Error("the gateway is unreachable");
    state.routes = [
      ...state.routes.filter((route) => route.destination !== destination),
      { destination, link, leads: true },
    ];
  }

  #carryOut(operation: Operation): void {
    const { state } = this;
    switch (operation.kind) {
      case "create_bridge": {
        const { link: name, mac, alias } = operation;
        const index = Math.max(...state.links.map((link) => link.index)) + 1;
        state.links.push({ name, index, kind: "bridge", mac, up: false, alias, master: undefined });
        state.sysctls[`net/ipv4/conf/${name}/forwarding`] = state.sysctls["net/ipv4/conf/default/forwarding"] ?? "0";
        return;
      }
      case "create_lan_bridge": {
        const { link: name, mac, alias } = operation;
        const index = Math.max(...state.links.map((link) => link.index)) + 1;
        state.links.push({ name, index, kind: "bridge", mac, up: false, alias, master: undefined });
        state.sysctls[`net/ipv4/conf/${name}/forwarding`] = state.sysctls["net/ipv4/conf/default/forwarding"] ?? "0";
        return;
      }
      case "move_card": {
        const { link, bridge, to, routes } = operation;
        const master = state.links.find(({ name }) => name === bridge)?.index;
        if (master === undefined) throw new VolantError("not_found", "there is no such bridge");
        this.#changeLink(link, to === "bridge" ? { up: true, master } : { master: undefined });
        for (const route of routes) this.#replaceRoute(to === "bridge" ? bridge : link, route);
        return this.#changeLink(bridge, { up: to === "bridge" });
      }
      case "add_lan_address": {
        const { link } = operation;
        const { address, prefixLength } = operation.address;
        const added = { link, address, prefixLength };
        state.addresses.push(added);
        state.routes.push({ destination: connectedRoute(added), link, leads: true });
        return;
      }
      case "delete_lan_address": {
        const { link } = operation;
        const { address } = operation.address;
        const gone = state.addresses.find((other) => other.link === link && other.address === address);
        if (gone === undefined) return;
        state.addresses = state.addresses.filter((other) => other !== gone);
        const route = connectedRoute(gone);
        state.routes = state.routes.filter((other) => other.link !== link || other.destination !== route);
        return;
      }
      case "replace_route":
        return this.#replaceRoute(operation.link, operation.route);
      case "set_sysctl":
        state.sysctls[operation.name] = operation.value;
        return;
      case "write_nft_table":
        state.nft[operation.table.name] = operation.table;
        return;
      case "delete_nft_table":
        delete state.nft[operation.name];
        return;
      case "delete_link":
        state.links = state.links.map((link) =>
          link.master === state.links.find(({ name }) => name === operation.link)?.index
            ? { ...link, master: undefined }
            : link,
        );
        state.routes = state.routes.filter((route) => route.link !== operation.link);
        state.links = state.links.filter((link) => link.name !== operation.link);
        state.addresses = state.addresses.filter((address) => address.link !== operation.link);
        delete state.sysctls[`net/ipv4/conf/${operation.link}/forwarding`];
        return;
      case "set_alias":
        return this.#changeLink(operation.link, { alias: operation.alias });
      case "set_mac":
        return this.#changeLink(operation.link, { mac: operation.mac });
      case "set_up":
        return this.#changeLink(operation.link, { up: operation.up });
      case "add_address": {
        const { link, address, prefixLength } = operation;
        state.addresses.push({ link, address, prefixLength });
        return;
      }
      case "delete_address":
        state.addresses = state.addresses.filter(
          ({ link, address }) => link !== operation.link || address !== operation.address,
        );
        return;
      case "enable_forwarding":
        return this.#setForwarding("1");
      case "restore_forwarding":
        this.#setForwarding("0");
        for (const [name, value] of Object.entries(operation.values)) {
          // That of a link that has gone is gone with it.
          if (Object.hasOwn(state.sysctls, name)) state.sysctls[name] = value;
        }
        return;
      case "insert_rule": {
        const { table, chain } = operation.rule;
        if (!state.tables.includes(table)) state.tables.push(table);
        const found = state.chains.some((other) => other.table === table && other.name === chain);
        if (!found) state.chains.push({ table, name: chain, policy: "accept" });
        (state.rules[`${table} ${chain}`] ??= []).unshift(ruleKey(operation.rule));
        return;
      }
      case "delete_rule": {
        const place = `${operation.rule.table} ${operation.rule.chain}`;
        const left = (state.rules[place] ?? []).filter((key) => key !== ruleKey(operation.rule));
        if (left.length > 0) state.rules[place] = left;
        else delete state.rules[place];
        return;
      }
      case "remove_empty_chain": {
        const { table, chain, tableToo } = operation;
        if ((state.rules[`${table} ${chain}`] ?? []).length > 0) return;
        state.chains = state.chains.filter((other) => other.table !== table || other.name !== chain);
        if (tableToo && !state.chains.some((other) => other.table === table)) {
          state.tables = state.tables.filter((name) => name !== table);
        }
        return;
      }
      case "write_file":
        state.files[operation.path] = operation.content;
        return;
      case "delete_file":
        delete state.files[operation.path];
        return;
      case "systemctl":
        state.enabled = state.enabled.filter((unit) => unit !== operation.unit);
        if (operation.verb === "enable") state.enabled.push(operation.unit);
        return;
      case "systemd_reload":
        return;
    }
  }
}
