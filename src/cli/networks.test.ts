import assert from "node:assert/strict";
import { test } from "node:test";
import { network, overlap, routedNetworks, takenEverywhere } from "./networks.ts";

test("a network that cannot be used is refused on the command line", () => {
  assert.equal(network("10.201.0.0/16"), "10.201.0.0/16");
  for (const wrong of ["10.201.0.0", "10.201.0.0/40", "10.201.0.0/4", "10.300.0.0/16", "fd00::/64", ""])
    assert.throws(() => network(wrong), /IPv4 network|at most 255/, wrong);
});

test("networks overlap when one holds an address of the other", () => {
  assert.equal(overlap("10.201.0.0/16", "10.202.0.0/16"), false);
  assert.equal(overlap("10.201.0.0/16", "10.201.5.0/24"), true);
  assert.equal(overlap("10.0.0.0/8", "10.201.0.0/16"), true);
});

test("the machine's networks are read without its default route and single hosts", () => {
  const route = [
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
    "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0",
    "pln-1\t0000C90A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",
    "eth0\t050011AC\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0",
    "",
  ].join("\n");
  assert.deepEqual(routedNetworks(route), [{ cidr: "10.201.0.0/16", device: "pln-1" }]);
});

test("a port counts as taken when somebody listens on every address", () => {
  const tcp = [
    "  sl  local_address rem_address   st tx_queue",
    "   0: 00000000:0035 00000000:0000 0A 00000000:00000000", // everywhere
    "   1: 3500007F:1F96 00000000:0000 0A 00000000:00000000", // on 127.0.0.53 only
    "   2: 00000000:1F97 00000000:0000 01 00000000:00000000", // not listening
    "",
  ].join("\n");
  assert.deepEqual([...takenEverywhere(tcp)], [53]);
});
