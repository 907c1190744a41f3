import { constants } from "node:crypto";
import type { SecureContextOptions } from "node:tls";

/** What mutual TLS inside the mesh is made of, the same for sidecars and for the control plane. */
export const MESH_TLS: SecureContextOptions = {
  minVersion: "TLSv1.3",
  maxVersion: "TLSv1.3",
  // No stateless tickets: a session is never resumed, by design. OpenSSL gives out stateful ones all the same, which nobody takes back.
  secureOptions: constants.SSL_OP_NO_TICKET,
  ecdhCurve: "X25519MLKEM768:X25519:P-256",
  // Servers choose by this order, which is linkerd2-proxy's: AES with 128 bits has four rounds fewer for each block than with 256, and is
  // as strong as the curves and the certificates' P-256. ChaCha20 is for machines without instructions for AES.
  ciphers: "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
};
