/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting, from sockops: what crossed the pod's border, per target. Connections inside the pod are not counted.
 *
 * A socket's own counters are added to its target's when it closes, and on the way at most once per
 * ADD_INTERVAL_NS, when the kernel takes a round-trip sample; so a connection that only receives shows at its end.
 */
#ifndef PILLION_TRAFFIC_H
#define PILLION_TRAFFIC_H

#include "address.h"

#define ADD_INTERVAL_NS 1000000000ull

static __always_inline void sockops_ends(struct bpf_sock_ops *ctx, struct mesh_endpoint *local,
					 struct mesh_endpoint *remote)
{
	if (READ32(ctx, family) == AF_INET) {
		addr_set4(&local->ip, READ32(ctx, local_ip4));
		addr_set4(&remote->ip, READ32(ctx, remote_ip4));
	} else {
		local->ip.word[0] = READ32(ctx, local_ip6[0]);
		local->ip.word[1] = READ32(ctx, local_ip6[1]);
		local->ip.word[2] = READ32(ctx, local_ip6[2]);
		local->ip.word[3] = READ32(ctx, local_ip6[3]);
		remote->ip.word[0] = READ32(ctx, remote_ip6[0]);
		remote->ip.word[1] = READ32(ctx, remote_ip6[1]);
		remote->ip.word[2] = READ32(ctx, remote_ip6[2]);
		remote->ip.word[3] = READ32(ctx, remote_ip6[3]);
	}
	local->port = bpf_htons(READ32(ctx, local_port));
	remote->port = (__be16)(READ32(ctx, remote_port) >> 16);
}

static __always_inline struct mesh_traffic *traffic_get(const struct mesh_traffic_key *key)
{
	struct mesh_traffic zero = {};
	struct mesh_traffic *traffic = bpf_map_lookup_elem(&mesh_traffic, key);

	if (traffic)
		return traffic;
	bpf_map_update_elem(&mesh_traffic, key, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&mesh_traffic, key);
}

/* An established connection over the pod's border. `acked` of a client starts at 1: its SYN counts. */
static __always_inline void traffic_begin(struct bpf_sock_ops *ctx, const struct mesh_endpoint *target,
					  __u16 direction, __u16 path)
{
	struct bpf_sock *sk = ctx->sk;
	struct mesh_traffic *traffic;
	struct mesh_flow *flow;

	if (!sk)
		return;
	flow = bpf_sk_storage_get(&mesh_flows, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!flow)
		return;
	flow->key.target = *target;
	flow->key.direction = direction;
	flow->key.path = path;
	flow->acked = direction == DIRECTION_OUTBOUND;
	flow->added_at_ns = bpf_ktime_get_ns();
	traffic = traffic_get(&flow->key);
	if (traffic)
		__sync_fetch_and_add(&traffic->connections, 1);
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
}

static __always_inline void traffic_fail(const struct mesh_endpoint *target, __u16 path)
{
	struct mesh_traffic_key key = { .target = *target, .direction = DIRECTION_OUTBOUND, .path = path };
	struct mesh_traffic *traffic = traffic_get(&key);

	if (traffic)
		__sync_fetch_and_add(&traffic->failures, 1);
}

static __always_inline void traffic_add(struct bpf_sock_ops *ctx, struct mesh_flow *flow, __u64 now_ns)
{
	struct mesh_traffic *traffic = traffic_get(&flow->key);
	__u64 received = ctx->bytes_received - flow->fin_in;
	__u64 acked = ctx->bytes_acked - flow->fin_out;
	__u32 retransmits = ctx->total_retrans;

	if (!traffic)
		return;
	if (received > flow->received)
		__sync_fetch_and_add(&traffic->bytes_in, received - flow->received);
	if (acked > flow->acked)
		__sync_fetch_and_add(&traffic->bytes_out, acked - flow->acked);
	__sync_fetch_and_add(&traffic->retransmits, (__u64)(retransmits - flow->retransmits));
	if (ctx->srtt_us)
		traffic->rtt_us = ctx->srtt_us >> 3;
	flow->received = received;
	flow->acked = acked;
	flow->retransmits = retransmits;
	flow->added_at_ns = now_ns;
}

static __always_inline void traffic_sample(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u64 now_ns = bpf_ktime_get_ns();
	struct mesh_flow *flow;

	if (!sk)
		return;
	/* Our FIN may be acknowledged already while the state does not say so yet: its byte would count as data. */
	if (ctx->state == TCP_FIN_WAIT1 || ctx->state == TCP_CLOSING || ctx->state == TCP_LAST_ACK)
		return;
	flow = bpf_sk_storage_get(&mesh_flows, sk, NULL, 0);
	if (flow && now_ns - flow->added_at_ns >= ADD_INTERVAL_NS)
		traffic_add(ctx, flow, now_ns);
}

/* RFC 9293 §3.4: a FIN takes a sequence number, and the kernel's byte counters count it. */
static __always_inline void traffic_state(struct bpf_sock_ops *ctx, __u32 from, __u32 to)
{
	struct bpf_sock *sk = ctx->sk;
	struct mesh_flow *flow;

	if (!sk)
		return;
	flow = bpf_sk_storage_get(&mesh_flows, sk, NULL, 0);
	if (!flow)
		return;
	if (to == TCP_CLOSE_WAIT || to == TCP_CLOSING || (from == TCP_FIN_WAIT2 && to == TCP_CLOSE))
		flow->fin_in = 1;
	if (to == TCP_FIN_WAIT2 || ((from == TCP_LAST_ACK || from == TCP_CLOSING) && to == TCP_CLOSE))
		flow->fin_out = 1;
	if (to == TCP_CLOSE)
		traffic_add(ctx, flow, bpf_ktime_get_ns());
}

#endif
