/** `npm run conformance:gateway`: the cases of Gateway API's suite for meshes, and of what it asks of gateways only. */
import { commandLine } from "../../../scripts/command-line.ts";
import { needCorpus } from "../corpora.ts";
import { GATEWAY_TESTS, MESH_TESTS } from "./cases.ts";
import { GatewaySuite, type Result } from "./suite.ts";

const { only } = commandLine(
  `Usage: npm run conformance:gateway -- [options]

The cases of Gateway API's suite for meshes, and of what it asks of gateways only. Needs root.

Options:
  --only TEXT   only cases with this in their name
  -h, --help    shows this`,
  { only: { type: "string", default: "" } },
);
needCorpus("gateway-api");
const suite = new GatewaySuite();
const results: Result[] = [];
try {
  await suite.up();
  for (const test of [...MESH_TESTS, ...GATEWAY_TESTS]) {
    if (!test.name.includes(only)) continue;
    const result = await suite.run(test);
    results.push(result);
    console.log(`${result.failure === "" ? "passed" : "FAILED"}  ${test.name}  (${test.feature})`);
    if (result.failure !== "") console.log(result.failure);
  }
} finally {
  await suite.close();
}
const count = (tests: readonly unknown[]): string => {
  const some = results.filter((one) => tests.includes(one.test));
  return `${some.filter((one) => one.failure === "").length} of ${some.length}`;
};
console.log(
  `gateway api: ${count(MESH_TESTS)} mesh tests pass, ${count(GATEWAY_TESTS)} of gateways' as meshes`,
);
process.exitCode = results.length > 0 && results.every((one) => one.failure === "") ? 0 : 1;
