/** PCI devices of the host, and handing them to guests (VFIO). */
import { Type, type Static } from "typebox";

const closed = { additionalProperties: false } as const;

/** Domain, bus, device and function as sysfs names them; the domain may be left out, and is 0000 then. */
export const PCI_ADDRESS_PATTERN = "^(?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\\.[0-7]$";
export const PciAddress = Type.String({ pattern: PCI_ADDRESS_PATTERN, description: "Such as 0000:01:00.0 or 01:00.0" });

const PciAddresses = Type.Array(PciAddress, { minItems: 1, maxItems: 64 });

export const VfioInfoRequest = Type.Object({ pci_address: PciAddress }, closed);
export const VfioDevicesRequest = Type.Object({ pci_addresses: PciAddresses }, closed);
export const VfioValidateRequest = Type.Object(
  {
    pci_addresses: PciAddresses,
    allowlist: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 64 }), {
        maxItems: 1024,
        description:
          "Addresses or vendor:device ids that alone may be handed on, with * for any characters; empty: any",
      }),
    ),
  },
  closed,
);

export const VfioDevice = Type.Object(
  {
    address: Type.String(),
    vendor: Type.String({ description: "Four hexadecimal digits" }),
    device: Type.String({ description: "Four hexadecimal digits" }),
    class: Type.String({ description: "Six hexadecimal digits" }),
    driver: Type.String({ description: "Empty where none has it" }),
    iommu_group: Type.Optional(Type.Integer({ description: "Absent where the host has no IOMMU for it" })),
    numa_node: Type.Integer({ description: "-1 where the host does not say" }),
    links: Type.Array(Type.String({ description: "A network link that it is" })),
  },
  closed,
);
export type VfioDevice = Static<typeof VfioDevice>;

export const VfioDeviceList = Type.Object({ devices: Type.Array(VfioDevice) }, closed);
export type VfioDeviceList = Static<typeof VfioDeviceList>;

export const VfioVerdict = Type.Object(
  {
    valid: Type.Boolean(),
    devices: Type.Array(
      Type.Object(
        {
          address: Type.String(),
          valid: Type.Boolean(),
          reason: Type.Optional(Type.String({ description: "Why it can't be handed to a guest" })),
        },
        closed,
      ),
    ),
  },
  closed,
);
export type VfioVerdict = Static<typeof VfioVerdict>;

export const VfioGroup = Type.Object(
  {
    id: Type.Integer(),
    path: Type.String({ description: "Its node, once one of its devices is bound" }),
    devices: Type.Array(VfioDevice),
  },
  closed,
);
export const VfioGroupList = Type.Object({ groups: Type.Array(VfioGroup) }, closed);
export type VfioGroupList = Static<typeof VfioGroupList>;

export const VfioGroupPaths = Type.Object({ paths: Type.Array(Type.String()) }, closed);
export type VfioGroupPaths = Static<typeof VfioGroupPaths>;
