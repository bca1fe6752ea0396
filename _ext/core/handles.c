/* The slots of a table of handles. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "handles_file.h"
#include "siphash.h"

/* Slots that a file may have. Of a table that is three quarters full, one file in a hundred million finds none. */
#define WINDOW 64

struct dpx_handle_key dpx_handles_root(const struct dpx_handles *handles, const char *root)
{
	struct dpx_handle_key key;
	dpx_siphash(handles->secret.words, root, strlen(root), key.words);
	return key;
}

struct dpx_handle_key dpx_handles_key(const struct dpx_handle_key *root, const char *path)
{
	struct dpx_handle_key key;
	dpx_siphash(root->words, path, strlen(path), key.words);
	return key;
}

static uint64_t slot_of(const struct dpx_handles *handles, const struct dpx_handle_key *key, unsigned step)
{
	uint64_t place = dpx_handles_mix(dpx_handles_mix(key->words[0], step), key->words[1]);
	return (place >> 32) * handles->slots >> 32; /* there are less than 2^32 */
}

static struct dpx_handles_slot *at(const struct dpx_handles *handles, uint64_t slot)
{
	return (struct dpx_handles_slot *)(handles->map + handles->slots_at) + slot;
}

/* A slot may lie in two pieces. */
static void pieces_of(uint64_t slot, uint64_t piece[2])
{
	uint64_t begins = slot * sizeof(struct dpx_handles_slot);
	piece[0] = begins / DPX_HANDLES_PIECE;
	piece[1] = (begins + sizeof(struct dpx_handles_slot) - 1) / DPX_HANDLES_PIECE;
}

static atomic_uchar *reserved(const struct dpx_handles *handles, uint64_t piece)
{
	return (atomic_uchar *)(handles->map + 4096) + piece;
}

/* What lies behind the end of a mapped file, or where there is no room for it, kills who looks at it. */
static int is_there(const struct dpx_handles *handles, uint64_t slot)
{
	uint64_t piece[2];
	pieces_of(slot, piece);
	return atomic_load_explicit(reserved(handles, piece[0]), memory_order_acquire) &&
	       atomic_load_explicit(reserved(handles, piece[1]), memory_order_acquire);
}

static int is_whole(const struct dpx_handles *handles)
{
	struct stat st;
	return fstat(handles->fd, &st) == 0 && (uint64_t)st.st_size >= handles->bytes;
}

static int reserve_range(int fd, uint64_t offset, uint64_t len)
{
#ifdef __linux__
	int rc;
	do
		rc = fallocate(fd, 0, (off_t)offset, (off_t)len);
	while (rc && errno == EINTR);
	return rc ? errno : 0;
#else
	(void)fd;
	(void)offset;
	(void)len;
	return ENOTSUP;
#endif
}

static int reserve(struct dpx_handles *handles, uint64_t slot)
{
	uint64_t piece[2];
	pieces_of(slot, piece);
	for (int i = 0; i < 2; i++) {
		if (atomic_load_explicit(reserved(handles, piece[i]), memory_order_acquire))
			continue;
		uint64_t offset = handles->slots_at + piece[i] * DPX_HANDLES_PIECE;
		uint64_t left = handles->bytes - offset;
		int rc = reserve_range(handles->fd, offset, left < DPX_HANDLES_PIECE ? left : DPX_HANDLES_PIECE);
		if (rc)
			return rc;
		atomic_store_explicit(reserved(handles, piece[i]), 1, memory_order_release);
	}
	return 0;
}

uint64_t dpx_handles_mix(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * 0x9e3779b97f4a7c15;
	return sum ^ sum >> 32;
}

/* What stands in a slot besides its count of changes. */
struct content {
	uint64_t key[2], size, handle[DPX_SLOT_HANDLE_WORDS + 1];
};

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* The length and the checksum share a word. */
static uint64_t length_and_check(const struct content *content, size_t len)
{
	uint64_t sum = dpx_handles_mix(content->size, len);
	sum = dpx_handles_mix(dpx_handles_mix(sum, content->key[0]), content->key[1]);
	for (size_t i = 1; i <= DPX_SLOT_HANDLE_WORDS; i++)
		sum = dpx_handles_mix(sum, content->handle[i]);
	return sum << 16 | len;
}

static int is_sound(const struct content *content)
{
	size_t len = content->handle[0] & 0xffff;
	return len <= DPX_HANDLE_BYTES && content->handle[0] == length_and_check(content, len);
}

static int is_key(const struct dpx_handles_slot *slot, const struct dpx_handle_key *key)
{
	return load(&slot->key[0]) == key->words[0] && load(&slot->key[1]) == key->words[1];
}

/* 0 if it was changed meanwhile, or is not sound. */
static int copy_out(const struct dpx_handles_slot *slot, uint64_t changes, struct content *out)
{
	out->key[0] = load(&slot->key[0]);
	out->key[1] = load(&slot->key[1]);
	out->size = load(&slot->size);
	for (size_t i = 0; i <= DPX_SLOT_HANDLE_WORDS; i++)
		out->handle[i] = load(&slot->handle[i]);
	return load(&slot->changes) == changes && is_sound(out);
}

int dpx_handles_get(const struct dpx_handles *handles, const struct dpx_handle_key *key, struct dpx_handle *out)
{
	struct content content;
	if (!is_whole(handles))
		return 0;
	for (unsigned step = 0; step < WINDOW; step++) {
		uint64_t number = slot_of(handles, key, step);
		if (!is_there(handles, number))
			return 0;
		const struct dpx_handles_slot *slot = at(handles, number);
		uint64_t changes = load(&slot->changes);
		if (changes == 0)
			return 0;
		if (changes & 1 || !is_key(slot, key))
			continue;
		if (!copy_out(slot, changes, &content) || content.key[0] != key->words[0] ||
		    content.key[1] != key->words[1])
			return 0;
		out->size = content.size;
		out->len = content.handle[0] & 0xffff;
		memcpy(out->bytes, &content.handle[1], DPX_HANDLE_BYTES);
		return 1;
	}
	return 0;
}

static void copy_in(struct dpx_handles_slot *slot, const struct dpx_handle_key *key, const struct dpx_handle *handle)
{
	struct content content = {.key = {key->words[0], key->words[1]}, .size = handle->size};
	memcpy(&content.handle[1], handle->bytes, handle->len);
	content.handle[0] = length_and_check(&content, handle->len);
	store(&slot->key[0], content.key[0]);
	store(&slot->key[1], content.key[1]);
	store(&slot->size, content.size);
	for (size_t i = 0; i <= DPX_SLOT_HANDLE_WORDS; i++)
		store(&slot->handle[i], content.handle[i]);
}

void dpx_handles_put(struct dpx_handles *handles, const struct dpx_handle_key *key, const struct dpx_handle *handle)
{
	if (!handles->writable || handle->len > DPX_HANDLE_BYTES || !is_whole(handles))
		return;
	for (unsigned step = 0; step < WINDOW; step++) {
		uint64_t number = slot_of(handles, key, step);
		if (reserve(handles, number))
			return;
		struct dpx_handles_slot *slot = at(handles, number);
		uint64_t changes = load(&slot->changes);
		/* One that is being changed may be left so for good, by a process that was killed. */
		if (changes & 1 || (changes && !is_key(slot, key)))
			continue;
		if (!atomic_compare_exchange_strong_explicit(&slot->changes, &changes, changes + 1,
							     memory_order_acq_rel, memory_order_relaxed))
			continue; /* somebody was faster */
		copy_in(slot, key, handle);
		store(&slot->changes, changes + 2);
		return;
	}
}
