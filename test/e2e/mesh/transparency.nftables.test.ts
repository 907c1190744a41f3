import { transparency } from "./transparency.ts";

transparency("nftables");
