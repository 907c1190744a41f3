import { transparency } from "./transparency.ts";

const MPTCP = "without a sidecar, getpeername gives the chosen endpoint; with one, the virtual IP";

transparency("ebpf", {
  differs: {
    "MPTCP to a meshed Service": MPTCP,
    "MPTCP to an unmeshed Service": MPTCP,
    "MPTCP to its own Service": MPTCP,
  },
});
