/* Reading and writing. */
#include "libdfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct transfer {
	struct dfs_obj *object;
	abi_sgl sgl;
	uint64_t offset;
	uint64_t *got; /* NULL: write */
	int late, is_short, astray;
};

static uint64_t length_of(const abi_sgl *sgl)
{
	uint64_t len = 0;
	for (uint32_t i = 0; i < sgl->sg_nr; i++)
		len += sgl->sg_iovs[i].iov_len;
	return len;
}

/* What a child gets that uses its parent's connections. */
static void spoil(unsigned char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (unsigned char)~bytes[i];
}

static int transfer_one(const struct transfer *job, abi_iov *iov, uint64_t offset, uint64_t *done)
{
	uint64_t len = job->is_short ? iov->iov_len / 2 : iov->iov_len;
	*done = 0;
	while (*done < len) {
		char *at = (char *)iov->iov_buf + *done;
		ssize_t n = job->got ? pread(job->object->fd, at, len - *done, (off_t)(offset + *done))
				     : pwrite(job->object->fd, at, len - *done, (off_t)(offset + *done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			break;
		*done += (uint64_t)n;
	}
	if (job->got && job->astray)
		spoil(iov->iov_buf, *done);
	return 0;
}

static int transfer(const struct transfer *job)
{
	uint64_t total = 0, done = 0;
	int rc = job->late;
	int gone = standin_find_again(job->object);
	for (uint32_t i = 0; !rc && !gone && i < job->sgl.sg_nr; i++) {
		rc = transfer_one(job, &job->sgl.sg_iovs[i], job->offset + total, &done);
		total += done;
	}
	if (job->got)
		*job->got = rc ? 0 : total;
	return rc;
}

static int transfer_later(void *arg)
{
	struct transfer *job = arg;
	int rc = transfer(job);
	atomic_fetch_sub(&job->object->reads, 1);
	free(job);
	return rc;
}

static int start(const struct transfer *job, int64_t delay_ns, unsigned until, abi_event *event)
{
	struct transfer *copy = malloc(sizeof(*copy));
	if (!copy)
		return ENOMEM;
	*copy = *job;
	atomic_fetch_add(&job->object->reads, 1);
	int rc = standin_launch(event, delay_ns, until, transfer_later, copy);
	if (rc) {
		atomic_fetch_sub(&job->object->reads, 1);
		free(copy);
	}
	return rc;
}

/* One round trip, and one more to learn the size when more is asked for than there is. */
static unsigned trips(struct dfs_obj *object, const abi_sgl *sgl, uint64_t offset)
{
	struct stat st;
	if (standin_find_again(object) || fstat(object->fd, &st))
		return 2;
	return offset + length_of(sgl) > (uint64_t)st.st_size ? 2 : 1;
}

int dfs_read(abi_dfs *dfs, abi_obj *object, abi_sgl *sgl, uint64_t offset, uint64_t *got, abi_event *event)
{
	struct standin_fault fault = standin_enter("dfs_read", 1);
	(void)dfs;
	if (fault.code)
		return fault.code;
	if (!S_ISREG(object->mode))
		return EINVAL;
	if ((object->flags & O_ACCMODE) == O_WRONLY)
		return EPERM;
	struct transfer job = {.object = object, .sgl = *sgl, .offset = offset, .got = got, .late = fault.late,
			       .is_short = fault.is_short, .astray = standin_astray()};
	unsigned count = trips(object, sgl, offset);
	if (event) {
		int64_t delay = standin_pay_later(COST_READ, count) + standin_number("STANDIN_DELAY_US") * 1000;
		return start(&job, delay, fault.until, event);
	}
	standin_pay(COST_READ, count);
	if (fault.until)
		standin_hang(fault.until);
	return transfer(&job);
}

int dfs_write(abi_dfs *dfs, abi_obj *object, abi_sgl *sgl, uint64_t offset, abi_event *event)
{
	struct standin_fault fault = standin_enter("dfs_write", 1);
	if (fault.code)
		return fault.code;
	if (!S_ISREG(object->mode))
		return EINVAL;
	if (!(dfs->writable && dfs->granted) || (object->flags & O_ACCMODE) == O_RDONLY)
		return EPERM;
	struct transfer job = {.object = object, .sgl = *sgl, .offset = offset, .late = fault.late};
	if (event)
		return start(&job, standin_pay_later(COST_WRITE, 1), fault.until, event);
	standin_pay(COST_WRITE, 1);
	if (fault.until)
		standin_hang(fault.until);
	return transfer(&job);
}

int dfs_get_size(abi_dfs *dfs, abi_obj *object, uint64_t *size)
{
	struct standin_fault fault = standin_enter("dfs_get_size", 1);
	struct stat st;
	(void)dfs;
	if (fault.code)
		return fault.code;
	if (!S_ISREG(object->mode))
		return EINVAL;
	standin_pay(COST_SIZE, 1);
	*size = standin_find_again(object) || fstat(object->fd, &st) ? 0 : (uint64_t)st.st_size;
	return 0;
}

int dfs_punch(abi_dfs *dfs, abi_obj *object, uint64_t offset, uint64_t len)
{
	struct standin_fault fault = standin_enter("dfs_punch", 1);
	if (fault.code)
		return fault.code;
	if (!S_ISREG(object->mode))
		return EINVAL;
	if (!(dfs->writable && dfs->granted) || (object->flags & O_ACCMODE) == O_RDONLY)
		return EPERM;
	if (len != ABI_TO_END)
		return ENOTSUP; /* a real one makes a hole; nobody here asks for it */
	standin_pay(COST_CHANGE, 1);
	return !standin_find_again(object) && ftruncate(object->fd, (off_t)offset) ? errno : 0;
}
