#include "standin.h"

#include <stdio.h>

const char *d_errstr(int code)
{
	static const struct {
		int code;
		const char *name;
	} known[] = {
		{0, "DER_SUCCESS"},         {1001, "DER_NO_PERM"},  {1003, "DER_INVAL"},     {1005, "DER_NONEXIST"},
		{1006, "DER_UNREACH"},      {1009, "DER_NOMEM"},    {1011, "DER_TIMEDOUT"},  {1012, "DER_BUSY"},
		{1015, "DER_UNINIT"},       {2001, "DER_IO"},       {2034, "DER_AGENT_COMM"},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].code == (code < 0 ? -code : code))
			return known[i].name;
	return "DER_UNKNOWN";
}
