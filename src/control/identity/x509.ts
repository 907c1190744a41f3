/** The one door to the X.509 library: it needs this polyfill to be loaded before it. */
import "reflect-metadata";

export * from "@peculiar/x509";
