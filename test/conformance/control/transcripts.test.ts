import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Mesh } from "../../../src/control/mesh/mesh.ts";
import { destinationMethods } from "../../../src/control/rpc/destination.ts";
import { LiveView } from "../../../src/control/rpc/live-view.ts";
import { policyMethods } from "../../../src/control/rpc/policy.ts";
import type { MethodHandler } from "../../../src/control/rpc/server.ts";
import { RpcError } from "../../../src/control/rpc/status.ts";
import { StateFolder } from "../../../src/control/state-folder.ts";
import type { PodPlan, PodStatus } from "../../../src/model/pod-plan.ts";
import { SILENT } from "../../../src/net/log.ts";
import { GrpcStatus } from "../../../src/wire/grpc.ts";
import { ManualClock } from "../../../src/stack/http/testing.ts";
import { NODE, statusOf } from "../../e2e/control/rig.ts";
import { encodeNotation } from "./notation.ts";

const IPS: Readonly<Record<string, string>> = {
  "web-a": "10.201.0.10",
  "web-b": "10.201.0.11",
  "db-0": "10.201.0.20",
};

/** The mesh of shop.yaml, and the RPCs over it. */
class Shop implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), "pillion-transcript-"));
  readonly #clock = new ManualClock();
  readonly #live = new LiveView();
  readonly #mesh: Mesh;
  readonly methods: ReadonlyMap<string, MethodHandler>;
  #plans: readonly PodPlan[] = [];
  readonly #statuses = new Map<string, PodStatus>();
  #yaml = readFileSync(join(import.meta.dirname, "shop.yaml"), "utf8");

  constructor() {
    let uid = 0;
    this.#mesh = new Mesh(
      {
        clock: this.#clock,
        log: SILENT,
        state: new StateFolder(this.#dir),
        trustAnchorsPem: () => "",
        version: "1",
        newUid: () => `uid-${uid++}`,
        seed: "test",
      },
      {
        view: (view) => this.#live.publish(view),
        plan: (pods) => {
          this.#plans = pods;
        },
      },
    );
    this.methods = new Map([...destinationMethods(this.#live), ...policyMethods(this.#live)]);
    this.#mesh.takeNode({ ...NODE, gatewayIp: "10.201.0.1" });
    this.#mesh.takePods([]);
    this.#load();
    for (const plan of this.#plans) this.#statuses.set(plan.name, statusOf(plan, IPS[plan.name]!, true));
    this.#report();
  }

  /** `ready web-b`, `unready web-a`, `remove Service/redis`. */
  event(text: string): void {
    const [verb, what] = text.split(" ") as [string, string];
    const status = this.#statuses.get(what);
    if (verb === "remove") {
      const [kind, name] = what.split("/");
      this.#yaml = this.#yaml
        .split("---\n")
        .filter((one) => !(one.includes(`kind: ${kind}\n`) && new RegExp(`name: ${name}\\b`).test(one)))
        .join("---\n");
      this.#load();
    } else if (status !== undefined && (verb === "ready" || verb === "unready")) {
      this.#statuses.set(what, { ...status, ready: verb === "ready" });
      this.#report();
    } else throw new Error(`unknown event ${text}`);
  }

  #load(): void {
    this.#mesh.takeFolder([{ path: "shop.yaml", text: this.#yaml }], []);
    this.#settle();
    assert.deepEqual(this.#mesh.problems, []);
  }

  #report(): void {
    this.#mesh.takePods([...this.#statuses.values()]);
    this.#settle();
  }

  #settle(): void {
    this.#clock.advance(100);
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true });
  }
}

for (const file of readdirSync(import.meta.dirname).filter((name) => name.endsWith(".md"))) {
  const text = readFileSync(join(import.meta.dirname, file), "utf8");
  for (const section of text.split(/^## /m).slice(1)) {
    const title = section.slice(0, section.indexOf("\n"));
    const code = [...section.matchAll(/^ {4}(.*)$/gm)].map((match) => match[1]!).join("\n");
    test(`${file}: ${title}`, () => play(code));
  }
}

/** `> METHOD` asks with the message below it, `<` expects a message, `! STATUS` an end, `~ EVENT` makes something happen. */
function play(code: string): void {
  using shop = new Shop();
  const got: string[] = [];
  const stops: (() => void)[] = [];
  for (const step of code.split(/^(?=[<>!~])/m).filter((part) => part.trim() !== "")) {
    const head = step.slice(0, step.indexOf("\n") === -1 ? undefined : step.indexOf("\n")).trim();
    const body = step.slice(head.length);
    if (head.startsWith(">")) stops.push(...ask(shop, head.slice(1).trim(), encodeNotation(body), got));
    else if (head.startsWith("~")) shop.event(head.slice(1).trim());
    else if (head.startsWith("!")) assert.equal(got.shift(), head.slice(1).trim());
    else assert.equal(got.shift(), Buffer.from(encodeNotation(step.slice(1))).toString("hex"), step);
  }
  assert.deepEqual(got, [], "messages that nobody expected");
  for (const stop of stops) stop();
}

function ask(shop: Shop, method: string, request: Uint8Array, got: string[]): (() => void)[] {
  const handler = shop.methods.get(`/io.linkerd.proxy.${method}`);
  assert.ok(handler?.watch, method);
  const fail = (error: unknown): void => {
    assert.ok(error instanceof RpcError, String(error));
    got.push(Object.entries(GrpcStatus).find(([, value]) => value === error.status)![0]);
  };
  try {
    return [
      handler.watch(
        request,
        { send: (message) => void got.push(Buffer.from(message).toString("hex")), fail },
        { caller: null, isTrusted: true, peer: "test" },
      ),
    ];
  } catch (error) {
    fail(error);
    return [];
  }
}
