#include "gate.h"

#include <errno.h>

#include "monotonic.h"

int dpx_gate_init(struct dpx_gate *gate)
{
	int rc = pthread_mutex_init(&gate->lock, NULL);
	if (rc)
		return rc;
	rc = dpx_cond_init(&gate->left);
	if (rc)
		pthread_mutex_destroy(&gate->lock);
	gate->taken = 0;
	return rc;
}

void dpx_gate_destroy(struct dpx_gate *gate)
{
	pthread_cond_destroy(&gate->left);
	pthread_mutex_destroy(&gate->lock);
}

int dpx_gate_enter(struct dpx_gate *gate, unsigned wait_ms)
{
	int rc = 0;
	int64_t until = 0;
	pthread_mutex_lock(&gate->lock);
	if (gate->taken && pthread_equal(gate->holder, pthread_self()))
		rc = EDEADLK;
	while (gate->taken && !rc) {
		if (!until)
			until = dpx_now_ns() + (int64_t)wait_ms * 1000000;
		rc = dpx_cond_wait_until(&gate->left, &gate->lock, until);
	}
	if (!gate->taken) {
		rc = 0;
		gate->taken = 1;
		gate->holder = pthread_self();
	}
	pthread_mutex_unlock(&gate->lock);
	return rc;
}

void dpx_gate_leave(struct dpx_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->taken = 0;
	pthread_cond_signal(&gate->left);
	pthread_mutex_unlock(&gate->lock);
}
