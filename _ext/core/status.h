/* What went wrong, said once. Core functions return 0 or a positive errno; callers that report to a user
 * also fill a status. Nothing here allocates, so a status can be filled when memory has run out. */
#ifndef DPX_STATUS_H
#define DPX_STATUS_H

/* The operation that failed; dpx_op_name() gives the word users see in messages. */
enum dpx_op {
	DPX_OP_NONE = 0,
	DPX_OP_OPEN,
	DPX_OP_READ,
	DPX_OP_STAT,
	DPX_OP_LIST,
	DPX_OP_WRITE,
	DPX_OP_RENAME,
	DPX_OP_REMOVE,
	DPX_OP_MKDIR,
};

struct dpx_status {
	int err;        /* 0, or a positive errno; ENODATA: a file ended before its promised size */
	enum dpx_op op; /* what was being done */
	int code;       /* the store's own code (a DER_* number), 0 where it has none */
};

const char *dpx_op_name(enum dpx_op op);

#endif
