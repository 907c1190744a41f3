/**
 * Each way in which a policy object can be bad gives its status and a message with file and line, and nothing that runs
 * changes by it: requests that are asked all the while are routed as before.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const mesh = new Mesh("bad-policy");

const SERVER =
  "import http from 'node:http'; http.createServer((q, s) => s.end(String(q.headers['x-route']) + '\\n')).listen(8080)";
/** Asks without a pause and says each answer that is another than the route's. */
const CLIENT = `
const { request, Agent } = require("node:http");
const agent = new Agent({ keepAlive: true });
let good = 0;
const ask = () => request({ host: "web", agent }, (answer) => {
  let text = "";
  answer.on("data", (bytes) => (text += bytes));
  answer.on("end", () => {
    if (answer.statusCode === 200 && text === "good\\n") good++;
    else console.log("other: " + answer.statusCode + " " + text);
    if (good % 100 === 0) console.log("good: " + good);
    setImmediate(ask);
  });
}).on("error", (error) => { console.log("other: " + error.message); setImmediate(ask); }).end();
ask();
setInterval(() => {}, 1000);
`;

function route(name: string, service: string, rule: string, kind = "HTTPRoute"): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: ${kind}
metadata: { name: ${name}, namespace: test }
spec:
  parentRefs: [{ group: "", kind: Service, name: ${service} }]
  rules:
    - ${rule}
`;
}

const good = (more = "", port = 80): string =>
  route(
    "good",
    "web",
    `{ filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-route, value: good }] } }], backendRefs: [{ name: web, port: ${port}${more} }] }`,
  );
const to = (name: string): string => `{ backendRefs: [{ name: ${name}, port: 80 }] }`;
const mirror = (name: string): string =>
  `{ filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: ${name}, port: 80 } } }], backendRefs: [{ name: web, port: 80 }] }`;
const service = (name: string): string => `apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: test }
spec: { ports: [{ name: http, port: 80 }] }
`;

let seen = "";

before(async () => {
  mesh.write("a.yaml", NAMESPACE);
  mesh.write(
    "web.yaml",
    workload({
      name: "web",
      command: ["node", "--input-type=module", "-e", SERVER],
      ports: { http: [80, 8080] },
      readyPort: 8080,
    }),
  );
  mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "1000"] }));
  mesh.write("route.yaml", good());
  mesh.write("other.yaml", `${service("a")}---\n${service("b")}`);
  await mesh.up();
  const client = mesh.spawnIn("client", "node", "-e", CLIENT);
  client.stdout?.setEncoding("utf8").on("data", (text: string) => (seen += text));
  await mesh.until("requests are routed", async () => await Promise.resolve(goodOnes() > 0));
});
after(() => mesh.close());

function goodOnes(): number {
  return Number(/good: (\d+)\n(?![^]*good: )/.exec(seen)?.[1] ?? 0);
}

/** Text of \`status\` once it says so, with requests answered as before meanwhile and after. */
async function saysAndServes(expected: RegExp): Promise<void> {
  await mesh.until(String(expected), async () => expected.test((await mesh.pillion("status")).stdout));
  const before = goodOnes();
  await mesh.until("more requests are routed", async () => await Promise.resolve(goodOnes() > before + 100));
  assert.doesNotMatch(seen, /other/);
}

/** A file that is wrong in itself. */
const REFUSED: Readonly<Record<string, readonly [text: string, expected: RegExp]>> = {
  "the schema": [
    good(", weight: many"),
    /route\.yaml:7: HTTPRoute test\/good: spec\.rules\[0\]\.backendRefs\[0\]\.weight: must be a whole number/,
  ],
  "an unknown field": [good(", wieght: 2"), /wieght: unknown field; did you mean weight\?/],
  "a weight that overflows": [good(", weight: 1000001"), /weight: must be at most 1000000/],
  "a rule of the schema": [
    good().replace("{ filters: [", "{ filters: [{ type: RequestRedirect, requestRedirect: {} }, "),
    /rules\[0\]: is refused: RequestRedirect filter must not be used together with backendRefs/,
  ],
  "a regular expression that is too large": [
    good().replace(
      "{ filters",
      '{ matches: [{ path: { type: RegularExpression, value: "/(a{900}){3}" } }], filters',
    ),
    /route\.yaml:7: .*matches\[0\]\.path\.value: the regular expression .* cannot be used: it is too large/,
  ],
  "no YAML": [`${good()}  - [`, /route\.yaml:8: is no valid YAML/],
};

for (const [what, [text, expected]] of Object.entries(REFUSED)) {
  test(`what breaks ${what} refuses its file, and its last good state counts`, async () => {
    mesh.write("route.yaml", text);
    await saysAndServes(expected);
    assert.equal((await mesh.pillion("status")).code, 1);
    const { stdout } = await mesh.pillion("get", "httproute", "good", "-o", "json");
    assert.equal((JSON.parse(stdout) as { metadata: { name: string } }).metadata.name, "good");
  });
}

/** Objects that are good in themselves. */
const TOLD: Readonly<
  Record<string, readonly [text: string, kind: string, condition: RegExp, expected: RegExp]>
> = {
  "a reference to nothing": [
    route("dangling", "a", to("gone")),
    "httproute/dangling",
    /Service test\/a +yes +no: BackendNotFound/,
    /other\.yaml:17: HTTPRoute test\/dangling: spec\.rules\[0\]\.backendRefs\[0\]\.name: Service test\/gone does not exist/,
  ],
  "a kind of route that conflicts with another": [
    route("conflict", "web", to("a"), "TCPRoute"),
    "tcproute/conflict",
    /Service test\/web +no: Conflicted/,
    /other\.yaml:15: TCPRoute test\/conflict: spec\.parentRefs\[0\]: a HTTPRoute is attached to the same port/,
  ],
  "mirrors in a circle": [
    `${route("one", "a", mirror("b"))}---\n${route("two", "b", mirror("a"))}`,
    "httproute",
    /Service test\/a +yes +no: MirrorCycle/,
    /other\.yaml:17: HTTPRoute test\/one: spec\.rules\[0\]\.filters\[0\]\.requestMirror\.backendRef: mirrors in a circle/,
  ],
};

for (const [what, [text, target, condition, expected]] of Object.entries(TOLD)) {
  test(`${what} is told by the object's condition and with its line, and the rest counts`, async () => {
    mesh.write("route.yaml", good());
    mesh.write("other.yaml", `${service("a")}---\n${service("b")}---\n${text}`);
    await saysAndServes(expected);
    assert.match((await mesh.pillion("get", target)).stdout, condition);
    assert.match((await mesh.pillion("get", target)).stdout, expected);
  });
}

test("once all is good again, so is the status", async () => {
  mesh.write("route.yaml", good());
  mesh.write("other.yaml", `${service("a")}---\n${service("b")}`);
  await mesh.until("all is well", async () => (await mesh.pillion("status")).code === 0);
  assert.match(
    (await mesh.pillion("get", "httproutes", "-n", "test")).stdout,
    /^test +good +Service test\/web +yes +yes$/m,
  );
  assert.doesNotMatch(seen, /other/);
});
