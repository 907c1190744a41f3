/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract between the kernel programs and user space: every struct that is a map's key or value. The reader on the
 * other side is src/kernel/ebpf/layout.ts, which is checked against the BTF of the committed objects. A change of any
 * layout here raises MESH_ABI.
 */
#ifndef PILLION_MESH_H
#define PILLION_MESH_H

#include "include/kernel.h"

#define MESH_ABI 2

/* An address of either family in network order; IPv4 is written v4-mapped (RFC 4291 §2.5.5.2), in every map. */
struct mesh_addr {
	__be32 word[4];
};

struct mesh_endpoint {
	struct mesh_addr ip;
	__be16 port;
	__u16 zero;
};

#define MODE_SERVICE_ONLY 0
#define MODE_MESHED 1

struct mesh_settings {
	__u32 abi;
	__u16 mode;
	__u16 inbound_port;  /* host order, like the next two */
	__u16 outbound_port;
	__u16 admin_port;
	struct mesh_addr source4; /* all zero: the pod has no address of this family */
	struct mesh_addr source6;
};

#define DIRECTION_INBOUND 0
#define DIRECTION_OUTBOUND 1
#define DIRECTIONS 2
#define DIRECTION_REFUSED 2 /* in mesh_cidrs alone: inbound, refused by policy whoever it is */

/* One bit per port: bit (port % 64) of word (port / 64). */
#define PORT_WORDS 1024

struct mesh_port_set {
	__u64 word[PORT_WORDS];
};

/* Longest prefix match over direction, port (0: any) and address: a prefix of /n has prefix_bits 32 + n (96 + n for IPv4). */
struct mesh_cidr_key {
	__u32 prefix_bits;
	__u16 direction;
	__be16 port;
	struct mesh_addr ip;
};

/* Both ends of a connection between an application and its sidecar. */
struct mesh_tuple {
	struct mesh_addr client;
	struct mesh_addr server;
	__be16 client_port;
	__be16 server_port;
};

#define TARGET_PROXIED 1    /* rewritten to the sidecar */
#define TARGET_TRANSLATED 2 /* a virtual IP, rewritten to one of its backends */

/* What a socket was meant for. On the sidecar's accepted sockets too: what its client was meant for. */
struct mesh_target {
	struct mesh_endpoint asked;
	__u32 kind;
};

/* Virtual IPs that one UDP socket talks to, and which backend stands for each. The oldest goes when all are in use. */
#define UDP_PAIRS_MAX 16

struct mesh_udp_pair {
	struct mesh_endpoint vip;
	struct mesh_endpoint backend;
};

struct mesh_udp_pairs {
	__u32 next;
	struct mesh_udp_pair pair[UDP_PAIRS_MAX];
};

struct mesh_service_key {
	struct mesh_addr ip;
	__be16 port;
	__u16 protocol;
};

/* `id` is new whenever the backends change, so that a reader never sees half of a change. */
struct mesh_service {
	__u32 id;
	__u32 backends;
};

struct mesh_backend_key {
	__u32 id;
	__u32 slot;
};

#define LISTENER_INBOUND4 0
#define LISTENER_INBOUND6 1
#define LISTENER_OUTBOUND4 2
#define LISTENER_OUTBOUND6 3
#define LISTENERS 4

#define PATH_PROXIED 0
#define PATH_LET_THROUGH 1
#define PATH_REFUSED 2 /* counts `connections` alone */

struct mesh_traffic_key {
	struct mesh_endpoint target;
	__u16 direction;
	__u16 path;
};

struct mesh_traffic {
	__u64 connections;
	__u64 failures;
	__u64 bytes_in;
	__u64 bytes_out;
	__u64 retransmits;
	__u64 rtt_us; /* 0: no sample yet */
};

/* What has already been added to mesh_traffic for one socket, without SYN and FINs. */
struct mesh_flow {
	__u64 bytes_in;
	__u64 bytes_out;
	__u64 added_at_jiffies;
	__u32 retransmits;
	__u32 zero;
};

/* Where a socket stood as it entered FIN_WAIT2. Ports are as in struct bpf_sock_ops. */
struct mesh_fin_wait2 {
	__u32 rcv_nxt;
	__u32 local_port;
	__u32 remote_port;
};

#define ASSERT_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), "size of " #type)
ASSERT_SIZE(mesh_addr, 16);
ASSERT_SIZE(mesh_endpoint, 20);
ASSERT_SIZE(mesh_settings, 44);
ASSERT_SIZE(mesh_port_set, 8192);
ASSERT_SIZE(mesh_cidr_key, 24);
ASSERT_SIZE(mesh_tuple, 36);
ASSERT_SIZE(mesh_target, 24);
ASSERT_SIZE(mesh_udp_pairs, 644);
ASSERT_SIZE(mesh_service_key, 20);
ASSERT_SIZE(mesh_service, 8);
ASSERT_SIZE(mesh_backend_key, 8);
ASSERT_SIZE(mesh_traffic_key, 24);
ASSERT_SIZE(mesh_traffic, 48);
ASSERT_SIZE(mesh_flow, 32);
ASSERT_SIZE(mesh_fin_wait2, 12);

#endif
