import type { Interceptor, Support } from "../interception.ts";

export declare function createEbpfInterceptor(instance: string): Interceptor;
export declare function ebpfSupport(): Support;
export declare function sweepPins(instance: string): string[];
