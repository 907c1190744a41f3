/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every map, with its bound and what happens at the bound. All are pinned: mesh_services and mesh_backends once per
 * machine, the others once per pod, so that no pod can fill, read or outlive another's.
 *
 * Hash maps are not preallocated: memory follows use, and an update replaces a value whole, never under a reader.
 */
#ifndef PILLION_MAPS_H
#define PILLION_MAPS_H

#include "mesh.h"

/* The pod's settings under key 0. Absent: everything is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct mesh_settings);
} mesh_settings SEC(".maps");

/* The pod's own addresses. User space refuses more than fit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_addr);
	__type(value, __u32);
} mesh_own SEC(".maps");

/* Ports that bypass the sidecar, by direction. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DIRECTIONS);
	__type(key, __u32);
	__type(value, struct mesh_port_set);
} mesh_ports SEC(".maps");

/* Networks that bypass the sidecar, and those whose connections policy refuses at one port. User space refuses more than fit. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_cidr_key);
	__type(value, __u32);
} mesh_cidrs SEC(".maps");

/* What each socket was meant for; lives and dies with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mesh_target);
} mesh_targets SEC(".maps");

/*
 * Application's connection to the sidecar -> what it was meant for. In from just before the SYN until the application's
 * socket closes. When full, new connections are refused by the sidecar. A hash map pays for its bound in buckets, 16 bytes
 * each, even when empty: hence not one for every port there is.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_tuple);
	__type(value, struct mesh_endpoint);
} mesh_origins SEC(".maps");

/* The sidecar's listening sockets. The kernel takes a socket out when it closes. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, LISTENERS);
	__type(key, __u32);
	__type(value, __u64);
} mesh_listeners SEC(".maps");

/* Which backend stands for which virtual IP on one UDP socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mesh_udp_pairs);
} mesh_udp SEC(".maps");

/* Counters. The least recently used target is forgotten at the bound; its next connection starts from zero. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct mesh_traffic_key);
	__type(value, struct mesh_traffic);
} mesh_traffic SEC(".maps");

/* What of each long connection's socket is in mesh_traffic already. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mesh_flow);
} mesh_flows SEC(".maps");

/* The last socket that entered FIN_WAIT2, for each processor. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mesh_fin_wait2);
} mesh_fin_wait2 SEC(".maps");

/* The machine's virtual IPs. User space refuses more than fit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_service_key);
	__type(value, struct mesh_service);
} mesh_services SEC(".maps");

/* Their ready backends, slots 0 .. backends-1. User space refuses more than fit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct mesh_backend_key);
	__type(value, struct mesh_endpoint);
} mesh_backends SEC(".maps");

#endif
