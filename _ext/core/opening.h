/* A session that is opened on a thread of its own, for those who must not be held up by it: connecting to a store that
 * does not answer takes as long as that store's time-outs. */
#ifndef DPX_OPENING_H
#define DPX_OPENING_H

#include "session.h"

struct dpx_opening;

/* All of spec is copied. Where no thread can be started, the session is opened by this call. *out: owned by the caller
 * until dpx_opening_end(). 0 or an errno of this call's own. */
int dpx_opening_start(const struct dpx_session_spec *spec, struct dpx_opening **out);

/* What dpx_session_open() returned, after waiting at most wait_ms for it; or EAGAIN, which that never returns. */
int dpx_opening_wait(struct dpx_opening *opening, unsigned wait_ms, struct dpx_session **session,
		     char why[DPX_WHY_ROOM]);

/* A session that nobody has been given, then or later, is closed. */
void dpx_opening_end(struct dpx_opening *opening);

#endif
