#include "tar_fields.h"

#include <errno.h>
#include <string.h>

#define CHECKSUM_AT 148
#define CHECKSUM_LEN 8

int dpx_tar_is_zero(const unsigned char *block)
{
	return block[0] == 0 && memcmp(block, block + 1, DPX_TAR_BLOCK - 1) == 0;
}

int dpx_tar_checksum_is_right(const unsigned char *block)
{
	uint64_t stored;
	if (dpx_tar_number(block + CHECKSUM_AT, CHECKSUM_LEN, &stored))
		return 0;
	unsigned sum = 0, high = 0; /* two plain loops: compilers make vectors of them */
	for (size_t i = 0; i < DPX_TAR_BLOCK; i++)
		sum += block[i];
	for (size_t i = CHECKSUM_AT; i < CHECKSUM_AT + CHECKSUM_LEN; i++)
		sum += ' ' - (unsigned)block[i]; /* its own field counts as spaces */
	if (stored == sum)
		return 1;
	for (size_t i = 0; i < DPX_TAR_BLOCK; i++)
		high += block[i] >> 7;
	for (size_t i = CHECKSUM_AT; i < CHECKSUM_AT + CHECKSUM_LEN; i++)
		high -= block[i] >> 7;
	return stored == (uint64_t)((int64_t)sum - 256 * (int64_t)high);
}

static int base_256(const unsigned char *field, size_t len, uint64_t *value)
{
	uint64_t number = 0;
	if (field[0] != 0x80) /* 0xff begins a negative one; anything between, one of more than 87 bits */
		return EBADMSG;
	for (size_t i = 1; i < len; i++) {
		if (number > DPX_TAR_SIZE_MOST >> 8)
			return EBADMSG;
		number = number << 8 | field[i];
	}
	*value = number;
	return number > DPX_TAR_SIZE_MOST ? EBADMSG : 0;
}

int dpx_tar_number(const unsigned char *field, size_t len, uint64_t *value)
{
	uint64_t number = 0; /* a field has 12 digits at most: no overflow */
	size_t at = 0;
	if (field[0] & 0x80)
		return base_256(field, len, value);
	while (at < len && field[at] == ' ')
		at++;
	while (at < len && field[at] >= '0' && field[at] <= '7')
		number = number << 3 | (uint64_t)(field[at++] - '0');
	while (at < len && field[at] == ' ')
		at++;
	*value = number;
	return at == len || field[at] == '\0' ? 0 : EBADMSG;
}

int dpx_tar_decimal(const char *text, size_t len, uint64_t *value)
{
	uint64_t number = 0;
	if (len == 0)
		return EBADMSG;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9' || number > DPX_TAR_SIZE_MOST / 10)
			return EBADMSG;
		number = number * 10 + (uint64_t)(text[i] - '0');
	}
	*value = number;
	return number > DPX_TAR_SIZE_MOST ? EBADMSG : 0;
}

size_t dpx_tar_text_len(const unsigned char *field, size_t len)
{
	const unsigned char *end = memchr(field, '\0', len);
	return end ? (size_t)(end - field) : len;
}

int dpx_pax_take(const char **text, size_t *len, struct dpx_pax_record *record)
{
	if (*len == 0 || **text == '\0') { /* some writers fill up with NULs and count them in */
		*text = NULL;
		return 0;
	}
	const char *begin = *text, *space = memchr(begin, ' ', *len < 21 ? *len : 21);
	uint64_t said;
	if (!space || dpx_tar_decimal(begin, (size_t)(space - begin), &said) || said > *len)
		return EBADMSG;
	const char *end = begin + said; /* behind the newline */
	if (end < space + 4 || end[-1] != '\n')
		return EBADMSG;
	const char *equals = memchr(space + 1, '=', (size_t)(end - 1 - (space + 1)));
	if (!equals || equals == space + 1)
		return EBADMSG;
	*record = (struct dpx_pax_record){
		.key = space + 1,
		.key_len = (size_t)(equals - (space + 1)),
		.value = equals + 1,
		.value_len = (size_t)(end - 1 - (equals + 1)),
	};
	*text = end;
	*len -= (size_t)said;
	return 0;
}
