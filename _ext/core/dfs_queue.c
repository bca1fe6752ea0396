/* Many reads under way that one thread looks after: an event queue of libdaos and the events of its reads. */
#include <errno.h>
#include <stdlib.h>

#include "dfs_fork.h"
#include "dfs_mount.h"

/* Each of the first 17 has network resources of its own; later ones would share them. */
#define QUEUES_MOST 16

struct flight {
	abi_event event; /* first: what a poll gives is the flight */
	abi_sgl sgl;
	abi_iov iov;
	uint64_t got; /* written by libdfs */
	void *tag;
	struct flight *next; /* of those that are free */
};

struct dpx_dfs_queue {
	struct dpx_dfs_mount *mount; /* borrowed */
	abi_handle handle;           /* owned */
	struct flight flights[DPX_QUEUE_FLIGHTS];
	pthread_mutex_t lock;
	struct flight *free; /* under the lock */
	struct dpx_dfs_queue *next; /* of those that are idle */
};

static void destroy(struct dpx_dfs_queue *queue, unsigned events)
{
	const struct dpx_dfs *dfs = queue->mount->dfs;
	for (unsigned i = 0; i < events; i++)
		dfs->daos_event_fini(&queue->flights[i].event);
	dfs->daos_eq_destroy(queue->handle, 0);
	pthread_mutex_destroy(&queue->lock);
	free(queue);
}

static int create(struct dpx_dfs_mount *mount, struct dpx_dfs_queue **out)
{
	struct dpx_dfs_queue *queue = calloc(1, sizeof(*queue));
	if (!queue)
		return ENOMEM;
	queue->mount = mount;
	int rc = pthread_mutex_init(&queue->lock, NULL);
	if (rc) {
		free(queue);
		return rc;
	}
	rc = mount->dfs->daos_eq_create(&queue->handle);
	if (rc) {
		pthread_mutex_destroy(&queue->lock);
		free(queue);
		return EIO;
	}
	for (unsigned i = 0; i < DPX_QUEUE_FLIGHTS; i++) {
		rc = mount->dfs->daos_event_init(&queue->flights[i].event, queue->handle, NULL);
		if (rc) {
			destroy(queue, i);
			return EIO;
		}
		queue->flights[i].next = queue->free;
		queue->free = &queue->flights[i];
	}
	*out = queue;
	return 0;
}

int dpx_dfs_queue_open(void *mount, void **out)
{
	struct dpx_dfs_mount *made = mount;
	struct dpx_dfs_queue *queue;
	pthread_mutex_lock(&made->lock);
	queue = made->idle;
	if (queue)
		made->idle = queue->next;
	int rc = queue || made->queues < QUEUES_MOST ? 0 : EAGAIN;
	made->queues += !queue && !rc;
	pthread_mutex_unlock(&made->lock);
	if (!queue && !rc) {
		dpx_dfs_hold_forks();
		rc = create(made, &queue);
		dpx_dfs_let_forks();
		if (rc) {
			pthread_mutex_lock(&made->lock);
			made->queues--;
			pthread_mutex_unlock(&made->lock);
		}
	}
	*out = queue;
	return rc;
}

void dpx_dfs_queue_close(void *queue)
{
	struct dpx_dfs_queue *made = queue;
	struct dpx_dfs_mount *mount = made->mount;
	pthread_mutex_lock(&mount->lock);
	made->next = mount->idle;
	mount->idle = made;
	pthread_mutex_unlock(&mount->lock);
}

void dpx_dfs_queues_free(struct dpx_dfs_mount *mount)
{
	for (struct dpx_dfs_queue *queue = mount->idle, *next; queue; queue = next) {
		next = queue->next;
		destroy(queue, DPX_QUEUE_FLIGHTS);
	}
}

static void give_back(struct dpx_dfs_queue *queue, struct flight *flight)
{
	pthread_mutex_lock(&queue->lock);
	flight->next = queue->free;
	queue->free = flight;
	pthread_mutex_unlock(&queue->lock);
}

int dpx_dfs_read_start(void *queue, void *file, void *buf, size_t len, uint64_t offset, void *tag)
{
	struct dpx_dfs_queue *made = queue;
	struct dpx_dfs_mount *mount = made->mount;
	struct dpx_dfs_file *opened = file;
	pthread_mutex_lock(&made->lock);
	struct flight *flight = made->free;
	if (flight)
		made->free = flight->next;
	pthread_mutex_unlock(&made->lock);
	if (!flight)
		return EAGAIN;
	flight->tag = tag;
	flight->got = 0;
	flight->iov = (abi_iov){.iov_buf = buf, .iov_buf_len = len, .iov_len = len};
	flight->sgl = (abi_sgl){.sg_nr = 1, .sg_iovs = &flight->iov};
	int rc = mount->dfs->dfs_read(mount->mount, opened->obj, &flight->sgl, offset, &flight->got, &flight->event);
	if (rc)
		give_back(made, flight);
	return rc;
}

static void land(struct dpx_dfs_queue *queue, struct flight *flight, struct dpx_landing *landing)
{
	size_t len = flight->iov.iov_buf_len;
	int rc = flight->event.ev_error;
	*landing = (struct dpx_landing){.tag = flight->tag, .err = rc < 0 ? EIO : rc};
	if (!rc)
		landing->got = flight->got <= len ? (size_t)flight->got : len;
	give_back(queue, flight);
}

int dpx_dfs_read_poll(void *queue, unsigned wait_ms, struct dpx_landing *landed, unsigned *count)
{
	struct dpx_dfs_queue *made = queue;
	abi_event *done[DPX_QUEUE_LANDINGS]; /* as long as the count below says, or the stack is overwritten */
	int n = made->mount->dfs->daos_eq_poll(made->handle, 1, (int64_t)wait_ms * 1000, DPX_QUEUE_LANDINGS, done);
	*count = n < 0 ? 0 : (unsigned)n;
	for (unsigned i = 0; i < *count; i++)
		land(made, (struct flight *)done[i], &landed[i]);
	return n < 0 ? EIO : 0;
}
