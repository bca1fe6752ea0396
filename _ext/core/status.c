#include "status.h"

#include <stddef.h>

const char *dpx_op_name(enum dpx_op op)
{
	static const char *const names[] = {
		[DPX_OP_NONE] = "use",     [DPX_OP_OPEN] = "open",     [DPX_OP_READ] = "read",
		[DPX_OP_STAT] = "stat",    [DPX_OP_LIST] = "list",     [DPX_OP_WRITE] = "write",
		[DPX_OP_RENAME] = "rename", [DPX_OP_REMOVE] = "remove", [DPX_OP_MKDIR] = "mkdir",
	};
	return (size_t)op < sizeof(names) / sizeof(names[0]) ? names[op] : "use";
}
