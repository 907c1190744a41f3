import { randomInt } from "node:crypto";
import dgram from "node:dgram";
import net from "node:net";

/** Queries under way at a time; further ones fail at once (SERVFAIL), so that a flood cannot use up descriptors. */
const FORWARDS_MAX = 256;
const ATTEMPT_MS = 2_000;
const ATTEMPTS = 2;
const ANSWER_BYTES_MAX = 65_535;

/** Passes queries for foreign names to the machine's resolvers, by the transport on which they came. */
export class Forwarder {
  readonly #resolvers: readonly string[];
  #underWay = 0;

  constructor(resolvers: readonly string[]) {
    this.#resolvers = resolvers.slice(0, 3);
  }

  /** The answer with the query's own id, or null when nobody gave one. */
  async ask(query: Uint8Array, transport: "udp" | "tcp"): Promise<Uint8Array | null> {
    if (this.#resolvers.length === 0 || this.#underWay >= FORWARDS_MAX) return null;
    this.#underWay++;
    try {
      for (let attempt = 0; attempt < ATTEMPTS * this.#resolvers.length; attempt++) {
        const resolver = this.#resolvers[attempt % this.#resolvers.length] as string;
        // An id and a source port of our own: an answer cannot be guessed by whoever saw the pod's query.
        const id = randomInt(65_536);
        const ours = Buffer.from(query);
        ours.writeUInt16BE(id, 0);
        const answer = await (transport === "udp" ? askUdp(resolver, ours, id) : askTcp(resolver, ours, id));
        if (answer === null) continue;
        answer.writeUInt16BE(Buffer.from(query).readUInt16BE(0), 0);
        return answer;
      }
      return null;
    } finally {
      this.#underWay--;
    }
  }
}

/** `nameserver` lines of resolv.conf(5), without ourselves. */
export function hostResolvers(resolvConf: string, ourselves: string): string[] {
  return resolvConf
    .split("\n")
    .map((line) => /^\s*nameserver\s+([0-9a-fA-F.:]+)/.exec(line)?.[1])
    .filter((ip): ip is string => ip !== undefined && ip !== ourselves);
}

function askUdp(resolver: string, query: Buffer, id: number): Promise<Buffer | null> {
  return new Promise((resolve) => {
    const socket = dgram.createSocket(resolver.includes(":") ? "udp6" : "udp4");
    let over = false;
    const finish = (answer: Buffer | null): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => finish(null), ATTEMPT_MS);
    socket.on("error", () => finish(null));
    socket.on("message", (message) => {
      if (message.length >= 12 && message.readUInt16BE(0) === id) finish(message);
    });
    // Connected: answers of others do not arrive, refusals do.
    socket.on("connect", () => socket.send(query, (error) => error !== null && finish(null)));
    socket.connect(53, resolver);
  });
}

function askTcp(resolver: string, query: Buffer, id: number): Promise<Buffer | null> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: resolver, port: 53 });
    let buffered = Buffer.alloc(0);
    const finish = (answer: Buffer | null): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => finish(null), ATTEMPT_MS);
    socket.on("error", () => finish(null));
    socket.on("close", () => finish(null));
    socket.on("connect", () => socket.write(framed(query)));
    socket.on("data", (chunk: Buffer) => {
      buffered = Buffer.concat([buffered, chunk]);
      if (buffered.length > ANSWER_BYTES_MAX + 2) return finish(null);
      if (buffered.length < 2 || buffered.length < 2 + buffered.readUInt16BE(0)) return;
      const message = Buffer.from(buffered.subarray(2, 2 + buffered.readUInt16BE(0)));
      finish(message.length >= 12 && message.readUInt16BE(0) === id ? message : null);
    });
  });
}

/** RFC 1035 §4.2.2: two bytes of length before a message on TCP. */
export function framed(message: Uint8Array): Buffer {
  const out = Buffer.alloc(2 + message.length);
  out.writeUInt16BE(message.length, 0);
  out.set(message, 2);
  return out;
}
