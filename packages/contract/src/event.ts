import { Type, type Static } from "typebox";
import { Timestamp, VmStatus } from "./vm.ts";

export const VmEventType = Type.Union([
  Type.Literal("VM_CREATED"),
  Type.Literal("VM_RUNNING"),
  Type.Literal("VM_STOPPED"),
  Type.Literal("VM_CRASHED"),
  Type.Literal("VM_DELETED"),
  Type.Literal("VM_LOG"),
  Type.Literal("VM_UPDATED"),
]);
export type VmEventType = Static<typeof VmEventType>;

/** One line of the stream `GET /api/v1/events/vms`. `VM_UPDATED` (ours) says that the status or reason changed in another way, or the address that a DHCP server gave. */
export const VmEvent = Type.Object(
  {
    type: VmEventType,
    name: Type.String(),
    status: Type.Optional(VmStatus),
    reason: Type.Optional(Type.String()),
    ip_address: Type.Optional(Type.String()),
    mac_address: Type.Optional(Type.String()),
    pid: Type.Optional(Type.Integer()),
    timestamp: Timestamp,
    message: Type.Optional(Type.String()),
    stream: Type.Optional(Type.String()),
    line: Type.Optional(Type.String()),
  },
  { additionalProperties: false },
);
export type VmEvent = Static<typeof VmEvent>;
