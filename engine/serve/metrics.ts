// What Prometheus sees. The only file that knows prom-client. Everything is read when it is asked
// for, so an idle daemon does nothing.
//
// A volume has a series only while somebody has it open: a million volumes must not become a
// million series.
import { Counter, Gauge, Registry } from "prom-client";
import type { PoolInfo, VolumeInfo } from "../core/api.js";

export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

const POOL_GAUGES: [name: string, help: string, value: (info: PoolInfo) => number][] = [
  ["pando_pool_size_bytes", "Data blocks of the pool.", (info) => info.sizeBytes],
  ["pando_pool_used_bytes", "Allocated blocks.", (info) => info.usedBytes],
  ["pando_pool_free_bytes", "Blocks that can be allocated.", (info) => info.freeBytes],
  [
    "pando_pool_reserved_bytes",
    "Of the device, for superblocks and journal; not part of the size.",
    (info) => info.reservedBytes,
  ],
  [
    "pando_pool_pending_bytes",
    "Of the used ones: free after the next checkpoint, or a punch.",
    (info) => info.pendingBytes,
  ],
  [
    "pando_pool_space_level",
    "Thresholds of spaceLevels that the used blocks have reached: 0 to 3.",
    (info) => info.spaceLevel,
  ],
  ["pando_pool_volumes", "Volumes.", (info) => info.volumes],
  ["pando_pool_snapshots", "Snapshots.", (info) => info.snapshots],
  ["pando_pool_layers", "Layers, hidden ones included.", (info) => info.layers],
  ["pando_pool_reclaiming", "Deleted layers whose space is not back.", (info) => info.reclaiming],
  [
    "pando_pool_reclaim_layers_waiting",
    "Those of them that can go.",
    (info) => info.reclaim.layersWaiting,
  ],
  ["pando_pool_reclaim_spans_waiting", "Their spans.", (info) => info.reclaim.spansWaiting],
  [
    "pando_pool_writable",
    "1, or 0 after a failure that stopped writes.",
    (info) => (info.failure === null ? 1 : 0),
  ],
  ["pando_journal_size_bytes", "Room for journal blocks.", (info) => info.journal.sizeBytes],
  ["pando_journal_used_bytes", "Journal since the checkpoint.", (info) => info.journal.usedBytes],
];

const POOL_COUNTERS: [name: string, help: string, value: (info: PoolInfo) => number][] = [
  ["pando_reclaimed_layers_total", "Layers reclaimed.", (info) => info.reclaim.layersReclaimed],
  ["pando_folded_layers_total", "Layers folded.", (info) => info.reclaim.layersFolded],
  ["pando_reclaimed_spans_total", "Spans reclaimed.", (info) => info.reclaim.spansReclaimed],
  ["pando_folded_spans_total", "Spans folded.", (info) => info.reclaim.spansFolded],
  ["pando_swept_spans_total", "Spans swept.", (info) => info.reclaim.spansSwept],
  ["pando_punched_bytes_total", "Free, given back to the device.", (i) => i.discard.punchedBytes],
  ["pando_punch_skipped_bytes_total", "Free, not given back.", (i) => i.discard.skippedBytes],
  ["pando_reclaim_freed_bytes_total", "Space brought back.", (info) => info.reclaim.freedBytes],
];

const VOLUME_GAUGES: [name: string, help: string, value: (volume: VolumeInfo) => number][] = [
  ["pando_volume_size_bytes", "Size of an open volume.", (volume) => volume.sizeBytes],
  ["pando_volume_own_bytes", "Blocks that it alone holds.", (volume) => volume.ownBytes],
  ["pando_volume_shared_bytes", "Mapped, owned by another layer.", (volume) => volume.sharedBytes],
];

/** The text of one scrape; `open` are the volumes that somebody has open. */
export function renderMetrics(info: PoolInfo, open: VolumeInfo[]): Promise<string> {
  const registry = new Registry();
  const registers = [registry];
  for (const [name, help, value] of POOL_GAUGES) {
    new Gauge({ name, help, registers }).set(value(info));
  }
  for (const [name, help, value] of POOL_COUNTERS) {
    new Counter({ name, help, registers }).inc(value(info));
  }
  for (const [name, value] of countersByName(info.counters)) {
    new Counter({ name, help: "Counted by the engine.", registers }).inc(value);
  }
  for (const [name, help, value] of VOLUME_GAUGES) {
    const gauge = new Gauge({ name, help, labelNames: ["volume"], registers });
    for (const volume of open) gauge.set({ volume: volume.name }, value(volume));
  }
  addSessions(open, registers);
  addProcess(registers);
  return registry.metrics();
}

function addSessions(open: VolumeInfo[], registers: Registry[]): void {
  const gauge = new Gauge({
    name: "pando_volume_sessions",
    help: "Openings of a volume by a front end.",
    labelNames: ["volume", "front_end"],
    registers,
  });
  for (const volume of open) {
    for (const session of volume.sessions) {
      gauge.inc({ volume: volume.name, front_end: session.frontEnd }, session.count);
    }
  }
}

function addProcess(registers: Registry[]): void {
  // Prometheus' own names for these two. prom-client's default metrics would keep a timer going.
  const { user, system } = process.cpuUsage();
  new Counter({
    name: "process_cpu_seconds_total",
    help: "User and system CPU time.",
    registers,
  }).inc((user + system) / 1e6);
  new Gauge({
    name: "process_resident_memory_bytes",
    help: "Resident memory.",
    registers,
  }).set(process.memoryUsage.rss());
}

/** Two that differ in spelling only are one: a name that is there twice would fail the scrape. */
function countersByName(counters: PoolInfo["counters"]): Map<string, number> {
  const byName = new Map<string, number>();
  for (const [counter, value] of Object.entries(counters)) {
    const name = `pando_${snakeCase(counter)}_total`;
    byName.set(name, (byName.get(name) ?? 0) + value);
  }
  return byName;
}

function snakeCase(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/[^A-Za-z0-9]+/g, "_")
    .toLowerCase();
}
