#include "tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of a header: where fields begin. */
enum { NAME_AT = 0, SIZE_AT = 124, TYPE_AT = 156, MAGIC_AT = 257, PREFIX_AT = 345 };
enum { NAME_LEN = 100, SIZE_LEN = 12, PREFIX_LEN = 155 };

/* What the long name of a member to come was given by. */
enum { UNNAMED, NAMED_BY_GNU, NAMED_BY_PAX };

static const char sparse[] = "it has a sparse file; pack it without --sparse";

void dpx_tar_init(struct dpx_tar *tar, uint64_t offset, uint64_t size_most)
{
	*tar = (struct dpx_tar){.offset = offset, .size_most = size_most};
}

void dpx_tar_free(struct dpx_tar *tar)
{
	dpx_text_free(&tar->extension);
	dpx_text_free(&tar->long_name);
}

int dpx_tar_fail(struct dpx_tar *tar, int err, uint64_t offset, const char *fault)
{
	if (!tar->err) {
		tar->err = err;
		tar->fault_offset = offset;
		tar->fault = fault;
	}
	return tar->err;
}

/* A fault of the header that was just read, or of the extended one whose content was. */
static int refuse(struct dpx_tar *tar, int err, const char *fault)
{
	uint64_t behind = tar->kind ? tar->extension_size + DPX_TAR_BLOCK : DPX_TAR_BLOCK;
	return dpx_tar_fail(tar, err, tar->offset - behind, fault);
}

/* Of several extended headers before one member the first one's word counts, as in Python's tarfile. */
static int set_name(struct dpx_tar *tar, int by, const char *name, size_t len)
{
	if (tar->named)
		return 0;
	tar->long_name.len = 0;
	if (dpx_text_add(&tar->long_name, name, len))
		return refuse(tar, ENOMEM, "there is no memory for a name");
	tar->named = by;
	return 0;
}

static int is_key(const struct dpx_pax_record *record, const char *key)
{
	return record->key_len == strlen(key) && memcmp(record->key, key, record->key_len) == 0;
}

/* Take over what a pax header says of the member to come. A value that is empty takes back what stood before. */
static int apply_pax(struct dpx_tar *tar)
{
	static const char sparse_keys[] = "GNU.sparse.";
	const char *text = tar->extension.text;
	size_t len = tar->extension.len;
	struct dpx_pax_record record, path = {0};
	uint64_t size = 0;
	int sized = 0;
	for (;;) {
		if (dpx_pax_take(&text, &len, &record))
			return refuse(tar, EBADMSG, "a pax record is malformed");
		if (!text)
			break;
		int of_path = is_key(&record, "path"), of_size = is_key(&record, "size");
		if (record.key_len >= sizeof(sparse_keys) - 1 &&
		    memcmp(record.key, sparse_keys, sizeof(sparse_keys) - 1) == 0)
			return refuse(tar, ENOTSUP, sparse);
		if ((of_path || of_size) && tar->kind == 'g')
			return refuse(tar, ENOTSUP, "a global pax header gives all members one path or size");
		if (of_path)
			path = record;
		if (of_size && (sized = record.value_len > 0) &&
		    dpx_tar_decimal(record.value, record.value_len, &size))
			return refuse(tar, EBADMSG, "the size in a pax record is no number");
	}
	if (sized && !tar->sized) {
		tar->sized = 1;
		tar->long_size = size;
	}
	return path.value_len ? set_name(tar, NAMED_BY_PAX, path.value, path.value_len) : 0;
}

/* The content of an extended header has come. */
static int end_extension(struct dpx_tar *tar)
{
	int rc;
	if (tar->kind == 'L') {
		const char *text = tar->extension.len ? tar->extension.text : "";
		size_t len = dpx_tar_text_len((const unsigned char *)text, tar->extension.len);
		rc = set_name(tar, NAMED_BY_GNU, text, len);
	} else {
		rc = apply_pax(tar);
	}
	tar->extended |= tar->kind != 'g'; /* which belongs to no member: a walk may start behind it */
	tar->skip = dpx_tar_padded(tar->extension_size) - tar->extension_size;
	tar->kind = 0;
	return rc;
}

static int begin_extension(struct dpx_tar *tar, unsigned char kind, uint64_t size)
{
	if (size > DPX_TAR_EXTENSION_MOST)
		return refuse(tar, EBADMSG, "an extended header is larger than 1 MiB");
	tar->kind = kind;
	tar->extension_size = size;
	tar->extension.len = 0;
	return 0;
}

/* Stop at a regular file, or pass over a directory of the old format: a file whose name ends with a slash. */
static int begin_member(struct dpx_tar *tar, const unsigned char *block, uint64_t size, enum dpx_tar_event *event)
{
	const unsigned char *name = block + NAME_AT;
	size_t len = dpx_tar_text_len(name, NAME_LEN);
	if (tar->named) {
		tar->name = tar->long_name.len ? tar->long_name.text : "";
		tar->name_len = tar->long_name.len;
	} else {
		size_t before = 0;
		if (memcmp(block + MAGIC_AT, "ustar", 6) == 0) /* GNU's magic is another, and times stand there */
			before = dpx_tar_text_len(block + PREFIX_AT, PREFIX_LEN);
		tar->name = (const char *)name;
		tar->name_len = len;
		if (before) {
			memcpy(tar->joined, block + PREFIX_AT, before);
			tar->joined[before] = '/';
			memcpy(tar->joined + before + 1, name, len);
			tar->name = tar->joined;
			tar->name_len = before + 1 + len;
		}
	}
	if (block[TYPE_AT] == '\0' && tar->name_len && tar->name[tar->name_len - 1] == '/')
		return 0;
	while (tar->named == NAMED_BY_PAX && tar->name_len && tar->name[tar->name_len - 1] == '/')
		tar->name_len--; /* as tarfile does */
	if (size > tar->size_most)
		return refuse(tar, EFBIG, "a member is larger than max_member_bytes");
	tar->size = size;
	tar->skip = dpx_tar_padded(size);
	*event = DPX_TAR_MEMBER;
	return 0;
}

static int read_header(struct dpx_tar *tar, const unsigned char *block, enum dpx_tar_event *event)
{
	unsigned char type = block[TYPE_AT];
	uint64_t size = 0;
	if (dpx_tar_is_zero(block)) {
		if (tar->extended)
			return refuse(tar, EBADMSG, "no member follows an extended header");
		tar->ended = 1;
		return 0;
	}
	if (!dpx_tar_checksum_is_right(block))
		return refuse(tar, EBADMSG, "the checksum of a header is wrong");
	int bodyless = type >= '1' && type <= '6'; /* links, devices, directories: their size says nothing */
	int extension = type == 'x' || type == 'X' || type == 'g' || type == 'L' || type == 'K';
	if (tar->sized && !extension)
		size = tar->long_size;
	else if (!bodyless && dpx_tar_number(block + SIZE_AT, SIZE_LEN, &size))
		return refuse(tar, EBADMSG, "the size of a member is no number");
	if (type == 'S')
		return refuse(tar, ENOTSUP, sparse);
	if (extension && type != 'K')
		return begin_extension(tar, type, size);
	if (type == 'K') { /* the target of a link */
		tar->extended = 1;
		tar->skip = dpx_tar_padded(size);
		return 0;
	}
	int rc = 0;
	if (type == '\0' || type == '0' || type == '7')
		rc = begin_member(tar, block, size, event);
	else if (!bodyless)
		tar->skip = dpx_tar_padded(size);
	tar->extended = tar->named = tar->sized = 0;
	return rc;
}

/* Take up to `want` bytes of what is left of the piece. */
static size_t take(struct dpx_tar *tar, uint64_t want, size_t left, size_t *used)
{
	size_t taken = want < left ? (size_t)want : left;
	*used += taken;
	tar->offset += taken;
	return taken;
}

/* The next header, in the piece if it lies there whole, else put together; NULL: more must come. */
static const unsigned char *next_block(struct dpx_tar *tar, const unsigned char *piece, size_t len, size_t *used)
{
	const unsigned char *at = piece + *used;
	size_t left = len - *used;
	if (tar->held == 0 && left >= DPX_TAR_BLOCK) {
		take(tar, DPX_TAR_BLOCK, left, used);
		return at;
	}
	size_t taken = take(tar, DPX_TAR_BLOCK - tar->held, left, used);
	memcpy(tar->block + tar->held, at, taken);
	tar->held += taken;
	if (tar->held < DPX_TAR_BLOCK)
		return NULL;
	tar->held = 0;
	return tar->block;
}

int dpx_tar_next(struct dpx_tar *tar, const unsigned char *piece, size_t len, size_t *used, enum dpx_tar_event *event)
{
	*used = 0;
	*event = DPX_TAR_MORE;
	while (!tar->err && *event == DPX_TAR_MORE) {
		size_t left = len - *used;
		if (tar->ended) {
			*event = DPX_TAR_END;
		} else if (tar->kind && tar->extension.len == tar->extension_size) {
			end_extension(tar);
		} else if (left == 0) {
			break;
		} else if (tar->skip) {
			tar->skip -= take(tar, tar->skip, left, used);
		} else if (tar->kind) {
			const char *text = (const char *)piece + *used;
			size_t taken = take(tar, tar->extension_size - tar->extension.len, left, used);
			if (dpx_text_add(&tar->extension, text, taken))
				dpx_tar_fail(tar, ENOMEM, tar->offset, "there is no memory for an extended header");
		} else {
			const unsigned char *block = next_block(tar, piece, len, used);
			if (block)
				read_header(tar, block, event);
		}
	}
	return tar->err;
}

int dpx_tar_finish(struct dpx_tar *tar)
{
	if (tar->err || tar->ended)
		return tar->err;
	if (tar->held || tar->kind || tar->extended)
		return dpx_tar_fail(tar, ENODATA, tar->offset, "it ends within a header");
	if (tar->skip)
		return dpx_tar_fail(tar, ENODATA, tar->offset, "it ends within a member");
	return dpx_tar_fail(tar, ENODATA, tar->offset, "it ends without an end marker");
}
