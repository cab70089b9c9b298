import { Type, type Static } from "typebox";
import { VmName } from "./names.ts";
import { Timestamp, VmStatus } from "./vm.ts";

const closed = { additionalProperties: false } as const;

export const VmEventType = Type.Union([
  Type.Literal("VM_CREATED"),
  Type.Literal("VM_RUNNING"),
  Type.Literal("VM_STOPPED"),
  Type.Literal("VM_CRASHED"),
  Type.Literal("VM_DELETED"),
  Type.Literal("VM_LOG"),
  Type.Literal("VM_UPDATED"),
  Type.Literal("DEPLOYMENT_CREATED"),
  Type.Literal("DEPLOYMENT_UPDATED"),
  Type.Literal("DEPLOYMENT_DELETED"),
]);
export type VmEventType = Static<typeof VmEventType>;

const eventFields = {
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
};

/**
 * One line of the stream `GET /api/v1/events/vms`. `VM_UPDATED` (ours) says that the status or reason changed in another way, or the address that a DHCP server gave.
 * `DEPLOYMENT_…` (ours too) have a deployment's name, the state of its roll-out in `message`, and in `reason` why.
 */
export const VmEvent = Type.Object(eventFields, closed);
export type VmEvent = Static<typeof VmEvent>;

/** An event with its place in the order of all events, which the stream tells as the frame's `id`. Ids grow, with holes, over restarts of volantd, too. */
export const NumberedVmEvent = Type.Object({ id: Type.Integer({ minimum: 1 }), ...eventFields }, closed);
export type NumberedVmEvent = Static<typeof NumberedVmEvent>;

/**
 * Data of the stream's frame `event: gap`: events that the reader asked for may be missing here, since they are not kept any more. What follows is all that
 * is kept from there on.
 */
export const VmEventGap = Type.Object(
  {
    after: Type.Optional(Type.Integer({ description: "The last id that the reader has" })),
    kept_after: Type.Integer({ description: "Events up to this id are gone" }),
    message: Type.String(),
  },
  closed,
);
export type VmEventGap = Static<typeof VmEventGap>;

/** What an event's id looks like in the header `Last-Event-ID`. */
export const EVENT_ID_PATTERN = "^[0-9]{1,15}$";
/** RFC 3339. */
export const TIME_PATTERN = "^\\d{4}-\\d\\d-\\d\\d[Tt]\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?([Zz]|[+-]\\d\\d:\\d\\d)$";

/** The newest so many, where a list's reader does not say how many. */
export const DEFAULT_EVENT_LIMIT = 100;
export const MAX_EVENT_LIMIT = 1000;

const eventId = (description: string) => Type.Optional(Type.Integer({ minimum: 0, maximum: 1e15 - 1, description }));

const selection = {
  name: Type.Optional(Type.Array(VmName, { maxItems: 100, description: "Only of these VMs" })),
  type: Type.Optional(Type.Array(VmEventType, { maxItems: 16, description: "Only of these types" })),
  since: Type.Optional(Type.String({ pattern: TIME_PATTERN, description: "Kept ones of this time and later" })),
};

/** Query of the stream. The header `Last-Event-ID` goes before `after`, and that before `since`: a browser that connects again sends the first with the others. */
export const VmEventsQuery = Type.Object(
  { ...selection, after: eventId("Kept ones after this id first; what the header Last-Event-ID says goes before it") },
  closed,
);
export type VmEventsQuery = Static<typeof VmEventsQuery>;

/** Query of the list. Lines of logs are not among what is kept. */
export const EventListQuery = Type.Object(
  {
    ...selection,
    after: eventId("Only after this id"),
    before: eventId("Only before this id: the last one of a page leads to the next"),
    limit: Type.Optional(
      Type.Integer({ minimum: 1, maximum: MAX_EVENT_LIMIT, description: `${DEFAULT_EVENT_LIMIT} unless given` }),
    ),
  },
  closed,
);
export type EventListQuery = Static<typeof EventListQuery>;
