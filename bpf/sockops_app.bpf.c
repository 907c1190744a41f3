// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     sockops on the application's cgroup; context struct bpf_sock_ops.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_targets, mesh_own; writes mesh_origins, mesh_traffic, mesh_flows, mesh_fin_wait2.
 * Nobody home: an original destination that could not be kept is missing later, and the sidecar refuses.
 *
 * connect4 and connect6 know what was asked for, but no source port exists yet. Here, just before the SYN, it does.
 */
#include "traffic.h"

static __always_inline void tuple_of(struct bpf_sock_ops *ctx, struct mesh_tuple *tuple)
{
	struct mesh_endpoint local = {};
	struct mesh_endpoint remote = {};

	sockops_ends(ctx, &local, &remote);
	tuple->client = local.ip;
	tuple->server = remote.ip;
	tuple->client_port = local.port;
	tuple->server_port = remote.port;
}

static __always_inline void connecting(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct mesh_tuple tuple = {};
	struct mesh_target *target;

	if (!sk)
		return;
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	target = bpf_sk_storage_get(&mesh_targets, sk, NULL, 0);
	if (!target || target->kind != TARGET_PROXIED)
		return;
	tuple_of(ctx, &tuple);
	bpf_map_update_elem(&mesh_origins, &tuple, &target->asked, BPF_ANY);
}

static __always_inline void established(struct bpf_sock_ops *ctx, __u16 direction)
{
	struct mesh_endpoint local = {};
	struct mesh_endpoint remote = {};

	sockops_ends(ctx, &local, &remote);
	if (!addr_is_local(&remote.ip))
		traffic_begin(ctx, direction == DIRECTION_OUTBOUND ? &remote : &local, direction,
			      PATH_LET_THROUGH);
}

static __always_inline void state_changed(struct bpf_sock_ops *ctx)
{
	__u32 from = ctx->args[0];
	__u32 to = ctx->args[1];
	struct bpf_sock *sk = ctx->sk;
	struct mesh_tuple tuple = {};
	struct mesh_target *target;

	if (traffic_state(ctx, from, to, PATH_LET_THROUGH) || to != TCP_CLOSE || !sk)
		return;
	tuple_of(ctx, &tuple);
	target = bpf_sk_storage_get(&mesh_targets, sk, NULL, 0);
	if (target && target->kind == TARGET_PROXIED) {
		bpf_map_delete_elem(&mesh_origins, &tuple);
		if (from == TCP_SYN_SENT)
			traffic_fail(&target->asked, PATH_PROXIED);
	} else if (from == TCP_SYN_SENT && !addr_is_local(&tuple.server)) {
		struct mesh_endpoint remote = { .ip = tuple.server, .port = tuple.server_port };

		traffic_fail(&remote, PATH_LET_THROUGH);
	}
}

SEC("sockops")
int mesh_sockops_app(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		connecting(ctx);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		established(ctx, DIRECTION_OUTBOUND);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(ctx, DIRECTION_INBOUND);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		traffic_sample(ctx, PATH_LET_THROUGH);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		state_changed(ctx);
		break;
	default:
		ctx->reply = -1; /* questions that we have no opinion on */
	}
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
