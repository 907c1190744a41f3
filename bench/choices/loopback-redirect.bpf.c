// SPDX-License-Identifier: Apache-2.0
/*
 * An experiment, not a part of interception (docs/decisions/0025-loopback-redirect.md): what one end of a connection inside
 * a pod sends is put into the other end's receive queue, past TCP.
 *
 * Hooks:    sockops on a cgroup that holds application and sidecar; sk_msg on the sockets in `peers`.
 * Floor:    4.20; the author of the figures ran 6.18.
 * Returns:  1 from sockops; SK_PASS always from sk_msg, which redirects or leaves the message to TCP.
 * Nobody home: what finds no other end goes by TCP.
 */
#include "../../bpf/include/kernel.h"

#define BPF_MAP_TYPE_SOCKHASH 18
#define BPF_F_INGRESS 1

struct sk_msg_md {
	union {
		void *data;
		__u64 : 64;
	} __attribute__((aligned(8)));
	union {
		void *data_end;
		__u64 : 64;
	} __attribute__((aligned(8)));
	__u32 family;
	__be32 remote_ip4;
	__be32 local_ip4;
	__be32 remote_ip6[4];
	__be32 local_ip6[4];
	__u32 remote_port; /* network order, in the high 16 bits */
	__u32 local_port;  /* host order */
	__u32 size;
};

static long (*bpf_sock_hash_update)(struct bpf_sock_ops *ctx, void *map, void *key, __u64 flags) = (void *)70;
static long (*bpf_msg_redirect_hash)(struct sk_msg_md *msg, void *map, void *key, __u64 flags) = (void *)71;

#define SIDECAR_PORT 4140 /* the client's sidecar, by its application */
#define SERVICE_PORT 80   /* what that application dials, before nftables sends it to 4140 */
#define APP_PORT 8080     /* the server's application, by its sidecar */

/* A message of this size is left to TCP, to see what becomes of order when a connection uses both ways. */
#define LEFT_BYTES 7777

#define SIDE_DIALLED 0
#define SIDE_ACCEPTED 1

struct end {
	__u16 dialler_port;
	__u16 server_port;
	__u32 side;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 16384);
	__type(key, struct end);
	__type(value, __u64);
} peers SEC(".maps");

#define REDIRECTED 0
#define LEFT_TO_TCP 1

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} messages SEC(".maps");

/* 0 when this is no connection between an application and its sidecar. */
static __always_inline int end_of(__u32 local_port, __u32 remote_port, struct end *end)
{
	__u32 remote = bpf_ntohs((__be16)(remote_port >> 16));

	if (local_port == SIDECAR_PORT || local_port == APP_PORT) {
		end->side = SIDE_ACCEPTED;
		end->dialler_port = remote;
		end->server_port = local_port;
		return 1;
	}
	if (remote == SERVICE_PORT)
		remote = SIDECAR_PORT;
	if (remote != SIDECAR_PORT && remote != APP_PORT)
		return 0;
	end->side = SIDE_DIALLED;
	end->dialler_port = local_port;
	end->server_port = remote;
	return 1;
}

SEC("sockops")
int choice_sockops(struct bpf_sock_ops *ctx)
{
	struct end end = {};

	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (end_of(READ32(ctx, local_port), READ32(ctx, remote_port), &end))
		bpf_sock_hash_update(ctx, &peers, &end, BPF_ANY);
	return 1;
}

SEC("sk_msg")
int choice_redirect(struct sk_msg_md *msg)
{
	struct end end = {};
	__u32 what = LEFT_TO_TCP;
	__u64 *count;

	if (msg->size != LEFT_BYTES && end_of(READ32(msg, local_port), READ32(msg, remote_port), &end)) {
		end.side = !end.side;
		if (bpf_msg_redirect_hash(msg, &peers, &end, BPF_F_INGRESS) == SK_PASS)
			what = REDIRECTED;
	}
	count = bpf_map_lookup_elem(&messages, &what);
	if (count)
		__sync_fetch_and_add(count, 1);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
