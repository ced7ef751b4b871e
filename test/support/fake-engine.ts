// An engine that has no pool behind it, for the commands that need one. The volume "in-use" is
// there and open from the start; a pool path that contains "busy" is taken, one that contains
// "damaged" does not check clean.
import { PandoError } from "../../engine/base/errors.js";
import type { Engine } from "../../engine/daemon.js";
import { FakePool } from "./fake-pool.js";

export const fakeEngine: Engine = {
  async openPool(config) {
    if (config.pool.includes("busy")) {
      throw new PandoError("EBUSY", `the pool ${config.pool} is open in process 4711`, {
        path: config.pool,
        hint: "stop that daemon first",
      });
    }
    const pool = new FakePool(config.pool);
    await pool.createVolume("in-use", 4096);
    pool.open("in-use", { frontEnd: "nvme-tcp", hostNqn: "nqn.2014-08.org.example:a", count: 1 });
    pool.connections.push({
      volume: "in-use",
      hostNqn: "nqn.2014-08.org.example:a",
      peer: "10.0.0.9:50000",
      controllerId: 7,
      ioQueues: 2,
      authenticated: false,
      tls: true,
      connectedSeconds: 90,
    });
    return { pool, close: () => pool.close() };
  },
  crc32c: () => 0,
  examineMachine: async () => [
    { what: "kernel", ok: true, found: "Linux 6.12", remedy: null },
    { what: "ublk", ok: false, found: "no /dev/ublk-control", remedy: "modprobe ublk_drv" },
  ],
  async growPool({ path, sizeBytes }) {
    const size = { sizeBytes: sizeBytes ?? 2 ** 30, blockSizeBytes: 4096 };
    return { path, uuid: "00000000-0000-4000-8000-000000000000", ...size };
  },
  async createPool(path, options) {
    const { sizeBytes = 2 ** 30, blockSizeBytes = 4096 } = options;
    return { path, uuid: "00000000-0000-4000-8000-000000000000", sizeBytes, blockSizeBytes };
  },
  async repairPool({ path }) {
    const repaired = path.includes("damaged") ? ["the free map, from the own bits: 3 blocks"] : [];
    return { layers: 1, indexBlocks: 2, ownedBlocks: 3, clean: true, problems: [], repaired };
  },
  async *backUpPool({ path }) {
    yield Buffer.from(`metadata of ${path}`);
    if (path.includes("damaged")) throw new PandoError("ECORRUPT", `${path}: the store is damaged`);
  },
  async restorePool(file, { path }) {
    if (file.includes("old")) {
      throw new PandoError("ECORRUPT", `${file} does not fit its device any more`, { path });
    }
    return { layers: 1, indexBlocks: 2, ownedBlocks: 3, clean: true, problems: [] };
  },
  async *inspectPool({ path }, { part }) {
    yield [
      { what: `${part} of ${path}`, tail: 7, runs: ["1…3", "9"], parent: null },
      { what: "journal block 7", records: [{ layer: 2, firstBlock: 0, frees: ["4"] }] },
    ];
    yield [{ what: "layer 3", damaged: "the checksum does not fit" }];
  },
  async checkPool({ path }) {
    const report = { layers: 1, indexBlocks: 2, ownedBlocks: 3 };
    if (!path.includes("damaged")) return { ...report, clean: true, problems: [] };
    return { ...report, clean: false, problems: ["block 7 has two owners"] };
  },
  async nvmeLoad({ subsystemNqn, hostNqn, pattern, blockBytes, queues, depth, port }) {
    if (port === 1) throw new Error("the target does not answer");
    const latency = { p50Us: 80, p90Us: 90, p99Us: 100, p999Us: 200, maxUs: 300 };
    const none = { ops: 0, bytes: 0, latency };
    const ops = 1000 * queues * depth;
    const lane = { ops, bytes: ops * blockBytes, latency };
    const reads = pattern.endsWith("write") ? none : lane;
    const writes = pattern.endsWith("write") ? lane : none;
    const errors = { errors: 0, firstError: "" };
    if (!hostNqn.startsWith("nqn.2014-08.") || !subsystemNqn.includes(":volume:")) {
      throw new Error("not a host and a volume");
    }
    return { seconds: 1, iops: ops, reads, writes, ...errors, volumeBytes: 4096 };
  },
};
