/* Compiled only where setup.py finds DAOS's headers: what dfs_abi.h says of layouts, constants and functions, held
 * against them. Functions are declared a second time, so any difference is a compiler's error. */
#ifdef HAVE_DAOS_HEADERS

#include <daos.h>
#include <daos_fs.h>
#include <daos_errno.h>
#if __has_include(<daos/api.h>) /* not among those that are installed; tells daos_version_get */
#include <daos/api.h>
#endif

#define ABI_FROM_HEADERS
typedef dfs_t abi_dfs;
typedef dfs_obj_t abi_obj;
typedef daos_pool_info_t abi_pool_info;
typedef daos_cont_info_t abi_cont_info;
typedef daos_handle_t abi_handle;
typedef daos_event_t abi_event;
typedef daos_anchor_t abi_anchor;
typedef d_iov_t abi_iov;
typedef d_sg_list_t abi_sgl;
typedef daos_obj_id_t abi_obj_id;

#include "dfs_abi.h"

#define DECLARED_AGAIN(library, result, name, arguments) result name arguments;
ABI_FUNCTIONS(DECLARED_AGAIN)

_Static_assert(DAOS_API_VERSION_MAJOR == ABI_API_MAJOR && DAOS_API_VERSION_MINOR == ABI_API_MINOR,
	       "these are not the headers of DAOS 2.8: build without them, the libraries are looked at when loaded");
_Static_assert((int)DAOS_EQ_NOWAIT == ABI_EQ_NOWAIT && (int)DAOS_EQ_DESTROY_FORCE == ABI_EQ_DESTROY_FORCE, "queues");
_Static_assert((int)DAOS_ANCHOR_TYPE_EOF == (int)ABI_ANCHOR_EOF && DFS_MAX_NAME == ABI_MAX_NAME, "directories");
_Static_assert(DFS_MAX_FSIZE == ABI_TO_END, "the length that cuts a file off");
_Static_assert((int)DAOS_PC_RO == (int)ABI_PC_RO && (int)DAOS_COO_RO == (int)ABI_COO_RO, "connecting to read");
_Static_assert((int)DAOS_COO_RW == (int)ABI_COO_RW && DFS_BALANCED == ABI_DFS_BALANCED, "connecting to write");
_Static_assert((int)DER_NO_PERM == (int)ABI_DER_NO_PERM && (int)DER_INVAL == (int)ABI_DER_INVAL, "codes");
_Static_assert((int)DER_NONEXIST == (int)ABI_DER_NONEXIST && (int)DER_UNREACH == (int)ABI_DER_UNREACH, "codes");
_Static_assert((int)DER_NOMEM == (int)ABI_DER_NOMEM && (int)DER_TIMEDOUT == (int)ABI_DER_TIMEDOUT, "codes");
_Static_assert((int)DER_BUSY == (int)ABI_DER_BUSY && (int)DER_AGENT_COMM == (int)ABI_DER_AGENT_COMM, "codes");

#else
typedef int dpx_nothing_to_compare_with; /* a file of C must not be empty */
#endif
