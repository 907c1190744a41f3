import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ALWAYS, CASES, type Case } from "./rig/http1-cases.ts";
import { heardByServer, playClient, playServer, type Heard } from "./rig/http1-script.ts";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.2";

interface Played {
  readonly client: Heard;
  readonly server: readonly Heard[];
}

/** Takes out what the mesh changes in every conversation (`ALWAYS`). */
function normal(text: string): string {
  const message = /^((?:[A-Z]+ \S+ HTTP|HTTP)[^]*?\r\n\r\n)([^]*)$/.exec(text);
  if (message === null) return text;
  const [, head = "", rest = ""] = message;
  const isUpgrade = /^upgrade: (?!h2c|TLS)/im.test(head);
  const lines = head
    .split("\r\n")
    .map((line) => line.replace(/^([^ :]+):[ \t]*(.*?)[ \t]*$/, "$1: $2"))
    .filter((line) => !/^(keep-alive|proxy-connection|l5d-client-id):/i.test(line))
    .filter((line) => isUpgrade || !/^connection:/i.test(line));
  const shown = lines.join("\r\n");
  if (/^transfer-encoding:/im.test(head) && rest !== "" && !rest.startsWith("HTTP/"))
    return shown + joined(rest);
  const length = Number(/^content-length: (\d+)\r$/im.exec(head)?.[1] ?? 0);
  // HEAD and 304 name a length and have no body: then a head follows at once.
  const bodyBytes = rest.startsWith("HTTP/") ? 0 : length;
  return shown + rest.slice(0, bodyBytes) + normal(rest.slice(bodyBytes));
}

/** A body in chunks as one chunk without extensions. */
function joined(text: string): string {
  let body = "";
  for (let rest = text; ;) {
    const [line = "", size = ""] = /^([0-9a-f]+)[^\r]*\r\n/i.exec(rest) ?? [];
    if (line === "") return `${body}[cut]`;
    const bytes = Number.parseInt(size, 16);
    if (bytes === 0) {
      const [, trailers = "", next = ""] =
        /^((?:[^\r\n]+\r\n)*\r\n)?([^]*)$/.exec(rest.slice(line.length)) ?? [];
      return `${body}[end]${trailers}${normal(next)}`;
    }
    body += rest.slice(line.length, line.length + bytes);
    rest = rest.slice(line.length + bytes + 2);
  }
}

describe("HTTP/1 through two sidecars is what it is without them", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let web: Pod;
  let outside: Pod;
  before(async () => {
    mesh = await Mesh.start();
    web = await mesh.pod("web", { isMeshed: true, inboundPorts: [8080] });
    client = await mesh.pod("client", { isMeshed: true });
    outside = await mesh.pod("outside", { isMeshed: false });
    await mesh.set({
      services: { [`${VIP}:80`]: { protocol: "detect", path: "web:80" } },
      endpoints: { "web:80": [web.endpoint(8080)] },
    });
  });
  after(() => mesh.close());

  async function play(from: Pod, to: Pod, host: string, port: number, each: Case): Promise<Played> {
    await to.run(playServer, each.server as never);
    const heard = await from.run(playClient, host, port, each.client as never);
    return { client: heard, server: await to.run(heardByServer) };
  }

  for (const each of CASES) {
    test(each.name, async () => {
      const direct = await play(outside, outside, "127.0.0.1", 8080, each);
      const meshed = await play(client, web, VIP, 80, each);
      assert.equal(direct.client.missed, "", "the case works without a mesh");
      let toClient = normal(direct.client.text);
      let toServer = normal(direct.server.map(({ text }) => text).join(""));
      for (const [who, from, to] of each.changes ?? []) {
        assert.ok((who === "server" ? toServer : toClient).includes(from), `${from} comes without a mesh`);
        if (who === "server") toServer = toServer.replace(from, to);
        else toClient = toClient.replace(from, to);
      }
      assert.equal(normal(meshed.server.map(({ text }) => text).join("")), toServer, "what the server hears");
      assert.equal(normal(meshed.client.text), toClient, "what the client hears");
      assert.equal(meshed.client.missed, "");
      const missed = meshed.server.map((one) => one.missed).filter((one) => one !== "");
      if (each.isSpent !== true) assert.deepEqual(missed, []);
      if (each.endMatters === true)
        assert.equal(meshed.client.end, direct.client.end, "how it ends for the client");
      if (each.serverEndMatters === true)
        assert.equal(meshed.server[0]?.end, direct.server[0]?.end, "how it ends for the server");
    });
  }

  test("and all of it went between the sidecars as it should", async (context) => {
    assert.ok(
      (await web.metric(/^inbound_tcp_transport_header_connections_total.*session_protocol="http\/2"/)) > 0,
    );
    for (const line of ALWAYS) context.diagnostic(`always: ${line}`);
    for (const { name, changes } of CASES)
      for (const [who, , , why] of changes ?? []) context.diagnostic(`${name} (${who}): ${why}`);
  });
});
