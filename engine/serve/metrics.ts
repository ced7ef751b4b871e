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
  ["pando_journal_size_bytes", "Room for journal blocks.", (info) => info.journal.sizeBytes],
  ["pando_journal_used_bytes", "Journal since the checkpoint.", (info) => info.journal.usedBytes],
];

const WRITABLE: [name: string, help: string] = [
  "pando_pool_writable",
  "1, or 0 after a failure that stopped writes, or kept the pool from being opened.",
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

/** A pool at the moment of a scrape. */
export interface ScrapedPool {
  /** Null: the only one, and its series have no label for it. */
  name: string | null;
  /** Null: it could not be opened. */
  info: PoolInfo | null;
  /** Volumes that somebody has open. */
  open: VolumeInfo[];
}

type Labels = Record<string, string>;

/** The text of one scrape. */
export function renderMetrics(pools: readonly ScrapedPool[]): Promise<string> {
  const registry = new Registry();
  const metrics = new Metrics(
    registry,
    pools.some(({ name }) => name !== null),
  );
  for (const { name, info, open } of pools) {
    const labels: Labels = name === null ? {} : { pool: name };
    if (info === null) metrics.gauge(WRITABLE, labels, 0);
    else addPool(metrics, labels, info);
    addVolumes(metrics, labels, open);
  }
  addProcess([registry]);
  return registry.metrics();
}

function addPool(metrics: Metrics, labels: Labels, info: PoolInfo): void {
  for (const [name, help, value] of POOL_GAUGES) metrics.gauge([name, help], labels, value(info));
  metrics.gauge(WRITABLE, labels, info.failure === null ? 1 : 0);
  for (const [name, help, value] of POOL_COUNTERS) metrics.count([name, help], labels, value(info));
  for (const [name, value] of countersByName(info.counters)) {
    metrics.count([name, "Counted by the engine."], labels, value);
  }
}

function addVolumes(metrics: Metrics, labels: Labels, open: VolumeInfo[]): void {
  for (const [name, help, value] of VOLUME_GAUGES) {
    metrics.declare([name, help], ["volume"]);
    for (const volume of open) {
      metrics.gauge([name, help], { ...labels, volume: volume.name }, value(volume));
    }
  }
  const sessions: Named = ["pando_volume_sessions", "Openings of a volume by a front end."];
  metrics.declare(sessions, ["volume", "front_end"]);
  for (const volume of open) {
    for (const { frontEnd, count } of volume.sessions) {
      metrics.gauge(sessions, { ...labels, volume: volume.name, front_end: frontEnd }, count);
    }
  }
}

type Named = [name: string, help: string];

/** Series of one scrape, by name; several pools have the same ones, each with its label. */
class Metrics {
  readonly #registers: Registry[];
  readonly #common: string[];
  readonly #gauges = new Map<string, Gauge>();
  readonly #counters = new Map<string, Counter>();

  constructor(registry: Registry, named: boolean) {
    this.#registers = [registry];
    this.#common = named ? ["pool"] : [];
  }

  /** Gauges with these labels: there without a series, too. */
  declare([name, help]: Named, labels: string[]): Gauge {
    const known = this.#gauges.get(name);
    if (known !== undefined) return known;
    const labelNames = [...this.#common, ...labels];
    const gauge = new Gauge({ name, help, labelNames, registers: this.#registers });
    this.#gauges.set(name, gauge);
    return gauge;
  }

  /** Adds up where it is called again. */
  gauge(named: Named, labels: Labels, value: number): void {
    this.declare(named, []).inc(labels, value);
  }

  count([name, help]: Named, labels: Labels, value: number): void {
    const counter =
      this.#counters.get(name) ??
      new Counter({ name, help, labelNames: this.#common, registers: this.#registers });
    this.#counters.set(name, counter);
    counter.inc(labels, value);
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
