/* SPDX-License-Identifier: Apache-2.0 */
/* What an application sees when it asks a socket for its addresses. */
#ifndef PILLION_NAMES_H
#define PILLION_NAMES_H

#include "address.h"

/*
 * What the socket was meant for, or NULL when it was left alone. An MPTCP socket's own storage is empty (its first
 * subflow was connected in its stead), so there the connection's addresses are the key.
 */
static __always_inline struct mesh_endpoint *asked_for(struct bpf_sock_addr *ctx, const struct mesh_tuple *tuple)
{
	struct mesh_target *target = bpf_sk_storage_get(&mesh_targets, ctx->sk, NULL, 0);

	if (target)
		return &target->asked;
	if (!addr_is_loopback(&tuple->server))
		return NULL;
	return bpf_map_lookup_elem(&mesh_origins, tuple);
}

#endif
