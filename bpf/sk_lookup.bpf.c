// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     sk_lookup on the pod's network namespace; context struct bpf_sk_lookup. Runs when a segment matches no
 *           established connection: for new ones.
 * Floor:    5.9.
 * Returns:  SK_PASS to the assigned socket, or to whoever the kernel finds when none is assigned; SK_DROP nobody is
 *           there, or policy refuses the address, and the kernel answers with a reset.
 * Maps:     reads mesh_settings, mesh_own, mesh_ports, mesh_cidrs, mesh_listeners; counts in mesh_traffic.
 * Nobody home: without settings, or without a live sidecar socket, every steered connection is refused.
 */
#include "traffic.h"

static __always_inline int steer(struct bpf_sk_lookup *ctx, __u32 slot4, int is4)
{
	__u32 slot = is4 ? slot4 : slot4 + 1;
	void *sk = bpf_map_lookup_elem(&mesh_listeners, &slot);
	long error;

	/* An IPv6 listener on :: serves IPv4 too. */
	if (!sk && is4) {
		slot = slot4 + 1;
		sk = bpf_map_lookup_elem(&mesh_listeners, &slot);
	}
	if (!sk)
		return SK_DROP;
	error = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return error ? SK_DROP : SK_PASS;
}

/*
 * Does policy refuse this address at this port, whoever it proves to be? A retransmitted SYN is counted again. Only what the sidecar
 * would refuse for the address alone is here; it decides everything else.
 */
static __always_inline int is_refused(const struct mesh_addr *local, const struct mesh_addr *remote, __u16 port)
{
	struct mesh_cidr_key by_cidr = {
		.prefix_bits = 160,
		.direction = DIRECTION_REFUSED,
		.port = bpf_htons(port),
		.ip = *remote,
	};
	struct mesh_traffic_key key = {
		.target = { .ip = *local, .port = bpf_htons(port) },
		.direction = DIRECTION_INBOUND,
		.path = PATH_REFUSED,
	};
	struct mesh_traffic *traffic;

	if (!bpf_map_lookup_elem(&mesh_cidrs, &by_cidr))
		return 0;
	traffic = traffic_get(&key);
	if (traffic)
		__sync_fetch_and_add(&traffic->connections, 1);
	return 1;
}

SEC("sk_lookup")
int mesh_sk_lookup(struct bpf_sk_lookup *ctx)
{
	struct mesh_settings *settings;
	struct mesh_addr local = {};
	struct mesh_addr remote = {};
	int is4 = ctx->family == AF_INET;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	settings = settings_get();
	if (!settings)
		return SK_DROP;
	if (settings->mode != MODE_MESHED)
		return SK_PASS;
	if (is4) {
		addr_set4(&local, ctx->local_ip4);
		addr_set4(&remote, ctx->remote_ip4);
	} else {
		addr_set6(&local, ctx->local_ip6);
		addr_set6(&remote, ctx->remote_ip6);
	}
	/*
	 * From inside the pod. Nobody outside can pose as such: the kernel drops segments from other devices with a
	 * loopback source or, for IPv4, with one of our addresses; for IPv6 the answer goes to ourselves, and no handshake
	 * ends.
	 */
	if (addr_is_local(&remote)) {
		/* Only the sidecar may answer here: no other process can put itself in its place. */
		if (ctx->local_port == settings->outbound_port && addr_is_loopback(&local))
			return steer(ctx, LISTENER_OUTBOUND4, is4);
		return SK_PASS;
	}
	if (ctx->local_port == settings->admin_port)
		return SK_PASS;
	if (is_let_through(DIRECTION_INBOUND, &remote, ctx->local_port))
		return SK_PASS;
	if (is_refused(&local, &remote, ctx->local_port))
		return SK_DROP;
	return steer(ctx, LISTENER_INBOUND4, is4);
}

char LICENSE[] SEC("license") = "Apache-2.0";
