import assert from "node:assert/strict";
import { test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { parseSamples } from "../stat/prometheus.ts";
import type { PodPage } from "../stat/traffic.ts";
import { edgesTable } from "./edges.ts";
import { edgesOf } from "./pairs.ts";

const name = (account: string): string => `${account}.shop.serviceaccount.identity.pillion.cluster.local`;

function page(workload: string, ip: string, lines: readonly string[]): PodPage {
  const pod: PodStatus = {
    uid: workload + ip,
    name: `${workload}-1`,
    namespace: "shop",
    templateHash: "",
    owner: `Deployment/shop/${workload}`,
    ip,
    phase: "Running",
    ready: true,
    terminating: false,
    message: "",
    startedAtMs: 0,
    intercept: "ebpf",
    containers: [],
    sidecar: null,
  };
  const info = `pillion_identity_info{identity="${name(workload)}"} 1`;
  return { pod, samples: parseSamples([info, ...lines].join("\n")), kernel: [] };
}

const toCart = 'direction="outbound",peer="dst",target_addr="10.0.0.2:80"';
const proven = `tls="true",server_id="${name("cart")}",tls_cipher="TLS_AES_128_GCM_SHA256"`;

test("joins both sides: proven pairs once, with cipher and group, whoever is unmeshed, and what is outside", () => {
  const pages = [
    page("web", "10.0.0.1", [
      `tcp_open_total{${toCart},${proven},tls_group="X25519MLKEM768"} 2`,
      `tcp_open_total{${toCart},${proven},tls_group="X25519"} 1`,
      `tcp_open_connections{${toCart},${proven},tls_group="X25519"} 1`,
      `request_total{direction="outbound",authority="cart:80",target_addr="10.0.0.2:80",tls="true",server_id="${name("cart")}"} 40`,
      'tcp_open_total{direction="outbound",peer="dst",target_addr="192.0.2.7:443",tls="no_identity",no_tls_reason="not_provided_by_service_discovery"} 1',
      'tcp_open_total{direction="outbound",peer="dst",target_addr="10.0.0.1:80",tls="no_identity",no_tls_reason="loopback"} 9',
    ]),
    page("cart", "10.0.0.2", [
      `tcp_open_total{direction="inbound",peer="src",target_addr="10.0.0.2:80",tls="true",client_id="${name("web")}",tls_cipher="x"} 3`,
      `tcp_open_total{direction="inbound",peer="src",target_addr="10.0.0.2:80",tls="true",client_id="${name("gone")}",tls_cipher="TLS_AES_256_GCM_SHA384"} 5`,
      'tcp_open_total{direction="inbound",peer="src",target_addr="10.0.0.2:80",tls="no_identity",no_tls_reason="no_tls_from_remote"} 4',
      'tcp_open_total{direction="inbound",peer="dst",target_addr="10.0.0.2:80",tls="no_identity",no_tls_reason="loopback"} 7',
      'request_total{direction="inbound",target_addr="10.0.0.2:80",tls="no_identity",no_tls_reason="no_tls_from_remote"} 6',
    ]),
  ];
  const found = edgesOf(pages);
  const cart = { server: "shop/cart", isMutualTls: true, whyNot: "", serverIdentity: name("cart") };
  const plain = { isMutualTls: false, clientIdentity: "", serverIdentity: "", ciphers: [], groups: [] };
  assert.deepEqual(found, [
    {
      ...cart,
      client: name("gone"),
      clientIdentity: name("gone"),
      ciphers: ["TLS_AES_256_GCM_SHA384"],
      groups: [],
      connections: 5,
      open: 0,
      requests: 0,
    },
    {
      ...plain,
      client: "shop/web",
      server: "192.0.2.7:443",
      whyNot: "the server has no sidecar",
      connections: 1,
      open: 0,
      requests: 0,
    },
    {
      ...cart,
      client: "shop/web",
      clientIdentity: name("web"),
      ciphers: ["TLS_AES_128_GCM_SHA256"],
      groups: ["X25519", "X25519MLKEM768"],
      connections: 3,
      open: 1,
      requests: 40,
    },
    {
      ...plain,
      client: "unmeshed",
      server: "shop/cart",
      whyNot: "the client has no sidecar",
      connections: 4,
      open: 0,
      requests: 6,
    },
  ]);
  const text = edgesTable(found);
  assert.match(
    text,
    /shop\/web +shop\/cart +web\.shop +cart\.shop +yes +TLS_AES_128_GCM_SHA256 +X25519\+X25519MLKEM768 +3 +1 +40$/m,
  );
  assert.match(text, /unmeshed +shop\/cart +- +- +no: the client has no sidecar +- +- +4 +0 +6$/m);
});
