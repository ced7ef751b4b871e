// A client of a CSI socket, as kubelet and the sidecars are.
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { type ServiceName, serviceDefinition } from "../../csi/protocol.js";

export class CsiClient {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure());
  }

  call(service: ServiceName, method: string, request: object): Promise<Record<string, unknown>> {
    const definition = serviceDefinition(service)[method];
    if (definition === undefined) throw new Error(`no ${method}`);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        definition.path,
        definition.requestSerialize,
        definition.responseDeserialize,
        request,
        (error: ServiceError | null, response?: unknown) => {
          if (error !== null) reject(error);
          else resolve(response as Record<string, unknown>);
        },
      );
    });
  }

  /** The messages of a stream, as they come. */
  async *read(
    service: ServiceName,
    method: string,
    request: object,
  ): AsyncGenerator<Record<string, unknown>> {
    const definition = serviceDefinition(service)[method];
    if (definition === undefined) throw new Error(`no ${method}`);
    const call = this.#client.makeServerStreamRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
    );
    try {
      for await (const message of call) yield message as Record<string, unknown>;
    } finally {
      call.cancel();
    }
  }

  close(): void {
    this.#client.close();
  }
}
