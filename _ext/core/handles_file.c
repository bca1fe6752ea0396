/* Opening, making and mapping the file of a table of handles. */
#include "handles_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "siphash.h"

#define MAGIC UINT64_C(0x0100646e61687084) /* read on a machine with the other byte order, it is another one */
#define HEADER_BYTES 4096
#define SLOT_BYTES sizeof(struct dpx_handles_slot)
#define MOST_SLOTS ((uint64_t)UINT32_MAX)

/* Others may make and replace the file at the same time. */
#define MOST_TRIES 4

static uint64_t check_of(const struct dpx_handles_header *header)
{
	uint64_t sum = dpx_handles_mix(header->magic, header->slots);
	for (int i = 0; i < 2; i++)
		sum = dpx_handles_mix(dpx_handles_mix(sum, header->identity.words[i]), header->secret.words[i]);
	return sum;
}

static struct dpx_handle_key hashed(const char *identity)
{
	static const uint64_t nobody[2];
	struct dpx_handle_key key;
	dpx_siphash(nobody, identity, strlen(identity), key.words);
	return key;
}

static uint64_t slots_begin(uint64_t slots)
{
	uint64_t pieces = (slots * SLOT_BYTES + DPX_HANDLES_PIECE - 1) / DPX_HANDLES_PIECE;
	return HEADER_BYTES + (pieces + 4095) / 4096 * 4096;
}

static uint64_t file_bytes(uint64_t slots)
{
	return slots_begin(slots) + slots * SLOT_BYTES;
}

/* With a quarter to spare each finds a place near its own; 0: not even one slot has room. */
static uint64_t slots_for(uint64_t files, uint64_t max_bytes)
{
	uint64_t most = files < MOST_SLOTS / 2 ? files + files / 3 + 16 : MOST_SLOTS;
	if (max_bytes <= 2 * HEADER_BYTES)
		return 0;
	uint64_t fit = (max_bytes - 2 * HEADER_BYTES) / SLOT_BYTES;
	while (fit && file_bytes(fit) > max_bytes)
		fit--;
	return fit < most ? fit : most;
}

int dpx_handles_secret(struct dpx_handle_key *secret)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	ssize_t got = read(fd, secret->words, sizeof(secret->words));
	close(fd);
	return got == (ssize_t)sizeof(secret->words) ? 0 : EIO;
}

/* Header and pieces are written, not left out: so there is room for them. */
static int write_head(int fd, const struct dpx_handles_header *header)
{
	char block[HEADER_BYTES] = {0};
	uint64_t bytes = slots_begin(header->slots);
	memcpy(block, header, sizeof(*header));
	for (uint64_t at = 0; at < bytes; at += sizeof(block)) {
		ssize_t done = pwrite(fd, block, sizeof(block), (off_t)at);
		if (done != sizeof(block))
			return done < 0 ? errno : ENOSPC;
		memset(block, 0, sizeof(*header));
	}
	return ftruncate(fd, (off_t)file_bytes(header->slots)) ? errno : 0;
}

/* What is at the path: 0; ESTALE: a table, and not the one that is wanted; EEXIST: none at all. */
static int look(int fd, const struct dpx_handle_key *identity, struct dpx_handles *handles)
{
	struct dpx_handles_header header;
	struct stat st;
	if (fstat(fd, &st))
		return errno;
	if (!S_ISREG(st.st_mode) || pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
	    header.magic != MAGIC)
		return EEXIST;
	if (header.check != check_of(&header) || header.slots == 0 || header.slots > MOST_SLOTS ||
	    (uint64_t)st.st_size != file_bytes(header.slots) || memcmp(&header.identity, identity, sizeof(*identity)) != 0)
		return ESTALE;
	handles->slots = header.slots;
	handles->slots_at = slots_begin(header.slots);
	handles->bytes = file_bytes(header.slots);
	handles->secret = header.secret;
	return 0;
}

/* For reading and writing, or where that is not allowed, for reading. */
static int open_either(const char *path, int *writable)
{
	int more = O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW; /* a FIFO must not hang */
	int fd = open(path, O_RDWR | more);
	*writable = fd >= 0;
	if (fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM))
		fd = open(path, O_RDONLY | more);
	return fd;
}

static int open_there(const char *path, const struct dpx_handle_key *identity, struct dpx_handles *handles)
{
	int writable, fd = open_either(path, &writable);
	if (fd < 0)
		return errno;
	int rc = look(fd, identity, handles);
	if (!rc) {
		int protection = PROT_READ | (writable ? PROT_WRITE : 0);
		void *map = mmap(NULL, handles->bytes, protection, MAP_SHARED, fd, 0);
		rc = map == MAP_FAILED ? errno : 0;
		handles->map = map;
	}
	handles->fd = fd;
	handles->writable = writable;
	if (rc)
		close(fd);
	return rc;
}

/* A new table beside the path: its name. */
static int make_aside(const char *path, const struct dpx_handles_header *header, char name[PATH_MAX])
{
	if (!header->slots)
		return ENOSPC;
	if (snprintf(name, PATH_MAX, "%s.%016llx", path, (unsigned long long)header->check) >= PATH_MAX)
		return ENAMETOOLONG;
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return errno;
	int rc = write_head(fd, header);
	close(fd);
	if (rc)
		unlink(name);
	return rc;
}

static struct dpx_handles_header header_of(const struct dpx_handle_key *identity, uint64_t slots,
					   const struct dpx_handle_key *secret)
{
	struct dpx_handles_header header = {.magic = MAGIC, .slots = slots, .identity = *identity, .secret = *secret};
	header.check = check_of(&header);
	return header;
}

/* A new table at the path, complete before it appears; replaces: in place of what is there. */
static int make(const char *path, const struct dpx_handle_key *identity, uint64_t slots, int replaces)
{
	char name[PATH_MAX];
	struct dpx_handle_key secret = {0};
	int rc = dpx_handles_secret(&secret);
	if (rc)
		return rc;
	struct dpx_handles_header header = header_of(identity, slots, &secret);
	rc = make_aside(path, &header, name);
	if (rc)
		return rc;
	if (replaces || (link(name, path) && errno != EEXIST))
		rc = rename(name, path) ? errno : 0; /* also where a file has one name only */
	unlink(name);
	return rc;
}

int dpx_handles_open(const char *path, const char *identity, uint64_t files, uint64_t max_bytes,
		     struct dpx_handles **out)
{
	struct dpx_handle_key wanted = hashed(identity);
	struct dpx_handles *handles = calloc(1, sizeof(*handles));
	if (!handles)
		return ENOMEM;
	atomic_init(&handles->refs, 1);
	int rc = EAGAIN;
	for (int i = 0; rc && i < MOST_TRIES; i++) {
		rc = open_there(path, &wanted, handles);
		if (rc != ENOENT && rc != ESTALE)
			break;
		int made = make(path, &wanted, slots_for(files, max_bytes), rc == ESTALE);
		if (made) {
			rc = made;
			break;
		}
	}
	if (rc)
		free(handles);
	else
		*out = handles;
	return rc;
}

/* What stands at the path may be replaced: nothing, or a table. */
static int is_ours(const char *path, const struct dpx_handle_key *identity)
{
	struct dpx_handles there;
	int writable, fd = open_either(path, &writable);
	if (fd < 0)
		return errno == ENOENT;
	int rc = look(fd, identity, &there);
	close(fd);
	return rc == 0 || rc == ESTALE;
}

int dpx_handles_make(const char *path, const char *identity, uint64_t files, uint64_t max_bytes,
		     const struct dpx_handle_key *secret, int (*fill)(void *arg, struct dpx_handles *handles), void *arg)
{
	char name[PATH_MAX];
	struct dpx_handle_key wanted = hashed(identity);
	struct dpx_handles_header header = header_of(&wanted, slots_for(files, max_bytes), secret);
	if (!is_ours(path, &wanted))
		return EEXIST;
	struct dpx_handles *handles = calloc(1, sizeof(*handles));
	int rc = handles ? make_aside(path, &header, name) : ENOMEM;
	if (rc) {
		free(handles);
		return rc;
	}
	atomic_init(&handles->refs, 1);
	rc = open_there(name, &wanted, handles);
	if (rc) {
		free(handles);
	} else {
		rc = fill(arg, handles);
		dpx_handles_release(handles);
	}
	if (!rc && rename(name, path))
		rc = errno;
	if (rc)
		unlink(name);
	return rc;
}

struct dpx_handles *dpx_handles_retain(struct dpx_handles *handles)
{
	atomic_fetch_add_explicit(&handles->refs, 1, memory_order_relaxed);
	return handles;
}

void dpx_handles_release(struct dpx_handles *handles)
{
	if (!handles || atomic_fetch_sub(&handles->refs, 1) != 1)
		return;
	munmap(handles->map, handles->bytes);
	close(handles->fd);
	free(handles);
}
