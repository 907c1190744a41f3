/**
 * The machine's virtual IPs in the kernel. A Service whose backends change gets a new id: the backends are written under
 * it, then the Service is pointed at it, then the old ones go, so that a connect never sees half a change.
 */
import { InterceptionError } from "../errors.ts";
import type { ServiceVip } from "../pod.ts";
import {
  BOUNDS,
  decodeService,
  encodeBackendKey,
  encodeEndpoint,
  encodeService,
  encodeServiceKey,
  SIZE,
} from "./layout.ts";
import type { Libbpf } from "./libbpf.ts";

const BACKENDS_PER_SERVICE_MAX = 1024;

interface Written {
  readonly key: Buffer;
  readonly id: number;
  readonly backends: number;
  /** What was written, to see a change; null for what an earlier process wrote. */
  readonly content: string | null;
}

export class ServiceTable {
  readonly #lib: Libbpf;
  readonly #servicesFd: number;
  readonly #backendsFd: number;
  readonly #written = new Map<string, Written>();
  #lastId = 0;

  /** Takes over what is in the maps already. Owns both descriptors. */
  constructor(lib: Libbpf, servicesFd: number, backendsFd: number) {
    this.#lib = lib;
    this.#servicesFd = servicesFd;
    this.#backendsFd = backendsFd;
    const value = Buffer.alloc(SIZE.mesh_service);
    for (const key of lib.keys(servicesFd, SIZE.mesh_service_key, BOUNDS.mesh_services.entries)) {
      if (!lib.lookup(servicesFd, key, value)) continue;
      const { id, backends } = decodeService(value);
      this.#written.set(key.toString("hex"), { key, id, backends, content: null });
      this.#lastId = Math.max(this.#lastId, id);
    }
  }

  set(services: readonly ServiceVip[]): void {
    const backends = services.reduce(
      (sum, service) => sum + Math.min(service.backends.length, BACKENDS_PER_SERVICE_MAX),
      0,
    );
    // A Service that changes holds its old and its new backends for a moment: half of the room is for that.
    checkFits(services.length, BOUNDS.mesh_services.entries, BOUNDS.mesh_services.what);
    checkFits(backends, BOUNDS.mesh_backends.entries / 2, BOUNDS.mesh_backends.what);
    const wanted = new Set<string>();
    for (const service of services) {
      const key = encodeServiceKey(service.ip, service.port, service.protocol);
      wanted.add(key.toString("hex"));
      this.#put(key, service.backends.slice(0, BACKENDS_PER_SERVICE_MAX).map(encodeEndpoint));
    }
    for (const [name, written] of this.#written) {
      if (wanted.has(name)) continue;
      this.#lib.delete(this.#servicesFd, written.key);
      this.#forget(written);
      this.#written.delete(name);
    }
  }

  close(): void {
    this.#lib.close(this.#servicesFd);
    this.#lib.close(this.#backendsFd);
  }

  #put(key: Buffer, backends: readonly Buffer[]): void {
    const name = key.toString("hex");
    const before = this.#written.get(name);
    const content = Buffer.concat(backends).toString("hex");
    if (before?.content === content) return;
    this.#lastId = (this.#lastId + 1) >>> 0;
    const id = this.#lastId;
    backends.forEach((backend, slot) => this.#lib.put(this.#backendsFd, encodeBackendKey(id, slot), backend));
    this.#lib.put(this.#servicesFd, key, encodeService(id, backends.length));
    if (before !== undefined) this.#forget(before);
    this.#written.set(name, { key, id, backends: backends.length, content });
  }

  #forget(written: Written): void {
    for (let slot = 0; slot < written.backends; slot++)
      this.#lib.delete(this.#backendsFd, encodeBackendKey(written.id, slot));
  }
}

function checkFits(count: number, most: number, what: string): void {
  if (count > most)
    throw new InterceptionError("BAD_INPUT", `${count} ${what} are more than the ${most} that fit`);
}
