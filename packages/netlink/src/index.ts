/** rtnetlink and tun/tap for Node. See README.md. */
export { type AddressAdd, Addresses, type AddressKey, type AddressListOptions } from "./addresses.ts";
export type { Address, AddressFlag } from "./codec/address.ts";
export type { IpFamily } from "./codec/ip-text.ts";
export type { AddressGeneration, Link, LinkFlags, OperState } from "./codec/link.ts";
export { MAX_ALIAS_BYTES, MAX_NAME_BYTES } from "./codec/link.ts";
export type {
  BridgeInfo,
  BridgeOptions,
  BridgePortInfo,
  BridgePortOptions,
  TunInfo,
  VxlanInfo,
  VxlanOptions,
} from "./codec/link-kinds.ts";
export type { Neighbour, NeighbourFlag, NeighbourState } from "./codec/neighbour.ts";
export type { NextHop, Route, RouteFlag, RouteProtocol, RouteType } from "./codec/route.ts";
export type { Scope } from "./codec/scope.ts";
export { type ChildEnd, childEnd, type ChildStart, collectChild, startChild } from "./child-process.ts";
export type { LinkCounters } from "./codec/stats.ts";
export { NetlinkError, type NetlinkErrorCode } from "./errors.ts";
export type { NetlinkEvent, SubscribeOptions, Topic } from "./events.ts";
export { type CommonLinkOptions, type LinkChange, type LinkCreate, type LinkListOptions, Links } from "./links.ts";
export { type NeighbourKey, type NeighbourListOptions, Neighbours, type NeighbourSet } from "./neighbours.ts";
export { type ForwardingChange, watchForwarding } from "./forwarding-events.ts";
export { returnFreeMemory } from "./free-memory.ts";
export { createMemoryFile } from "./memory-file.ts";
export { Netlink } from "./netlink.ts";
export { type RouteAdd, type RouteListOptions, Routes } from "./routes.ts";
export type { LinkRef } from "./session.ts";
export { type BpfClassifier, loadClassifier, type LoadedProgram } from "./bpf-program.ts";
export { Btf, type FieldPlace } from "./codec/btf.ts";
export { assemble, call, compute, type EbpfLine, jump, jumpIf, load, type Register, result } from "./codec/ebpf.ts";
export type { BlockFilter, BpfInstruction, NewBlockFilter } from "./codec/traffic.ts";
export { type PacketWatchOptions, type WatchedFrame, watchPackets } from "./packet-watch.ts";
export { Traffic } from "./traffic.ts";
export { hasChecksumOffload, setChecksumOffload } from "./transport/ethtool.ts";
export { listenUnix } from "./unix-listener.ts";
export { type NftablesChange, type NftablesTable, watchNftables } from "./nftables-events.ts";
export { closeTap, openTap, type TapAttach, type TapCreate, Taps } from "./taps.ts";
