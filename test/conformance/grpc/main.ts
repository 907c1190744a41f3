/** `npm run conformance:grpc`: every case of gRPC's interoperability test, direct and meshed; the figure comes last. */
import { commandLine } from "../../../scripts/command-line.ts";
import { FAILS_DIRECT, runInterop } from "./interop.ts";

commandLine(
  `Usage: npm run conformance:grpc

Every case of gRPC's interoperability test, direct and meshed; the figure comes last. Needs root.`,
  {},
);
const { comparisons, counted, refused } = await runInterop();
for (const { name, direct, meshed } of comparisons) {
  if (direct !== "") console.log(`fails without a proxy  ${name}: ${FAILS_DIRECT[name] ?? direct}`);
  else console.log(`${meshed === "" ? "passed" : "FAILED"}  ${name}  ${meshed}`.trimEnd());
}
console.log(`the sidecars counted ${counted.outbound} calls outbound, ${counted.inbound} inbound`);
console.log(`a client that policy refuses: ${refused}`);
const direct = comparisons.filter((one) => one.direct === "");
const meshed = direct.filter((one) => one.meshed === "");
const expected = comparisons.length - Object.keys(FAILS_DIRECT).length;
const isGood = direct.length >= expected && meshed.length === direct.length && refused !== "";
console.log(
  `grpc interop: ${meshed.length} of the ${direct.length} cases that pass without a proxy pass through two sidecars (${comparisons.length} tried)`,
);
process.exitCode = isGood ? 0 : 1;
