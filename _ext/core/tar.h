/* A walk over the headers of a tar archive that comes in pieces of any size: ustar, pax (path and size), GNU long
 * names, base-256 sizes, and the headers from before all of these.
 *
 * It stops at each regular file; directories, links (hard ones too: their content stands under another name), devices
 * and members of unknown type are passed over. Bodies are not looked at, so over a whole archive in memory it costs a
 * cache line or two and a checksum a member. A walk may start at any header, an extended one included.
 */
#ifndef DPX_TAR_H
#define DPX_TAR_H

#include "path.h"
#include "tar_fields.h"

/* An extended header longer than this is taken for damage. */
#define DPX_TAR_EXTENSION_MOST ((uint64_t)1 << 20)

enum dpx_tar_event {
	DPX_TAR_MORE,   /* the piece is used up */
	DPX_TAR_MEMBER, /* a regular file: its body is the next `size` bytes */
	DPX_TAR_END,    /* the end marker was met: whatever follows is no part of the archive */
};

struct dpx_tar {
	/* Of the member that the walk stopped at. */
	const char *name; /* borrowed, until the next call, from the piece or from the walk; no NUL at its end */
	size_t name_len;
	uint64_t size;

	uint64_t offset; /* in the archive, of the next byte to come */
	uint64_t skip;   /* bytes to pass over before the next header; after MEMBER its body, filled up to a block */

	/* What is wrong, once something is; no call gets further then. */
	int err;           /* EBADMSG, ENODATA (cut short), EFBIG, ENOTSUP, ENOMEM */
	const char *fault; /* static text */
	uint64_t fault_offset;

	/* The rest is the walk's own. */
	uint64_t size_most;
	unsigned char block[DPX_TAR_BLOCK]; /* a header that comes in pieces, as far as it has come */
	size_t held;
	unsigned char kind;          /* typeflag of the extended header whose content is coming, or 0 */
	uint64_t extension_size;
	struct dpx_text extension;   /* that content, as far as it has come */
	int extended, named, sized, ended; /* extended headers came, and gave a name, a size; the end was met */
	struct dpx_text long_name;
	uint64_t long_size;
	char joined[256]; /* prefix, slash, name */
};

/* offset: where in the archive the first byte to come lies. size_most: larger members are EFBIG. */
void dpx_tar_init(struct dpx_tar *tar, uint64_t offset, uint64_t size_most);
void dpx_tar_free(struct dpx_tar *tar);

/* Walk on through a piece, to the next event. *used: how much of the piece lies behind it. After MEMBER go on with the
 * rest of the piece; the walk passes over the body by itself. Returns 0 or tar->err. */
int dpx_tar_next(struct dpx_tar *tar, const unsigned char *piece, size_t len, size_t *used, enum dpx_tar_event *event);

/* The archive's last byte has come: 0 if it ended with an end marker (one block of zeros at least), else ENODATA.
 * An archive cut between two members could not be told from a whole one otherwise, and every tar writes a marker. */
int dpx_tar_finish(struct dpx_tar *tar);

/* Note a fault where there is none yet; returns tar->err. */
int dpx_tar_fail(struct dpx_tar *tar, int err, uint64_t offset, const char *fault);

/* With `size` filled up to a block. */
static inline uint64_t dpx_tar_padded(uint64_t size)
{
	return (size + DPX_TAR_BLOCK - 1) & ~(uint64_t)(DPX_TAR_BLOCK - 1);
}

#endif
