import type { Interceptor, Support } from "../interception.ts";

export declare function createNftInterceptor(instance: string): Interceptor;
export declare function nftSupport(): Support;
