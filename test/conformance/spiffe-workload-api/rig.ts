import { spawn, type ChildProcess } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { X509Certificate } from "node:crypto";
import { Authority } from "#/control/identity/authority.ts";
import type { Caller } from "#/control/identity/certify.ts";
import { JwtAuthority } from "#/control/identity/jwt-authority.ts";
import { Tokens } from "#/control/identity/tokens.ts";
import { identityMethods } from "#/control/rpc/identity.ts";
import type { MethodHandler } from "#/control/rpc/server.ts";
import { RpcError } from "#/control/rpc/status.ts";
import { svidMethods } from "#/control/rpc/svid.ts";
import { StateFolder } from "#/control/state-folder.ts";
import { peerCredentials } from "#/kernel/libc.ts";
import type { Identity } from "#/model/identity.ts";
import { SystemClock } from "#/net/clock.ts";
import { SILENT } from "#/net/log.ts";
import { listenUnix } from "#/net/unix.ts";
import type { Channel } from "#/proxy/control/channel.ts";
import { JwtClient } from "#/proxy/workload-api/jwt-client.ts";
import { SvidKeeper } from "#/proxy/workload-api/svid-keeper.ts";
import { unaryCall } from "#/proxy/workload-api/unary-call.ts";
import { WorkloadApi } from "#/proxy/workload-api/workload-api.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";

/** A Workload API as a sidecar serves it, on a socket of its own, with a control plane's authorities behind it in the same process. */
export interface WorkloadRig {
  readonly socket: string;
  readonly keeper: SvidKeeper;
  readonly jwt: JwtAuthority;
  readonly registry: Registry;
  readonly api: WorkloadApi;
  /** What the control plane answers from now on: as it is, or a refusal of every call. */
  control: RpcError | null;
  /** The identity whose pods are gone. */
  isInUse: boolean;
  /** Other roots, for all streams. */
  setBundles(bundles: ReadonlyMap<string, readonly Uint8Array[]>): void;
  readonly bundles: ReadonlyMap<string, readonly Uint8Array[]>;
  close(): void;
}

export async function workloadRig(
  identity: Identity,
  options: { readonly uids?: readonly number[] } = {},
): Promise<WorkloadRig> {
  const dir = mkdtempSync(join(tmpdir(), "pln-workload-api-"));
  chmodSync(dir, 0o755);
  const clock = new SystemClock();
  const log = SILENT;
  const state = new StateFolder(join(dir, "state"));
  const authority = await Authority.open(state, identity.trustDomain, () => clock.wallMs());
  const jwt = await JwtAuthority.open(state, identity.trustDomain, clock, log);
  const registry = new Registry();
  const caller: Caller = { identity, form: "dns+spiffe" };
  const inUse = (): boolean => rig.isInUse;
  const channel = inProcess(
    new Map([
      ...identityMethods(authority, new Tokens(() => clock.nowMs()), inUse, log),
      ...svidMethods(jwt, inUse, log),
    ]),
    caller,
    () => rig.control,
  );
  const random = { next: Math.random };
  const keeper = new SvidKeeper({
    clock,
    random,
    log,
    registry,
    identity,
    anchorsPem: () => authority.trustAnchorsPem,
    certify: (request) =>
      unaryCall(clock, channel, "/io.linkerd.proxy.identity.Identity/Certify", request, 20_000),
    leafChanged: () => undefined,
  });
  let bundles: ReadonlyMap<string, readonly Uint8Array[]> = new Map([
    [identity.trustDomain, [new X509Certificate(authority.trustAnchorsPem).raw]],
  ]);
  const watchers = new Set<() => void>();
  const api = new WorkloadApi({
    clock,
    log,
    registry,
    identity,
    answerer: { side: "client", workload: `test.${identity.namespace}` },
    uids: new Set(options.uids ?? [process.getuid?.() ?? 0]),
    keeper,
    jwt: new JwtClient({ clock, random, log, registry, channel }),
    bundles: {
      now: () => bundles,
      watch: (changed) => {
        watchers.add(changed);
        return { cancel: () => watchers.delete(changed) };
      },
    },
  });
  const path = join(dir, "agent.sock");
  const listener = await listenUnix(
    clock,
    path,
    { connectionsMax: 256, mode: 0o666, peer: peerCredentials },
    api.accept,
  );
  const rig: WorkloadRig = {
    socket: `unix://${path}`,
    keeper,
    jwt,
    registry,
    api,
    control: null,
    isInUse: true,
    get bundles() {
      return bundles;
    },
    setBundles: (next) => {
      bundles = next;
      for (const changed of watchers) changed();
    },
    close: () => {
      listener.close();
      keeper.close();
      jwt.close();
      rmSync(dir, { recursive: true });
    },
  };
  return rig;
}

/** The control plane's methods as a sidecar's channel to them. */
function inProcess(
  methods: ReadonlyMap<string, MethodHandler>,
  caller: Caller,
  refusal: () => RpcError | null,
): Pick<Channel, "call" | "close"> {
  const context = { caller, isTrusted: false, peer: "test" };
  return {
    close: () => undefined,
    call: (path, request, handler) => {
      let isOver = false;
      let stop: () => void = () => undefined;
      const end = (status: number, message: string): void => {
        if (isOver) return;
        isOver = true;
        handler.ended(status, message);
      };
      const fail = (error: unknown): void =>
        error instanceof RpcError
          ? end(error.status, error.message)
          : end(GrpcStatus.INTERNAL, String(error));
      const begin = async (): Promise<void> => {
        const refused = refusal();
        if (refused !== null) throw refused;
        const method = methods.get(path);
        if (method?.unary !== undefined) {
          const answer = await method.unary(request, context);
          if (!isOver) handler.message(answer);
          end(GrpcStatus.OK, "");
        } else if (method?.watch !== undefined)
          stop = method.watch(request, { send: (bytes) => !isOver && handler.message(bytes), fail }, context);
        else end(GrpcStatus.UNIMPLEMENTED, path);
      };
      setImmediate(() => void begin().catch(fail));
      return {
        cancel: () => {
          isOver = true;
          stop();
        },
      };
    },
  };
}

export interface Program {
  /** The next line of JSON; rejects when there is none. */
  next(): Promise<Record<string, unknown>>;
  /** What it printed to the end, and how it ended. */
  readonly ended: Promise<{
    readonly code: number;
    readonly lines: Record<string, unknown>[];
    readonly stderr: string;
  }>;
  readonly process: ChildProcess;
}

/** Starts the program that has go-spiffe in it. */
export function goSpiffe(program: string, socket: string, args: readonly string[], uid?: number): Program {
  const child = spawn(program, args, {
    env: { ...process.env, SPIFFE_ENDPOINT_SOCKET: socket },
    stdio: ["ignore", "pipe", "pipe"],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  const lines: Record<string, unknown>[] = [];
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const reader = createInterface({ input: child.stdout });
  const iterator = reader[Symbol.asyncIterator]();
  const ended = new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? 128));
  });
  const next = async (): Promise<Record<string, unknown>> => {
    const { value, done } = await iterator.next();
    if (done === true) throw new Error(`${args.join(" ")} said nothing more: ${stderr}`);
    const line = JSON.parse(value) as Record<string, unknown>;
    lines.push(line);
    return line;
  };
  return {
    next,
    process: child,
    get ended() {
      return (async () => {
        try {
          for (;;) await next();
        } catch {
          return { code: await ended, lines, stderr };
        }
      })();
    },
  };
}
