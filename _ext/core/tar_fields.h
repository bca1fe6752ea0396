/* What stands in a tar header: numbers, the checksum, and the records of a pax header. No state, no memory. */
#ifndef DPX_TAR_FIELDS_H
#define DPX_TAR_FIELDS_H

#include <stddef.h>
#include <stdint.h>

#define DPX_TAR_BLOCK 512

/* Beyond this no size can be meant; sums of an offset and a size cannot overflow. */
#define DPX_TAR_SIZE_MOST ((uint64_t)1 << 62)

int dpx_tar_is_zero(const unsigned char *block);

/* Whether the block's checksum is right: a sum of unsigned bytes, or of signed ones, as some old writers have it. */
int dpx_tar_checksum_is_right(const unsigned char *block);

/* A number in octal digits (spaces before them, a space or NUL behind, none: 0) or base-256. EBADMSG when it is
 * none, is negative, or lies beyond DPX_TAR_SIZE_MOST. */
int dpx_tar_number(const unsigned char *field, size_t len, uint64_t *value);

/* Decimal digits and nothing else; EBADMSG likewise. */
int dpx_tar_decimal(const char *text, size_t len, uint64_t *value);

/* Bytes of a field before its NUL, or all of them. */
size_t dpx_tar_text_len(const unsigned char *field, size_t len);

/* One record of a pax header, "LENGTH KEY=VALUE\n". Key and value point into the header's text. */
struct dpx_pax_record {
	const char *key, *value;
	size_t key_len, value_len;
};

/* Take the record at *text off the front. *text becomes NULL when there is none left. EBADMSG for what is none. */
int dpx_pax_take(const char **text, size_t *len, struct dpx_pax_record *record);

#endif
