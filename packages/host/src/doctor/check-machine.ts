/** Checks of the machine, and of what earlier VMs left on it. No I/O. */
import { join } from "node:path";
import { shellWord } from "../setup/operation.ts";
import { broken, ok, skipped, type Verdict, warning } from "./finding.ts";
import type { DoctorView, SeenHypervisor } from "./view.ts";

/** The alias of a VM's tap; the bridge's own alias is of another form. */
const TAP_ALIAS = /^volant:([0-9a-f]+):([1-9]\d{0,15})$/;
/** No release of Volant is older: certificates of today are not valid yet for a clock before this. */
const EARLIEST_MS = Date.UTC(2025, 0, 1);
/** A file's time and the clock are read at different instants, and by different clocks of the kernel. */
const CLOCK_TOLERANCE_MS = 60_000;

export function checkTun({ machine }: DoctorView): Verdict[] {
  if (machine.tunNode === "usable") return [ok("/dev/net/tun can be opened")];
  if (machine.tunNode === "denied") return [skipped("only root may open /dev/net/tun")];
  return [broken("/dev/net/tun is missing: no tap can be made", "modprobe tun")];
}

export function checkKvm({ machine }: DoctorView): Verdict[] {
  if (!machine.virtualization) {
    return [warning("the processor shows neither vmx nor svm: guests run in software emulation, many times slower")];
  }
  if (machine.kvmNode === "usable") return [ok("KVM is usable")];
  if (machine.kvmNode === "denied") return [skipped("only root may open /dev/kvm here")];
  const sentence =
    "/dev/kvm is missing although the processor can do it: guests run in software emulation, many times slower";
  return [warning(sentence, "modprobe kvm_intel || modprobe kvm_amd")];
}

export function checkHypervisor({ machine }: DoctorView): Verdict[] {
  if (machine.hypervisor !== undefined) return [ok(`the hypervisor is ${machine.hypervisor}`)];
  return [broken("no hypervisor is installed: no VM can start", "apt-get install qemu-system-x86")];
}

export function checkKernel({ machine, settings }: DoctorView): Verdict[] {
  if (machine.kernel === "denied") return [skipped(`only root can see whether ${settings.bzImage} is there`)];
  if (machine.kernel === "usable") return [ok(`the guests' kernel is ${settings.bzImage}`)];
  const fix = ["volar", "kernel", "install", "--work-dir", settings.workDir].map(shellWord).join(" ");
  return [broken(`the guests' kernel, ${settings.bzImage}, is missing: no VM can start`, fix)];
}

export function checkTapSeizure({ seizers, settings }: DoctorView): Verdict[] {
  const fixes = {
    NetworkManager:
      "printf '[keyfile]\\nunmanaged-devices+=interface-name:vttap-*,interface-name:" +
      `${settings.bridge}\\n' > /etc/NetworkManager/conf.d/volant.conf && systemctl reload NetworkManager`,
    "systemd-networkd":
      `printf '[Match]\\nName=vttap-* ${settings.bridge}\\n[Link]\\nUnmanaged=yes\\n' ` +
      "> /etc/systemd/network/00-volant.network && networkctl reload",
  };
  const verdicts = seizers.map(({ manager, path }) =>
    warning(`${manager} runs, and ${path} lets it take taps of VMs and the bridge as its own`, fixes[manager]),
  );
  return verdicts.length > 0 ? verdicts : [ok("no network manager is about to take a tap")];
}

/** What volantd itself takes care of, where it answers: its next look removes what should not be. */
function isKept({ volantd }: DoctorView, installation: string): boolean {
  return volantd.answers && volantd.installation === installation;
}

export function checkStaleTaps(view: DoctorView): Verdict[] {
  const { network, processes } = view;
  if (network === undefined || processes === undefined) return [skipped("links or processes can't be listed")];
  const verdicts = network.links.flatMap(({ name, alias }): Verdict[] => {
    const [, installation = "", id = ""] = TAP_ALIAS.exec(alias ?? "") ?? [];
    if (installation === "" || isKept(view, installation)) return [];
    const held = processes.hypervisors.some(
      (process) => process.installation === installation && process.vmId === Number(id),
    );
    if (held) return [];
    const sentence = `the tap ${name} of VM ${id} has no hypervisor, and no volantd of its installation ${installation} answers`;
    return [warning(sentence, `ip link delete dev ${shellWord(name)}`)];
  });
  return verdicts.length > 0 ? verdicts : [ok("every tap of ours has its hypervisor, or a volantd that sees to it")];
}

function isLost({ volantd }: DoctorView, process: SeenHypervisor): string | undefined {
  if (process.folderDeleted) return "its VM's folder is gone, and nothing can reach it";
  if (!volantd.answers || volantd.installation !== process.installation) return undefined;
  return volantd.vmIds.includes(process.vmId) ? undefined : "volantd knows no such VM";
}

export function checkStaleProcesses(view: DoctorView): Verdict[] {
  if (view.processes === undefined) return [skipped("processes can't be listed")];
  const verdicts = view.processes.hypervisors.flatMap((process): Verdict[] => {
    const why = isLost(view, process);
    if (why === undefined) return [];
    return [
      warning(`the hypervisor ${process.pid} of VM ${process.vmId} still runs, and ${why}`, `kill ${process.pid}`),
    ];
  });
  return verdicts.length > 0 ? verdicts : [ok("every hypervisor of ours has its VM's folder")];
}

export function checkStaleFolders(view: DoctorView): Verdict[] {
  const { folders, processes, settings, volantd } = view;
  if (folders === undefined || processes === undefined) {
    return [skipped(`${settings.runtimeDir} or the processes can't be listed`)];
  }
  if (!view.root && folders.length > 0) return [skipped("only root can see which hypervisor works in which folder")];
  const verdicts = folders.flatMap((vmId): Verdict[] => {
    const folder = join(settings.runtimeDir, String(vmId));
    const held = processes.hypervisors.some((process) => process.folder === folder);
    if (held || (volantd.answers && volantd.vmIds.includes(vmId))) return [];
    return [warning(`the folder ${folder} of VM ${vmId} has no hypervisor`, `rm -r ${shellWord(folder)}`)];
  });
  return verdicts.length > 0 ? verdicts : [ok(`every VM's folder in ${settings.runtimeDir} is in use`)];
}

export function checkClock({ clock }: DoctorView): Verdict[] {
  const { nowMs, newestFileMs, synchronized } = clock;
  const now = new Date(nowMs).toISOString();
  if (nowMs < EARLIEST_MS)
    return [broken(`the clock says ${now}, and guests get it from here`, "timedatectl set-ntp true")];
  if (newestFileMs !== undefined && newestFileMs > nowMs + CLOCK_TOLERANCE_MS) {
    const file = new Date(newestFileMs).toISOString();
    return [
      warning(
        `the clock says ${now}, and a file of Volant is from ${file}: it went backwards`,
        "timedatectl set-ntp true",
      ),
    ];
  }
  if (synchronized === false) {
    return [warning("the clock follows no time server, and guests get it from here", "timedatectl set-ntp true")];
  }
  return [ok(`the clock says ${now}${synchronized === true ? ", and follows a time server" : ""}`)];
}
