// SPDX-License-Identifier: Apache-2.0
/*
 * Hook:     cgroup/getsockname4 on the application's cgroup; context struct bpf_sock_addr, which holds the kernel's
 *           answer and takes ours.
 * Floor:    5.9.
 * Returns:  1 always.
 * Maps:     reads mesh_settings, mesh_targets.
 * Nobody home: the application sees the address that the kernel chose.
 *
 * Needed only where bpf_bind could not set the pod's address because the application had chosen a port before.
 */
#include "names.h"

SEC("cgroup/getsockname4")
int mesh_getsockname4(struct bpf_sock_addr *ctx)
{
	struct mesh_target *target = bpf_sk_storage_get(&mesh_targets, ctx->sk, NULL, 0);
	struct mesh_settings *settings = settings_get();
	struct mesh_addr local = {};

	if (!target || target->kind != TARGET_PROXIED || !settings)
		return 1;
	addr_set4(&local, ctx->user_ip4);
	if (addr_is_loopback(&local))
		ctx->user_ip4 = settings->source4.word[3];
	return 1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
