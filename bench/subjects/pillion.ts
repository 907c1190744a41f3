import type { StartSubject } from "./subject.ts";

export const startPillion: StartSubject = () => Promise.resolve({ skipped: "not yet" });
