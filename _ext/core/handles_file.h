/* The file behind a table of handles, as the two files of it share it. All numbers are the machine's own: a file that
 * came from another kind of machine has another magic number.
 *
 *     header   4096 bytes
 *     pieces   one byte for each DPX_HANDLES_PIECE bytes of slots: 1 when room is reserved for them
 *     slots    from the next multiple of 4096 bytes on
 */
#ifndef DPX_HANDLES_FILE_H
#define DPX_HANDLES_FILE_H

#include <stdatomic.h>

#include "handles.h"

#define DPX_HANDLES_PIECE ((uint64_t)1 << 20)

struct dpx_handles_header {
	uint64_t magic; /* with the version in it */
	uint64_t slots;
	struct dpx_handle_key identity; /* hashed */
	struct dpx_handle_key secret;   /* random */
	uint64_t check;                 /* of all before */
};

/* The words of a handle lie between those before and those behind it; unused ones are zero. */
#define DPX_SLOT_HANDLE_WORDS (DPX_HANDLE_BYTES / 8)

struct dpx_handles_slot {
	_Atomic uint64_t changes; /* 0: never used; odd: just being changed */
	_Atomic uint64_t key[2];
	_Atomic uint64_t size;
	_Atomic uint64_t handle[DPX_SLOT_HANDLE_WORDS + 1]; /* the length in bytes first */
};
_Static_assert(sizeof(struct dpx_handles_slot) == 384, "a slot has six cache lines");

struct dpx_handles {
	atomic_uint refs;
	int fd;         /* owned */
	int writable;
	char *map;      /* owned */
	uint64_t bytes; /* of the file */
	uint64_t slots, slots_at;
	struct dpx_handle_key secret;
};

/* A key that nobody can guess. 0 or an errno. */
int dpx_handles_secret(struct dpx_handle_key *secret);

/* Make a table as dpx_handles_open() would, with this key of its own, in place of one that is there; fill it, and let it
 * appear. 0, an errno, or what `fill` gave. */
int dpx_handles_make(const char *path, const char *identity, uint64_t files, uint64_t max_bytes,
		     const struct dpx_handle_key *secret, int (*fill)(void *arg, struct dpx_handles *handles),
		     void *arg);

/* A checksum of words: not for eyes that want to deceive. */
uint64_t dpx_handles_mix(uint64_t sum, uint64_t word);

#endif
