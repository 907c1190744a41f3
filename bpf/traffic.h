/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting, from sockops: what crossed the pod's border, per target. Connections inside the pod are not counted.
 *
 * A connection is counted when it is established, and its bytes when it closes. One of LONG_SEGMENTS or more is added up
 * on the way, too, at most once in ADD_INTERVAL_JIFFIES, when the kernel takes a round-trip sample; so a connection that
 * only receives shows at its end.
 *
 * What has to be known of a connection is in the flags that the kernel keeps for each socket anyway: storage of our own,
 * made and freed for each, would cost more than all else here. Only long ones get it.
 */
#ifndef PILLION_TRAFFIC_H
#define PILLION_TRAFFIC_H

#include "address.h"

/* 0.1 s to 1 s, by the kernel's HZ. */
#define ADD_INTERVAL_JIFFIES 100
#define LONG_SEGMENTS 64

/* Every counted connection has round-trip samples taken. */
#define FLOW_COUNTED BPF_SOCK_OPS_RTT_CB_FLAG
/* Says nothing but this: a retransmission timeout calls us without need. */
#define FLOW_OUTBOUND BPF_SOCK_OPS_RTO_CB_FLAG

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

/* An established connection over the pod's border. */
static __always_inline void traffic_begin(struct bpf_sock_ops *ctx, const struct mesh_endpoint *target,
					  __u16 direction, __u16 path)
{
	struct mesh_traffic_key key = { .target = *target, .direction = direction, .path = path };
	struct mesh_traffic *traffic = traffic_get(&key);

	if (traffic)
		__sync_fetch_and_add(&traffic->connections, 1);
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG | FLOW_COUNTED |
					       (direction == DIRECTION_OUTBOUND ? FLOW_OUTBOUND : 0));
}

static __always_inline void traffic_fail(const struct mesh_endpoint *target, __u16 path)
{
	struct mesh_traffic_key key = { .target = *target, .direction = DIRECTION_OUTBOUND, .path = path };
	struct mesh_traffic *traffic = traffic_get(&key);

	if (traffic)
		__sync_fetch_and_add(&traffic->failures, 1);
}

/*
 * Adds what is not added yet. RFC 9293 §3.4: SYN and FIN take a sequence number each, and the kernel's byte counters count
 * a client's SYN (in bytes_acked), both FINs, and nothing else that is no data.
 */
static __always_inline void traffic_add(struct bpf_sock_ops *ctx, struct mesh_flow *flow, __u16 path, __u32 fin_in,
					__u32 fin_out)
{
	struct mesh_endpoint local = {};
	struct mesh_endpoint remote = {};
	struct mesh_traffic_key key = { .path = path };
	struct mesh_traffic *traffic;
	__u32 is_outbound = READ32(ctx, bpf_sock_ops_cb_flags) & FLOW_OUTBOUND;
	__u64 bytes_in = ctx->bytes_received - fin_in;
	__u64 bytes_out = ctx->bytes_acked - (is_outbound ? 1 : 0) - fin_out;
	__u32 retransmits = ctx->total_retrans;
	__u32 srtt_us = ctx->srtt_us;

	sockops_ends(ctx, &local, &remote);
	key.target = is_outbound ? remote : local;
	key.direction = is_outbound ? DIRECTION_OUTBOUND : DIRECTION_INBOUND;
	traffic = traffic_get(&key);
	if (!traffic)
		return;
	if (flow) {
		__u64 added_in = flow->bytes_in;
		__u64 added_out = flow->bytes_out;
		__u32 added_retransmits = flow->retransmits;

		flow->bytes_in = bytes_in;
		flow->bytes_out = bytes_out;
		flow->retransmits = retransmits;
		bytes_in -= added_in;
		bytes_out -= added_out;
		retransmits -= added_retransmits;
	}
	/* Less than nothing: a connection that broke before what was taken off had been counted. */
	if ((__s64)bytes_in > 0)
		__sync_fetch_and_add(&traffic->bytes_in, bytes_in);
	if ((__s64)bytes_out > 0)
		__sync_fetch_and_add(&traffic->bytes_out, bytes_out);
	if (retransmits)
		__sync_fetch_and_add(&traffic->retransmits, (__u64)retransmits);
	if (srtt_us)
		traffic->rtt_us = srtt_us >> 3;
}

/* Runs for most segments that are acknowledged: whatever can be done without is not done. */
static __always_inline void traffic_sample(struct bpf_sock_ops *ctx, __u16 path)
{
	struct bpf_sock *sk = ctx->sk;
	__u64 now = bpf_jiffies64();
	__u32 state = READ32(ctx, state);
	struct mesh_flow *flow;

	if (!sk || READ32(ctx, segs_in) + READ32(ctx, segs_out) < LONG_SEGMENTS)
		return;
	flow = bpf_sk_storage_get(&mesh_flows, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!flow || now - flow->added_at_jiffies < ADD_INTERVAL_JIFFIES)
		return;
	/* Our FIN may be acknowledged already while the state does not say so yet: its byte would count as data. */
	if (state == TCP_FIN_WAIT1 || state == TCP_CLOSING || state == TCP_LAST_ACK)
		return;
	flow->added_at_jiffies = now;
	traffic_add(ctx, flow, path, state == TCP_CLOSE_WAIT, state == TCP_FIN_WAIT2);
}

/*
 * From FIN_WAIT2 a socket closes because the remote FIN has come, or because its program closed it and the kernel waits
 * for that FIN without it: at once, in most cases. Then nothing came since it entered FIN_WAIT2, which is remembered for
 * the last socket of each processor; for one that closes later without a FIN, a byte of data is taken for it.
 */
static __always_inline void at_fin_wait2(struct bpf_sock_ops *ctx, struct mesh_fin_wait2 *at)
{
	at->rcv_nxt = READ32(ctx, rcv_nxt);
	at->local_port = READ32(ctx, local_port);
	at->remote_port = READ32(ctx, remote_port);
}

static __always_inline void traffic_half_closed(struct bpf_sock_ops *ctx)
{
	__u32 zero = 0;
	struct mesh_fin_wait2 *last = bpf_map_lookup_elem(&mesh_fin_wait2, &zero);

	if (last)
		at_fin_wait2(ctx, last);
}

static __always_inline int has_come_since_fin_wait2(struct bpf_sock_ops *ctx)
{
	__u32 zero = 0;
	struct mesh_fin_wait2 *last = bpf_map_lookup_elem(&mesh_fin_wait2, &zero);
	struct mesh_fin_wait2 now = {};

	at_fin_wait2(ctx, &now);
	return !last || last->rcv_nxt != now.rcv_nxt || last->local_port != now.local_port ||
	       last->remote_port != now.remote_port;
}

/* What to do when a socket changes state. Returns 1 if it is of a counted connection. */
static __always_inline int traffic_state(struct bpf_sock_ops *ctx, __u32 from, __u32 to, __u16 path)
{
	struct bpf_sock *sk = ctx->sk;
	struct mesh_flow *flow;
	__u32 fin_in = from == TCP_CLOSE_WAIT || from == TCP_LAST_ACK || from == TCP_CLOSING;
	__u32 fin_out = from == TCP_FIN_WAIT2;

	if (!(READ32(ctx, bpf_sock_ops_cb_flags) & FLOW_COUNTED))
		return 0;
	if (to == TCP_FIN_WAIT2)
		traffic_half_closed(ctx);
	if (to != TCP_CLOSE || !sk)
		return 1;
	if (from == TCP_FIN_WAIT2)
		fin_in = has_come_since_fin_wait2(ctx);
	/* Or it was reset, or gave up. */
	if (from == TCP_LAST_ACK || from == TCP_CLOSING)
		fin_out = READ32(ctx, snd_una) == READ32(ctx, snd_nxt);
	flow = bpf_sk_storage_get(&mesh_flows, sk, NULL, 0);
	traffic_add(ctx, flow, path, fin_in, fin_out);
	/* The socket may connect anew, and its counters begin at 0 then. */
	if (flow)
		bpf_sk_storage_delete(&mesh_flows, sk);
	return 1;
}

#endif
