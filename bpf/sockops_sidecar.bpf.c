// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     sockops on the sidecar's cgroup; context struct bpf_sock_ops.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_settings, mesh_own, mesh_origins; writes mesh_listeners, mesh_targets, mesh_traffic, mesh_flows,
 *           mesh_fin_wait2.
 * Nobody home: a listener that is not in mesh_listeners gets no connections, and sk_lookup drops them.
 *
 * The sidecar's listening sockets are found here, as they begin to listen: any proxy will do, and it may come and go.
 * What a client was meant for is taken over onto the accepted socket before anybody can accept it, so that a client
 * which sends and closes at once is still served.
 */
#include "traffic.h"

static __always_inline void listening(struct bpf_sock_ops *ctx, struct mesh_settings *settings)
{
	__u32 slot = ctx->family == AF_INET6;

	if (ctx->local_port == settings->inbound_port)
		slot += LISTENER_INBOUND4;
	else if (ctx->local_port == settings->outbound_port)
		slot += LISTENER_OUTBOUND4;
	else
		return;
	bpf_sock_map_update(ctx, &mesh_listeners, &slot, BPF_ANY);
}

static __always_inline void accepted(struct bpf_sock_ops *ctx, struct mesh_settings *settings)
{
	struct mesh_endpoint local = {};
	struct mesh_endpoint remote = {};
	struct mesh_endpoint *asked;
	struct mesh_target *target;
	struct mesh_tuple tuple = {};
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return;
	sockops_ends(ctx, &local, &remote);
	if (!addr_is_local(&remote.ip)) {
		traffic_begin(ctx, &local, DIRECTION_INBOUND, PATH_PROXIED);
		return;
	}
	if (local.port != bpf_htons(settings->outbound_port))
		return;
	tuple.client = remote.ip;
	tuple.server = local.ip;
	tuple.client_port = remote.port;
	tuple.server_port = local.port;
	asked = bpf_map_lookup_elem(&mesh_origins, &tuple);
	if (!asked)
		return;
	target = bpf_sk_storage_get(&mesh_targets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!target)
		return;
	target->asked = *asked;
	target->kind = TARGET_PROXIED;
}

static __always_inline void dialled(struct bpf_sock_ops *ctx)
{
	struct mesh_endpoint local = {};
	struct mesh_endpoint remote = {};

	sockops_ends(ctx, &local, &remote);
	if (!addr_is_local(&remote.ip))
		traffic_begin(ctx, &remote, DIRECTION_OUTBOUND, PATH_PROXIED);
}

static __always_inline void state_changed(struct bpf_sock_ops *ctx)
{
	__u32 from = ctx->args[0];
	__u32 to = ctx->args[1];
	struct mesh_endpoint local = {};
	struct mesh_endpoint remote = {};

	if (traffic_state(ctx, from, to, PATH_PROXIED) || from != TCP_SYN_SENT || to != TCP_CLOSE)
		return;
	sockops_ends(ctx, &local, &remote);
	if (!addr_is_local(&remote.ip))
		traffic_fail(&remote, PATH_PROXIED);
}

SEC("sockops")
int mesh_sockops_sidecar(struct bpf_sock_ops *ctx)
{
	struct mesh_settings *settings = settings_get();

	if (!settings)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listening(ctx, settings);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		dialled(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		accepted(ctx, settings);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		traffic_sample(ctx, PATH_PROXIED);
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
