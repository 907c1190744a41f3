import dgram from "node:dgram";
import { readFileSync, watch } from "node:fs";
import net from "node:net";
import { basename, dirname } from "node:path";
import { DNS_UDP_BYTES_MAX, DnsCode, encodeDns } from "#/wire/dns.ts";
import { seenWithoutInterception } from "../explicit.ts";
import { answerQuery, failure } from "./answer.ts";
import { Forwarder, framed, hostResolvers } from "./forwarder.ts";
import { Zone, type ZoneSnapshot } from "./zone.ts";

export interface DnsOptions {
  readonly ip: string;
  readonly port: number;
  /** Written by the agent; read again whenever it is replaced. */
  readonly zoneFile: string;
  readonly resolvConf: string;
}

/** TCP connections at a time; further ones are closed. */
const CONNECTIONS_MAX = 128;
/** A connection that says nothing for so long is closed. */
const IDLE_MS = 10_000;
const MESSAGE_BYTES_MAX = 65_535;
const RELOAD_INTERVAL_MS = 1_000;

/** The pods' name server. Unprivileged, and independent of the agent's life: it serves the last zone that it read. */
export async function runDns(options: DnsOptions): Promise<void> {
  const zone = new LiveZone(options.zoneFile);
  const forwarder = new Forwarder(hostResolvers(readFileSync(options.resolvConf, "utf8"), options.ip));

  async function serve(
    query: Uint8Array,
    transport: "udp" | "tcp",
    from: string | undefined,
  ): Promise<Uint8Array | null> {
    const reply = answerQuery(zone.seenFrom(from ?? ""), query);
    if (reply.kind === "silence") return null;
    if (reply.kind === "message")
      return encodeDns(reply.message, transport === "tcp" ? MESSAGE_BYTES_MAX : reply.udpBytesMax);
    return (
      (await forwarder.ask(query, transport)) ??
      encodeDns(failure(reply.message, DnsCode.SERVFAIL), DNS_UDP_BYTES_MAX)
    );
  }

  const udp = dgram.createSocket("udp4");
  udp.on("message", (query, from) => {
    void serve(query, "udp", from.address).then((answer) => {
      if (answer !== null) udp.send(answer, from.port, from.address, () => {});
    });
  });
  const tcp = net.createServer((socket) => {
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("error", () => {});
    serveStream(socket, (query) => serve(query, "tcp", socket.remoteAddress));
  });
  tcp.maxConnections = CONNECTIONS_MAX;
  await Promise.all([
    new Promise<void>((resolve, reject) => udp.once("error", reject).bind(options.port, options.ip, resolve)),
    new Promise<void>((resolve, reject) =>
      tcp.once("error", reject).listen(options.port, options.ip, resolve),
    ),
  ]);
  // An answer that could not be sent, a connection that could not be accepted: theirs is the loss, the server stays.
  for (const server of [udp, tcp]) {
    server.on("error", (error: Error) => process.stderr.write(`name server: ${error.message}\n`));
  }
}

/** Queries of one connection, one after another (RFC 7766 allows any order; one is enough for pods). */
function serveStream(socket: net.Socket, serve: (query: Uint8Array) => Promise<Uint8Array | null>): void {
  let buffered = Buffer.alloc(0);
  let busy = false;
  const step = (): void => {
    if (busy || buffered.length < 2) return;
    const size = buffered.readUInt16BE(0);
    if (buffered.length < 2 + size) return;
    const query = Uint8Array.prototype.slice.call(buffered, 2, 2 + size);
    buffered = buffered.subarray(2 + size);
    busy = true;
    void serve(query).then((answer) => {
      busy = false;
      if (answer === null) return socket.destroy();
      socket.write(framed(answer));
      return step();
    });
  };
  socket.on("data", (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk]);
    // One query waiting while one is served; who sends more is no resolver.
    if (buffered.length > 2 * (MESSAGE_BYTES_MAX + 2)) socket.destroy();
    else step();
  });
}

const EMPTY: ZoneSnapshot = {
  clusterDomain: "cluster.local",
  podCidr: "0.0.0.0/32",
  serviceCidr: "0.0.0.0/32",
  services: [],
  pods: [],
  explicitPods: [],
};

/** The zone as the file has it. A file that is missing or broken leaves the zone as it was. */
class LiveZone {
  readonly #file: string;
  #text = "";
  #zone: Zone = new Zone(EMPTY);
  /** By address; pods with the same ports of their own share one. */
  #explicitZones: ReadonlyMap<string, Zone> = new Map();

  constructor(file: string) {
    this.#file = file;
    this.#read();
    watch(dirname(file), (_event, name) => {
      if (name === null || name === basename(file)) this.#read();
    });
    setInterval(() => this.#read(), RELOAD_INTERVAL_MS);
  }

  /** The zone as a pod of this address sees it. */
  seenFrom(ip: string): Zone {
    return this.#explicitZones.get(ip) ?? this.#zone;
  }

  #read(): void {
    try {
      const text = readFileSync(this.#file, "utf8");
      if (text === this.#text) return;
      const snapshot = JSON.parse(text) as ZoneSnapshot;
      this.#zone = new Zone(snapshot);
      const zones = new Map<string, Zone>();
      for (const [, pods] of Map.groupBy(snapshot.explicitPods, ({ ownPorts }) => ownPorts.join())) {
        const services = seenWithoutInterception(snapshot.services, pods[0]?.ownPorts ?? []);
        const zone = new Zone({ ...snapshot, services });
        for (const { ip } of pods) zones.set(ip, zone);
      }
      this.#explicitZones = zones;
      this.#text = text;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      process.stderr.write(
        `zone file ${this.#file} is not usable: ${error instanceof Error ? error.message : String(error)}\n`,
      );
    }
  }
}
