/* The part of DAOS's C interface that is used here, as API version 2.8 has it (DAOS 2.8): types, constants, and one
 * table of functions. Declared here because libdfs is found at run time and DAOS's headers are not needed to build.
 * Sizes and offsets are those that a program compiled with the real headers printed on x86-64; dfs_abi_check.c
 * compares all of this with the real headers wherever setup.py finds them.
 *
 * dfs_* return 0 or a positive errno, daos_* 0 or a negative DER number; `error` of a dfs read's event is a positive
 * errno. */
#ifndef DPX_DFS_ABI_H
#define DPX_DFS_ABI_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define ABI_API_MAJOR 2
#define ABI_API_MINOR 8

#ifndef ABI_FROM_HEADERS /* else dfs_abi_check.c has defined these names from DAOS's own */

typedef struct dfs abi_dfs;
typedef struct dfs_obj abi_obj;
typedef struct abi_pool_info abi_pool_info;
typedef struct abi_cont_info abi_cont_info;

typedef struct {
	uint64_t cookie;
} abi_handle;

typedef struct abi_event {
	int ev_error;
	struct {
		uint64_t space[20];
	} ev_private;
	uint64_t ev_debug;
} abi_event;

typedef struct {
	uint16_t da_type;
	uint16_t da_shard;
	uint32_t da_flags;
	uint64_t da_sub_anchors;
	uint8_t da_buf[104];
} abi_anchor;

typedef struct {
	void *iov_buf;
	size_t iov_buf_len;
	size_t iov_len; /* what a read may fill, what a write takes */
} abi_iov;

typedef struct {
	uint32_t sg_nr;
	uint32_t sg_nr_out;
	abi_iov *sg_iovs;
} abi_sgl;

typedef struct {
	uint64_t lo;
	uint64_t hi;
} abi_obj_id;

#endif

enum {
	ABI_EQ_NOWAIT = 0, /* of daos_eq_poll's time-out, which is in microseconds */
	ABI_EQ_DESTROY_FORCE = 1,
	ABI_ANCHOR_EOF = 3, /* da_type; all of an anchor is zero at the start */
	ABI_MAX_NAME = 255, /* bytes */
	ABI_PC_RO = 1,      /* connect to a pool for reading */
	ABI_COO_RO = 1,     /* open a container for reading */
	ABI_COO_RW = 2,     /* and for writing as well */
	ABI_DFS_BALANCED = 4, /* beside O_RDWR or O_RDONLY, of dfs_mount */
	ABI_DER_NO_PERM = 1001,
	ABI_DER_INVAL = 1003,
	ABI_DER_NONEXIST = 1005,
	ABI_DER_UNREACH = 1006,
	ABI_DER_NOMEM = 1009,
	ABI_DER_TIMEDOUT = 1011,
	ABI_DER_BUSY = 1012,
	ABI_DER_AGENT_COMM = 2034,
};

#define ABI_TO_END UINT64_MAX /* dfs_punch's length: the file ends at the offset from now on, cut or extended */

#define ABI_LAYOUT(type, bytes)                                                                              \
	_Static_assert(sizeof(type) == (bytes) && _Alignof(type) == 8, #type " is not laid out as DAOS 2.8's")
#define ABI_MEMBER(type, member, offset, bytes)                                                              \
	_Static_assert(offsetof(type, member) == (offset) && sizeof(((type *)0)->member) == (bytes),         \
		       #type "." #member " does not lie where DAOS 2.8 has it")

ABI_LAYOUT(abi_handle, 8);
ABI_MEMBER(abi_handle, cookie, 0, 8);
ABI_LAYOUT(abi_event, 176);
ABI_MEMBER(abi_event, ev_error, 0, 4);
ABI_MEMBER(abi_event, ev_private, 8, 160);
ABI_MEMBER(abi_event, ev_debug, 168, 8);
ABI_LAYOUT(abi_anchor, 120);
ABI_MEMBER(abi_anchor, da_type, 0, 2);
ABI_MEMBER(abi_anchor, da_shard, 2, 2);
ABI_MEMBER(abi_anchor, da_flags, 4, 4);
ABI_MEMBER(abi_anchor, da_sub_anchors, 8, 8);
ABI_MEMBER(abi_anchor, da_buf, 16, 104);
ABI_LAYOUT(abi_iov, 24);
ABI_MEMBER(abi_iov, iov_buf, 0, 8);
ABI_MEMBER(abi_iov, iov_buf_len, 8, 8);
ABI_MEMBER(abi_iov, iov_len, 16, 8);
ABI_LAYOUT(abi_sgl, 16);
ABI_MEMBER(abi_sgl, sg_nr, 0, 4);
ABI_MEMBER(abi_sgl, sg_nr_out, 4, 4);
ABI_MEMBER(abi_sgl, sg_iovs, 8, 8);
ABI_LAYOUT(abi_obj_id, 16);
#ifdef __linux__ /* the system's own, filled in by libdfs */
ABI_LAYOUT(struct dirent, 280);
#if defined(__x86_64__)
ABI_LAYOUT(struct stat, 144);
#endif
#endif

/* FUNCTION(library, result, name, arguments). A parent of NULL is the container's root. */
#define ABI_FUNCTIONS(FUNCTION)                                                                              \
	FUNCTION("libdfs.so", int, dfs_init, (void))                                                         \
	FUNCTION("libdfs.so", int, dfs_fini, (void))                                                         \
	FUNCTION("libdfs.so", int, dfs_mount, (abi_handle pool, abi_handle cont, int flags, abi_dfs **dfs))  \
	FUNCTION("libdfs.so", int, dfs_umount, (abi_dfs * dfs))                                              \
	FUNCTION("libdfs.so", int, dfs_lookup,                                                               \
		 (abi_dfs * dfs, const char *path, int flags, abi_obj **obj, mode_t *mode, struct stat *st)) \
	FUNCTION("libdfs.so", int, dfs_lookup_rel,                                                           \
		 (abi_dfs * dfs, abi_obj * parent, const char *name, int flags, abi_obj **obj, mode_t *mode, \
		  struct stat *st))                                                                          \
	FUNCTION("libdfs.so", int, dfs_open,                                                                 \
		 (abi_dfs * dfs, abi_obj * parent, const char *name, mode_t mode, int flags, uint32_t cid,   \
		  uint64_t chunk_size, const char *value, abi_obj **obj))                                    \
	FUNCTION("libdfs.so", int, dfs_release, (abi_obj * obj))                                             \
	FUNCTION("libdfs.so", int, dfs_obj2id, (abi_obj * obj, abi_obj_id * oid))                            \
	FUNCTION("libdfs.so", int, dfs_obj_local2global, (abi_dfs * dfs, abi_obj * obj, abi_iov * blob))     \
	FUNCTION("libdfs.so", int, dfs_obj_global2local, (abi_dfs * dfs, int flags, abi_iov blob, abi_obj **obj)) \
	FUNCTION("libdfs.so", int, dfs_read,                                                                 \
		 (abi_dfs * dfs, abi_obj * obj, abi_sgl * sgl, uint64_t offset, uint64_t *got, abi_event * event)) \
	FUNCTION("libdfs.so", int, dfs_write,                                                                \
		 (abi_dfs * dfs, abi_obj * obj, abi_sgl * sgl, uint64_t offset, abi_event * event))          \
	FUNCTION("libdfs.so", int, dfs_punch, (abi_dfs * dfs, abi_obj * obj, uint64_t offset, uint64_t len)) \
	FUNCTION("libdfs.so", int, dfs_sync, (abi_dfs * dfs))                                                \
	FUNCTION("libdfs.so", int, dfs_get_size, (abi_dfs * dfs, abi_obj * obj, uint64_t *size))             \
	FUNCTION("libdfs.so", int, dfs_stat,                                                                 \
		 (abi_dfs * dfs, abi_obj * parent, const char *name, struct stat *st))                       \
	FUNCTION("libdfs.so", int, dfs_ostat, (abi_dfs * dfs, abi_obj * obj, struct stat *st))               \
	FUNCTION("libdfs.so", int, dfs_readdir,                                                              \
		 (abi_dfs * dfs, abi_obj * dir, abi_anchor * anchor, uint32_t *count, struct dirent *entries)) \
	FUNCTION("libdfs.so", int, dfs_obj_anchor_split, (abi_obj * dir, uint32_t *count, abi_anchor * anchors)) \
	FUNCTION("libdfs.so", int, dfs_obj_anchor_set, (abi_obj * dir, uint32_t index, abi_anchor * anchor)) \
	FUNCTION("libdfs.so", int, dfs_mkdir,                                                                \
		 (abi_dfs * dfs, abi_obj * parent, const char *name, mode_t mode, uint32_t cid))             \
	FUNCTION("libdfs.so", int, dfs_remove,                                                               \
		 (abi_dfs * dfs, abi_obj * parent, const char *name, bool force, abi_obj_id *oid))           \
	FUNCTION("libdfs.so", int, dfs_move,                                                                 \
		 (abi_dfs * dfs, abi_obj * parent, const char *name, abi_obj *new_parent,                    \
		  const char *new_name, abi_obj_id *oid))                                                    \
	FUNCTION("libdaos.so.2", int, daos_version_get, (int *major, int *minor, int *fix))                  \
	FUNCTION("libdaos.so.2", int, daos_oclass_name2id, (const char *name))                               \
	FUNCTION("libdaos.so.2", int, daos_init, (void))                                                     \
	FUNCTION("libdaos.so.2", int, daos_reinit, (void))                                                   \
	FUNCTION("libdaos.so.2", int, daos_pool_connect,                                                     \
		 (const char *pool, const char *sys, unsigned flags, abi_handle *handle, abi_pool_info *info, \
		  abi_event *event))                                                                         \
	FUNCTION("libdaos.so.2", int, daos_pool_disconnect, (abi_handle pool, abi_event * event))            \
	FUNCTION("libdaos.so.2", int, daos_cont_open,                                                        \
		 (abi_handle pool, const char *cont, unsigned flags, abi_handle *handle, abi_cont_info *info, \
		  abi_event *event))                                                                         \
	FUNCTION("libdaos.so.2", int, daos_cont_close, (abi_handle cont, abi_event * event))                 \
	FUNCTION("libdaos.so.2", int, daos_eq_create, (abi_handle * queue))                                  \
	FUNCTION("libdaos.so.2", int, daos_eq_destroy, (abi_handle queue, int flags))                        \
	FUNCTION("libdaos.so.2", int, daos_eq_poll,                                                          \
		 (abi_handle queue, int wait_running, int64_t timeout_us, unsigned count, abi_event **done)) \
	FUNCTION("libdaos.so.2", int, daos_event_init,                                                       \
		 (abi_event * event, abi_handle queue, abi_event * parent))                                  \
	FUNCTION("libdaos.so.2", int, daos_event_fini, (abi_event * event))

#endif
