#include "buffers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Four classes for each doubling, from 4 KiB on. */
#define LEAST_BYTES ((size_t)4096)
#define CLASSES_PER_DOUBLING 4
#define CLASSES (CLASSES_PER_DOUBLING * 36)
#define ALIGNMENT 64
#define ALWAYS_KEPT ((int64_t)8 << 20)

/* From here on memory is mapped, not allocated: what is given back leaves the process at once, whatever the
 * allocator's arenas look like. Under AddressSanitizer all of it is allocated, so that overruns show. */
#ifdef __SANITIZE_ADDRESS__
#define MAPPED_BYTES SIZE_MAX
#else
#define MAPPED_BYTES ((size_t)256 << 10)
#endif

struct dpx_buffers {
	pthread_mutex_t lock;
	atomic_uint_fast64_t refs; /* the owner's and one for each buffer in use */
	int64_t keep_bytes;        /* these under the lock */
	int closed;                /* nobody will ask for a buffer again */
	struct dpx_buffers_stats stats;
	struct dpx_buffer *free[CLASSES]; /* owned */
};

int dpx_buffers_create(struct dpx_buffers **out)
{
	struct dpx_buffers *buffers = calloc(1, sizeof(*buffers));
	if (!buffers)
		return ENOMEM;
	int rc = pthread_mutex_init(&buffers->lock, NULL);
	if (rc) {
		free(buffers);
		return rc;
	}
	atomic_init(&buffers->refs, 1);
	*out = buffers;
	return 0;
}

/* Index and capacity of the class for so many bytes. */
static unsigned class_of(size_t bytes, size_t *capacity)
{
	size_t base = LEAST_BYTES;
	unsigned class = 0;
	while (bytes > base * 2 && class + CLASSES_PER_DOUBLING < CLASSES - 1) {
		base *= 2;
		class += CLASSES_PER_DOUBLING;
	}
	size_t step = base / CLASSES_PER_DOUBLING;
	size_t steps = bytes > base ? (bytes - base + step - 1) / step : 0;
	*capacity = base + steps * step;
	return class + (unsigned)steps;
}

size_t dpx_buffers_capacity(size_t bytes)
{
	size_t capacity;
	class_of(bytes, &capacity);
	return capacity;
}

static void free_buffer(struct dpx_buffer *buffer)
{
	if (buffer->capacity >= MAPPED_BYTES)
		munmap(buffer->data, buffer->capacity);
	else
		free(buffer->data);
	free(buffer);
}

/* Give kept memory back until at most so much is kept, the largest first. Under the lock. */
static void trim(struct dpx_buffers *buffers, uint64_t most)
{
	for (unsigned class = CLASSES; class-- > 0 && buffers->stats.kept_bytes > most;) {
		while (buffers->free[class] && buffers->stats.kept_bytes > most) {
			struct dpx_buffer *buffer = buffers->free[class];
			buffers->free[class] = buffer->next;
			buffers->stats.kept_bytes -= buffer->capacity;
			free_buffer(buffer);
		}
	}
}

/* What may be kept beside `in_use` bytes, under the lock. */
static uint64_t allowance(const struct dpx_buffers *buffers, uint64_t in_use)
{
	uint64_t most = buffers->keep_bytes > ALWAYS_KEPT ? (uint64_t)buffers->keep_bytes : ALWAYS_KEPT;
	return most > in_use && !buffers->closed ? most - in_use : 0;
}

static void drop(struct dpx_buffers *buffers)
{
	if (atomic_fetch_sub(&buffers->refs, 1) != 1)
		return;
	trim(buffers, 0);
	pthread_mutex_destroy(&buffers->lock);
	free(buffers);
}

void dpx_buffers_release(struct dpx_buffers *buffers)
{
	if (!buffers)
		return;
	pthread_mutex_lock(&buffers->lock);
	buffers->closed = 1;
	trim(buffers, 0);
	pthread_mutex_unlock(&buffers->lock);
	drop(buffers);
}

void dpx_buffers_keep(struct dpx_buffers *buffers, int64_t bytes)
{
	pthread_mutex_lock(&buffers->lock);
	buffers->keep_bytes += bytes;
	trim(buffers, allowance(buffers, buffers->stats.live_bytes));
	pthread_mutex_unlock(&buffers->lock);
}

static void *make_room(size_t capacity)
{
	void *data = NULL;
	if (capacity < MAPPED_BYTES)
		return posix_memalign(&data, ALIGNMENT, capacity) ? NULL : data;
	data = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return data == MAP_FAILED ? NULL : data;
}

static struct dpx_buffer *make_buffer(size_t capacity)
{
	struct dpx_buffer *buffer = malloc(sizeof(*buffer));
	void *data = buffer ? make_room(capacity) : NULL;
	if (!data) {
		free(buffer);
		return NULL;
	}
	*buffer = (struct dpx_buffer){.data = data, .capacity = capacity};
	return buffer;
}

int dpx_buffers_get(struct dpx_buffers *buffers, size_t bytes, struct dpx_buffer **out)
{
	size_t capacity;
	unsigned class = class_of(bytes, &capacity);
	if (capacity < bytes || class >= CLASSES)
		return ENOMEM;
	pthread_mutex_lock(&buffers->lock);
	struct dpx_buffer *buffer = buffers->free[class];
	if (buffer) {
		buffers->free[class] = buffer->next;
		buffers->stats.kept_bytes -= capacity;
	} else {
		trim(buffers, allowance(buffers, buffers->stats.live_bytes + capacity));
	}
	buffers->stats.live++;
	buffers->stats.live_bytes += capacity;
	pthread_mutex_unlock(&buffers->lock);
	if (!buffer)
		buffer = make_buffer(capacity);
	if (!buffer) {
		pthread_mutex_lock(&buffers->lock);
		buffers->stats.live--;
		buffers->stats.live_bytes -= capacity;
		pthread_mutex_unlock(&buffers->lock);
		return ENOMEM;
	}
	atomic_fetch_add(&buffers->refs, 1);
	buffer->pool = buffers;
	buffer->next = NULL;
	*out = buffer;
	return 0;
}

void dpx_buffer_release(struct dpx_buffer *buffer)
{
	if (!buffer)
		return;
	struct dpx_buffers *buffers = buffer->pool;
	size_t capacity;
	unsigned class = class_of(buffer->capacity, &capacity);
	pthread_mutex_lock(&buffers->lock);
	buffers->stats.live--;
	buffers->stats.live_bytes -= buffer->capacity;
	int keep = buffers->stats.kept_bytes + buffer->capacity <= allowance(buffers, buffers->stats.live_bytes);
	if (keep) {
		buffer->next = buffers->free[class];
		buffers->free[class] = buffer;
		buffers->stats.kept_bytes += buffer->capacity;
	}
	pthread_mutex_unlock(&buffers->lock);
	if (!keep)
		free_buffer(buffer);
	drop(buffers);
}

void dpx_buffers_stats(struct dpx_buffers *buffers, struct dpx_buffers_stats *out)
{
	pthread_mutex_lock(&buffers->lock);
	*out = buffers->stats;
	pthread_mutex_unlock(&buffers->lock);
}
