import { transparency } from "./transparency.ts";

const NO_VIRTUAL_IP =
  "its name leads to 127/8, where the sidecar listens; pods without a sidecar have no virtual IPs";

transparency("explicit", {
  differs: { "DNS over UDP": "a Service's name leads to an address of the pod's own loopback network" },
  meshedOnly: {
    "a meshed Service": NO_VIRTUAL_IP,
    "an unmeshed Service": NO_VIRTUAL_IP,
    "its own Service": NO_VIRTUAL_IP,
  },
  leftOut: {
    "UDP to a Service": "virtual IPs for UDP need interception",
    "mutual TLS for a connection to an address":
      "it goes past both sidecars; only Services' names lead to one",
    "a program listening on 0.0.0.0 at a port that is also some Service's":
      "EADDRINUSE: the sidecar listens there for its pod",
  },
});
