/* One thread at a time through an object that is used from several: a lock that can be waited for in slices, and
 * that tells a thread which holds it already. */
#ifndef DPX_GATE_H
#define DPX_GATE_H

#include <pthread.h>

struct dpx_gate {
	pthread_mutex_t lock;
	pthread_cond_t left;
	int taken;
	pthread_t holder; /* while taken */
};

/* 0 or an errno. */
int dpx_gate_init(struct dpx_gate *gate);
void dpx_gate_destroy(struct dpx_gate *gate);

/* 0; ETIMEDOUT after wait_ms; EDEADLK: the calling thread is inside. */
int dpx_gate_enter(struct dpx_gate *gate, unsigned wait_ms);
void dpx_gate_leave(struct dpx_gate *gate);

#endif
