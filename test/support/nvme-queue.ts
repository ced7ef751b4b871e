// The beginning of an NVMe/TCP admin queue on any stream, from the host's side: ICReq, then
// Connect.
import type { Socket } from "node:net";

const IC_BYTES = 128;
const CAPSULE_BYTES = 72;
const CONNECT_DATA_BYTES = 1024;
const RESPONSE_BYTES = 24;
const CAPSULE_CMD = 4;
const CAPSULE_RESP = 5;

/** The status code and its type, as in SC | SCT << 8. */
export const SUCCESS = 0;
export const INVALID_PARAMETERS = 0x182;
export const INVALID_HOST = 0x184;

/** Of the answer to Connect; null if the target ends the stream before it. */
export async function connectQueue(
  stream: Socket,
  names: { hostNqn: string; subsystemNqn: string },
): Promise<number | null> {
  const icReq = Buffer.alloc(IC_BYTES);
  icReq.set([0, 0, IC_BYTES, 0]);
  icReq.writeUInt32LE(IC_BYTES, 4);
  stream.write(icReq);
  const icResp = await readExactly(stream, IC_BYTES);
  if (icResp?.readUInt8(0) !== 1) return null;

  const capsule = Buffer.alloc(CAPSULE_BYTES + CONNECT_DATA_BYTES);
  capsule.set([CAPSULE_CMD, 0, CAPSULE_BYTES, CAPSULE_BYTES]);
  capsule.writeUInt32LE(capsule.length, 4);
  capsule.set([0x7f, 0x40, 7, 0, 1], 8); // fabrics, by SGL; command 7: Connect
  capsule.writeUInt32LE(CONNECT_DATA_BYTES, 8 + 32);
  capsule.writeUInt8(0x01, 8 + 39); // in the capsule
  capsule.writeUInt16LE(31, 8 + 44); // entries, 0's based
  capsule.writeUInt16LE(0xffff, CAPSULE_BYTES + 16); // any controller
  capsule.write(names.subsystemNqn, CAPSULE_BYTES + 256);
  capsule.write(names.hostNqn, CAPSULE_BYTES + 512);
  stream.write(capsule);
  const response = await readExactly(stream, RESPONSE_BYTES);
  if (response?.readUInt8(0) !== CAPSULE_RESP) return null;
  return (response.readUInt16LE(8 + 14) >> 1) & 0x7ff;
}

/** Null: it has ended before. */
function readExactly(stream: Socket, size: number): Promise<Buffer | null> {
  return new Promise((resolve) => {
    let bytes = Buffer.alloc(0);
    const settle = (result: Buffer | null) => {
      stream.off("data", take).off("close", end).off("end", end).pause();
      if (bytes.length > size) stream.unshift(bytes.subarray(size));
      resolve(result);
    };
    const take = (more: Buffer) => {
      bytes = Buffer.concat([bytes, more]);
      if (bytes.length >= size) settle(bytes.subarray(0, size));
    };
    const end = () => settle(null);
    if (stream.destroyed || stream.readableEnded) return end();
    stream.on("data", take).on("close", end).on("end", end).resume();
  });
}
