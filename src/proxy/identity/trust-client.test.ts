import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { SILENT } from "#/net/log.ts";
import type { TrustAnchors } from "#/net/tls.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { CallHandler } from "../control/channel.ts";
import { RENEW_SPREAD_MS, TrustClient } from "./trust-client.ts";

const dir = mkdtempSync(join(tmpdir(), "pillion-trust-"));
after(() => rmSync(dir, { recursive: true }));

const [OLD, NEW] = ["old", "new"].map(selfSigned) as [string, string];

function selfSigned(name: string): string {
  const file = join(dir, name);
  const options = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -keyout ${file}.key -out ${file}.crt -subj`;
  execFileSync("openssl", [...options.split(" "), `/CN=${name}`], { stdio: "pipe" });
  return new X509Certificate(readFileSync(`${file}.crt`)).toString();
}

interface Called {
  readonly path: string;
  readonly request: Uint8Array;
  readonly handler: CallHandler;
}

class World {
  readonly clock: ManualClock = new ManualClock();
  readonly calls: Called[] = [];
  readonly applied: TrustAnchors[] = [];
  readonly renewals: number[] = [];
  leafIssuer = "aa";
  readonly client: TrustClient = new TrustClient({
    clock: this.clock,
    random: { next: () => 0.5 },
    log: SILENT,
    registry: new Registry(),
    channel: {
      call: (path, request, handler) => {
        this.calls.push({ path, request, handler });
        return { cancel: () => undefined };
      },
    },
    workload: "shop:web",
    trustDomain: "here",
    anchorsPem: `\n${OLD.trim()}\n\n`,
    apply: (anchors) => void this.applied.push(anchors),
    leafIssuer: () => this.leafIssuer,
    renewWithin: (ms) => void this.renewals.push(ms),
  });

  of(method: string): Called[] {
    return this.calls.filter(({ path }) => path.endsWith(`/${method}`));
  }

  tell(sequence: number, bundles: Record<string, string[]>, issuer = "aa"): void {
    const message = new ProtoWriter().uint(1, sequence);
    for (const [domain, roots] of Object.entries(bundles)) {
      const bundle = new ProtoWriter().text(1, domain);
      for (const root of roots) bundle.bytes(2, new X509Certificate(root).raw);
      message.message(2, bundle);
    }
    this.send(message.bytes(3, Buffer.from(issuer, "hex")).finish());
  }

  send(bytes: Uint8Array): void {
    this.of("Watch").at(-1)!.handler.message(bytes);
  }

  get confirmed(): { sequence: number; issuer: string }[] {
    return this.of("Confirm").map(({ request }) => {
      const reader = new ProtoReader(request);
      let sequence = 0;
      let issuer = "";
      while (reader.next()) {
        if (reader.field === 2) sequence = reader.int();
        else if (reader.field === 3) issuer = Buffer.from(reader.bytes()).toString("hex");
      }
      return { sequence, issuer };
    });
  }

  answer(status: number): void {
    this.of("Confirm").at(-1)!.handler.ended(status, "");
    this.clock.settle();
  }
}

test("roots that we have are confirmed and change nothing; new ones are in force before they are confirmed", () => {
  const world = new World();
  world.client.start();
  world.tell(3, { here: [OLD] });
  assert.deepEqual(world.applied, []);
  assert.deepEqual(world.confirmed, [{ sequence: 3, issuer: "aa" }]);
  world.answer(GrpcStatus.OK);
  world.tell(4, { here: [OLD, NEW] });
  assert.deepEqual(
    world.applied.map((anchors) => [...anchors]),
    [[["here", OLD + NEW]]],
  );
  assert.equal(world.client.anchorsPem, OLD + NEW);
  assert.deepEqual(world.confirmed.at(-1), { sequence: 4, issuer: "aa" });
  assert.deepEqual(world.renewals, []);
});

test("another issuer has us renew within the spread, and the new leaf is confirmed", () => {
  const world = new World();
  world.client.start();
  world.tell(3, { here: [OLD] }, "bb");
  assert.deepEqual(world.renewals, [RENEW_SPREAD_MS / 2]);
  world.answer(GrpcStatus.OK);
  world.leafIssuer = "bb";
  world.client.leafChanged();
  assert.deepEqual(world.confirmed.at(-1), { sequence: 3, issuer: "bb" });
});

test("what changes while a confirmation is under way is confirmed after it, and one that fails is sent again", () => {
  const world = new World();
  world.client.start();
  world.tell(3, { here: [OLD] });
  world.tell(4, { here: [OLD, NEW] });
  assert.equal(world.confirmed.length, 1);
  world.answer(GrpcStatus.UNAVAILABLE);
  world.clock.advance(1_000);
  assert.deepEqual(world.confirmed.at(-1), { sequence: 4, issuer: "aa" });
  world.answer(GrpcStatus.OK);
  world.clock.advance(60_000);
  assert.equal(world.confirmed.length, 2);
});

test("roots of other trust domains are kept apart from ours", () => {
  const world = new World();
  world.client.start();
  world.tell(3, { here: [OLD], there: [NEW] });
  assert.deepEqual([...world.applied[0]!.keys()], ["here", "there"]);
  assert.equal(world.client.anchorsPem, OLD);
});

test("what is damaged, no authority, or nothing for our own domain changes nothing and is not confirmed", () => {
  const world = new World();
  world.client.start();
  world.send(Uint8Array.of(0x12, 0x7f, 0x01));
  world.tell(3, { there: [NEW] });
  world.tell(3, { here: [] });
  world.send(
    new ProtoWriter()
      .uint(1, 3)
      .message(2, new ProtoWriter().text(1, "here").bytes(2, Buffer.from("no certificate")))
      .finish(),
  );
  assert.deepEqual(world.applied, []);
  assert.deepEqual(world.confirmed, []);
});

test("a control plane that does not know the service is not asked again", () => {
  const world = new World();
  world.client.start();
  world.of("Watch")[0]!.handler.ended(GrpcStatus.UNIMPLEMENTED, "");
  world.clock.advance(3_600_000);
  assert.equal(world.of("Watch").length, 1);
});
