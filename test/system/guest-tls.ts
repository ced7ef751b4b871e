// A guest as a machine that uses TLS: tlshd runs, and `nvme` is trixie's. The tools see the guest's
// devices, and each other.
import type { Vm } from "./vm/vm.js";

export const IN_TOOLS = "chroot /run/tools";
export const TLSHD_LOG = "/run/tlshd.log";

/** `tools`: what provideHostTools() gives. */
export async function startTlshd(vm: Vm, tools: string): Promise<void> {
  await vm.must(`mkdir -p /run/tools /run/upper /run/work
    mount -t tmpfs tmpfs /run/upper && mkdir /run/upper/data /run/upper/work
    mount -t overlay -o lowerdir=${tools},upperdir=/run/upper/data,workdir=/run/upper/work \\
      overlay /run/tools
    for dir in proc sys dev; do mount --rbind /$dir /run/tools/$dir; done
    modprobe tls; modprobe nvme-tcp; modprobe nvme-keyring || true
    printf '[debug]\\nloglevel=1\\ntls=1\\nnl=0\\n[authenticate]\\nkeyrings=.nvme\\n' \\
      >/run/tools/etc/tlshd.conf
    # In the place of nvme-cli, for everything that follows.
    printf '#!/bin/sh\\nexec ${IN_TOOLS} /usr/sbin/nvme "$@"\\n' >/usr/sbin/nvme
    chmod +x /usr/sbin/nvme
    ${IN_TOOLS} /usr/sbin/tlshd -s >${TLSHD_LOG} 2>&1 &
    sleep 1; nvme version`);
}
