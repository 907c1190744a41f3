import { realPrograms } from "./real-programs.ts";

/** What needs interception, and is not had without it, whatever the program (docs/transparency.md). */
const NEEDS_INTERCEPTION = [
  "getpeername and getsockname: a program sees its Service as an address of 127.0.0.0/8",
  "addresses: connections to a pod's own address, of a headless Service, or outside the mesh go past the sidecar, in plaintext",
  "ports: a program reaches no Service on a port that its own pod listens on, itself included",
  "inbound: who dials a pod's address finds the program itself; only what comes to the sidecar's port is proven and authorized",
  "fail closed: that path stays open while the sidecar is away",
  "Services: a change of their set starts the sidecars anew",
];

console.log(`not had under explicit:\n${NEEDS_INTERCEPTION.map((line) => `  - ${line}`).join("\n")}`);
realPrograms("explicit");
