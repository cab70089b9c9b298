/** A healthy host as the doctor sees it, for tests to break one part of. */
import { blockOf, parseCidr } from "../ipv4.ts";
import type { DoctorView, SeenFirewall, SeenLink, SeenNetwork } from "../doctor/view.ts";
import { emptyRecord } from "../setup/record.ts";
import { bridgeMac, checkSettings } from "../setup/settings.ts";
import { setupRequest } from "./setup-request.ts";

const settings = checkSettings(setupRequest({ serviceFile: "" }));

export function seenLink(change: Partial<SeenLink> = {}): SeenLink {
  const link = { name: "eth0", index: 2, kind: undefined, mac: "52:54:00:00:00:02", up: true, mtu: 1500 };
  return { ...link, alias: undefined, master: undefined, ...change };
}

export const vbr0: SeenLink = seenLink({ name: "vbr0", index: 9, kind: "bridge", mac: bridgeMac(settings) });

export const healthyNetwork: SeenNetwork = {
  links: [seenLink(), vbr0],
  addresses: [
    { link: "eth0", address: "10.1.2.3", prefixLength: 24 },
    { link: "vbr0", address: "192.168.127.1", prefixLength: 24 },
  ],
  routes: [
    { destination: "0.0.0.0/0", link: "eth0", leads: true },
    { destination: "10.1.2.0/24", link: "eth0", leads: true },
    { destination: "192.168.127.0/24", link: "vbr0", leads: true },
  ],
};

export const healthyFirewall: SeenFirewall = {
  masquerade: true,
  acceptFrom: true,
  acceptTo: true,
  forwardPolicy: "ACCEPT",
  droppedBy: undefined,
  otherChains: [],
  frontends: [],
};

export function doctorView(change: Partial<DoctorView> = {}): DoctorView {
  const { bridge, subnet, hostIp, workDir, runtimeDir, bzImage } = settings;
  const kernel = { bootId: "boot", networkNamespace: "net:[1]" };
  const cidr = parseCidr(subnet);
  if (cidr === undefined) throw new Error("the tests' subnet is none");
  return {
    root: true,
    managed: true,
    settings: {
      bridge,
      subnet,
      hostIp,
      workDir,
      runtimeDir,
      bzImage,
      firewall: "iptables",
      block: blockOf(cidr.address, cidr.prefixLength),
    },
    record: { ...emptyRecord(settings, kernel, []), state: "applied" },
    network: healthyNetwork,
    sysctls: { "net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1" },
    firewall: healthyFirewall,
    policy: { nft: true, table: { rules: "absent", empty: true }, slow: undefined },
    processes: { hypervisors: [], managers: [] },
    seizers: [],
    machine: {
      virtualization: true,
      kvmNode: "usable",
      tunNode: "usable",
      hypervisor: "/usr/bin/qemu-system-x86_64",
      kernel: "usable",
    },
    folders: [],
    clock: { nowMs: Date.UTC(2026, 5, 1), newestFileMs: Date.UTC(2026, 4, 1), synchronized: true },
    volantd: {
      answers: true,
      installation: "abcdef01",
      bridge,
      subnet,
      vmIds: [],
      leased: [],
      transport: { data: "virtio-serial", wanted: "off", reason: "VOLANT_VSOCK is off" },
    },
    ...change,
  };
}
