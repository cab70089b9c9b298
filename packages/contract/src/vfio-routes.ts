/** Routes of PCI passthrough. A part of the route table. */
import { ENDPOINTS } from "./endpoints.ts";
import {
  VfioDevice,
  VfioDeviceList,
  VfioDevicesRequest,
  VfioGroupList,
  VfioGroupPaths,
  VfioInfoRequest,
  VfioValidateRequest,
  VfioVerdict,
} from "./vfio.ts";

const devices = { tag: "vfio", body: VfioDevicesRequest, status: 200 } as const;

export const VFIO_ROUTES = {
  "vfio.info": {
    ...ENDPOINTS["vfio.info"],
    tag: "vfio",
    summary: "Show a PCI device of the host",
    body: VfioInfoRequest,
    status: 200,
    response: VfioDevice,
    errors: ["not_found"],
  },
  "vfio.validate": {
    ...ENDPOINTS["vfio.validate"],
    tag: "vfio",
    summary: "Whether PCI devices could be handed to a guest, and why not",
    body: VfioValidateRequest,
    status: 200,
    response: VfioVerdict,
    errors: [],
  },
  "vfio.groups": {
    ...ENDPOINTS["vfio.groups"],
    ...devices,
    summary: "The IOMMU groups of PCI devices, with everything in them",
    response: VfioGroupList,
    errors: ["not_found"],
  },
  "vfio.bind": {
    ...ENDPOINTS["vfio.bind"],
    ...devices,
    summary: "Take PCI devices from the host's drivers and give them to vfio-pci: all of them, or none",
    response: VfioDeviceList,
    errors: ["not_found", "in_use", "wrong_state"],
  },
  "vfio.unbind": {
    ...ENDPOINTS["vfio.unbind"],
    ...devices,
    summary: "Give PCI devices back to the host's drivers",
    response: VfioDeviceList,
    errors: ["not_found"],
  },
  "vfio.paths": {
    ...ENDPOINTS["vfio.paths"],
    ...devices,
    summary: "The nodes under /dev/vfio by which a hypervisor gets PCI devices",
    response: VfioGroupPaths,
    errors: ["not_found", "wrong_state"],
  },
} as const;
