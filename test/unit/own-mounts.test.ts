// A daemon's own mounts: in which order it comes to them, and what is thrown out.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { volumeNqn } from "../../engine/base/nqn.js";
import { MARKER, parseMounts, takeOwnMounts } from "../../nvmf/own-mounts.js";

const NQN = volumeNqn("3f8a1c52-9d0e-4b67-8a21-000000000001");
const TABLE = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw shared:2 - proc proc rw
30 22 259:0 / /mnt/a\\040b rw shared:3 - ext4 /dev/ublkb0 rw
31 22 259:1 / /mnt/db rw,relatime - xfs /dev/nvme1n1p1 rw
32 22 259:2 / /mnt/other rw - xfs /dev/nvme2n1 rw
33 22 254:0 / /mnt/db/crypt rw - ext4 /dev/dm-0 rw
`;

async function run(marker: string | undefined): Promise<string[]> {
  const root = mkdtempSync(join(tmpdir(), "pando-mounts-"));
  const write = (path: string, value: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), value);
  };
  write("proc/self/mountinfo", TABLE);
  write("sys/class/block/nvme1n1/device/subsysnqn", `${NQN}\n`);
  write("sys/class/block/nvme2n1/device/subsysnqn", "nqn.2014-08.org.example:x\n");
  write("sys/class/block/dm-0/slaves/nvme1n1/size", "1\n");
  const steps: string[] = [];
  try {
    await takeOwnMounts({
      calls: {
        mountsSeparate: () => void steps.push("separate"),
        mountDetach: (place) => void steps.push(`detach ${place}`),
        executeAgain: (words, name, value) =>
          void steps.push(`execute ${words.join(" ")} ${name}=${value}`),
      },
      root,
      processId: 77,
      marker,
      arguments: ["node", "pandod.js"],
    });
  } finally {
    rmSync(root, { recursive: true });
  }
  return steps;
}

test("mounts of volumes are thrown out of a copy, the last one first", async () => {
  assert.equal(await run(undefined), [
    "separate",
    "detach /mnt/db/crypt",
    "detach /mnt/db",
    "detach /mnt/a b",
    `execute node pandod.js ${MARKER}=77`,
  ]);
});

test("once is enough, and a child of such a daemon is not it", async () => {
  assert.equal(await run("77"), []);
  assert.is((await run("76"))[0], "separate");
});

test("only block devices are mounts that matter", () => {
  assert.equal(
    parseMounts(TABLE).map(({ device }) => device),
    ["/dev/sda1", "/dev/ublkb0", "/dev/nvme1n1p1", "/dev/nvme2n1", "/dev/dm-0"],
  );
});

test.run();
