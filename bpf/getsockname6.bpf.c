// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/getsockname6 on the application's cgroup; context struct bpf_sock_addr, which holds the kernel's
 *           answer and takes ours.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_settings, mesh_targets.
 * Nobody home: the application sees the address that the kernel chose.
 *
 * Needed only where bpf_bind could not set the pod's address because the application had chosen a port before.
 */
#include "names.h"

SEC("cgroup/getsockname6")
int mesh_getsockname6(struct bpf_sock_addr *ctx)
{
	struct mesh_target *target = bpf_sk_storage_get(&mesh_targets, ctx->sk, NULL, 0);
	struct mesh_settings *settings = settings_get();
	struct mesh_addr local = {};
	struct mesh_addr *own;

	if (!target || target->kind != TARGET_PROXIED || !settings)
		return 1;
	addr_set6(&local, ctx->user_ip6);
	if (addr_is_loopback(&local)) {
		own = addr_is4(&local) ? &settings->source4 : &settings->source6;
		FIELD(ctx->user_ip6[0]) = own->word[0];
		FIELD(ctx->user_ip6[1]) = own->word[1];
		FIELD(ctx->user_ip6[2]) = own->word[2];
		FIELD(ctx->user_ip6[3]) = own->word[3];
	}
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
