import { realPrograms } from "./real-programs.ts";

realPrograms("nftables");
