// Postgres 15 in a guest: a cluster on a mounted volume, pgbench on it, and the questions that show
// whether it is whole.
import type { Job } from "./vm/agent.js";
import type { Vm } from "./vm/vm.js";

export const BIN = "/usr/lib/postgresql/15/bin";
/** What the guest needs of the machine's programs. */
export const postgresPrograms = [
  `${BIN}/initdb`,
  `${BIN}/pg_ctl`,
  `${BIN}/pgbench`,
  `${BIN}/pg_amcheck`,
];

/** Emulated processors are slow, and a machine that runs tests may be busy. */
const STEP_TIMEOUT_MS = 300_000;
/** Before that, so that it says what it waited for. */
const START_SECONDS = 270;
const SOCKET_DIR = "/tmp";

export interface Cluster {
  /** The mounted file system. */
  mountPoint: string;
  port: number;
}

export interface Sums {
  accounts: number;
  tellers: number;
  branches: number;
  history: number;
  historyRows: number;
}

export async function initCluster(vm: Vm, { mountPoint }: Cluster): Promise<void> {
  await vm.must(
    `chown postgres: ${mountPoint}
     ${asPostgres(`${BIN}/initdb -D ${mountPoint}/data -A trust -E UTF8 --locale=C`)}`,
    { timeoutMs: STEP_TIMEOUT_MS },
  );
}

/** Starts the server and waits until it takes connections, so for its recovery too. */
export async function startCluster(vm: Vm, { mountPoint, port }: Cluster): Promise<void> {
  const settings = `-p ${port} -k ${SOCKET_DIR} -c listen_addresses= -c shared_buffers=64MB`;
  const data = `${mountPoint}/data`;
  const options = `-D ${data} -l ${data}/server.log -o "${settings}" -w -t ${START_SECONDS}`;
  await vm.must(asPostgres(`${BIN}/pg_ctl ${options} start`), { timeoutMs: STEP_TIMEOUT_MS });
}

/**
 * A clone carries the lock file of the server that runs on its origin, and here that server's
 * process is alive. Removing it is what Postgres's manual asks for after a copy.
 */
export async function forgetOtherServer(vm: Vm, { mountPoint }: Cluster): Promise<void> {
  await vm.must(`rm ${mountPoint}/data/postmaster.pid`);
}

export async function stopCluster(vm: Vm, { mountPoint }: Cluster): Promise<void> {
  await vm.must(asPostgres(`${BIN}/pg_ctl -D ${mountPoint}/data -w -m fast stop`), {
    timeoutMs: STEP_TIMEOUT_MS,
  });
}

export async function serverLog(vm: Vm, { mountPoint }: Cluster): Promise<string> {
  return vm.must(`cat ${mountPoint}/data/server.log`);
}

/** One value, as text. */
export async function query(vm: Vm, { port }: Cluster, sql: string): Promise<string> {
  const out = await vm.must(`${psql(port)} <<'SQL'\n${sql}\nSQL`, { timeoutMs: STEP_TIMEOUT_MS });
  return out.trim();
}

/** The statements that `script` prints, one after another; prints what they answer. */
export function startQueries(vm: Vm, { port }: Cluster, script: string): Job {
  return vm.start(`{ ${script}; } | ${psql(port)}`, { timeoutMs: STEP_TIMEOUT_MS });
}

export async function initPgbench(vm: Vm, cluster: Cluster, scale: number): Promise<void> {
  await vm.must(`${pgbench(cluster)} -i -q -s ${scale}`, { timeoutMs: STEP_TIMEOUT_MS });
}

/** Runs until it is killed. */
export function startPgbench(vm: Vm, cluster: Cluster, clients: number): Job {
  return vm.start(`${pgbench(cluster)} -n -c ${clients} -j 1 -T 3600 -P 1`, {
    timeoutMs: 3_600_000,
  });
}

/** pgbench's transactions keep four sums equal; one that is half there breaks the equality. */
export async function sums(vm: Vm, cluster: Cluster): Promise<Sums> {
  const row = await query(
    vm,
    cluster,
    `select (select sum(abalance) from pgbench_accounts),
            (select sum(tbalance) from pgbench_tellers),
            (select sum(bbalance) from pgbench_branches), coalesce(sum(delta), 0), count(*)
     from pgbench_history;`,
  );
  const [accounts, tellers, branches, history, historyRows] = row.split("|").map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  return { accounts, tellers, branches, history, historyRows };
}

/** Checks every heap and index against each other; throws what pg_amcheck complains of. */
export async function amcheck(vm: Vm, { port }: Cluster): Promise<void> {
  await vm.must(`${BIN}/pg_amcheck ${asClient(port)} --install-missing --heapallindexed postgres`, {
    timeoutMs: STEP_TIMEOUT_MS,
  });
}

function psql(port: number): string {
  return `${BIN}/psql -X -q -A -t -v ON_ERROR_STOP=1 ${asClient(port)} postgres`;
}

function pgbench({ port }: Cluster): string {
  return `${BIN}/pgbench ${asClient(port)} postgres`;
}

function asClient(port: number): string {
  return `-U postgres -h ${SOCKET_DIR} -p ${port}`;
}

/** As the user of that name, without PAM, which cannot read the host's shadow file here. */
function asPostgres(command: string): string {
  return `cd /tmp; setpriv --reuid=postgres --regid=postgres --clear-groups ${command} >&2`;
}
