/* The walk over a tar archive: formats, faults, and that nothing depends on how the archive is cut into pieces.
 * Mutated archives are walked for a second or two; libFuzzer goes on from there:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -DDPX_LIBFUZZER -D_GNU_SOURCE -I_ext/core tests/c/test_tar.c \
 *           _ext/core/tar.c _ext/core/tar_fields.c _ext/core/path.c
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCK DPX_TAR_BLOCK
#define MEMBERS_MOST 256

/* ---- writing ---- */

struct archive {
	unsigned char bytes[128 * BLOCK];
	size_t len;
};

static void set_checksum(unsigned char *block)
{
	unsigned sum = 0;
	memset(block + 148, ' ', 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += block[i];
	snprintf((char *)block + 148, 8, "%06o", sum);
}

static unsigned char *put_header(struct archive *archive, const char *name, char type, unsigned long size)
{
	unsigned char *block = archive->bytes + archive->len;
	CHECK(archive->len + BLOCK <= sizeof(archive->bytes));
	memset(block, 0, BLOCK);
	memcpy(block, name, strnlen(name, 100));
	snprintf((char *)block + 124, 12, "%011lo", size);
	block[156] = (unsigned char)type;
	memcpy(block + 257, "ustar\00000", 8);
	set_checksum(block);
	archive->len += BLOCK;
	return block;
}

static void put_data(struct archive *archive, const void *data, size_t size)
{
	size_t padded = (size_t)dpx_tar_padded(size);
	CHECK(archive->len + padded <= sizeof(archive->bytes));
	memset(archive->bytes + archive->len, 0, padded);
	memcpy(archive->bytes + archive->len, data, size);
	archive->len += padded;
}

static void put_file(struct archive *archive, const char *name, const char *data)
{
	put_header(archive, name, '0', strlen(data));
	put_data(archive, data, strlen(data));
}

static void put_extension(struct archive *archive, char type, const char *data, size_t size)
{
	put_header(archive, "././@Extension", type, size);
	put_data(archive, data, size);
}

static void put_end(struct archive *archive)
{
	memset(archive->bytes + archive->len, 0, 2 * BLOCK);
	archive->len += 2 * BLOCK;
}

/* One of each kind. */
static void put_all_kinds(struct archive *archive)
{
	static char long_name[300];
	memset(long_name, 'n', sizeof(long_name) - 1);
	archive->len = 0;
	put_file(archive, "plain", "0123456789");
	put_header(archive, "folder/", '5', 0);
	put_header(archive, "old-folder/", '\0', 0);
	memcpy(put_header(archive, "name", '0', 0) + 345, "prefix", 6);
	set_checksum(archive->bytes + archive->len - BLOCK);
	put_extension(archive, 'g', "18 comment=global\n", 18);
	put_extension(archive, 'x', "12 path=pax\n12 mtime=1.\n10 size=3\n", 34);
	put_header(archive, "cut", '0', 0);
	put_data(archive, "pax", 3);
	put_extension(archive, 'L', long_name, sizeof(long_name));
	put_extension(archive, 'K', long_name, sizeof(long_name));
	put_file(archive, "cut", "long");
	put_header(archive, "hard link", '1', 700);
	put_header(archive, "unknown", 'Q', 600);
	put_data(archive, long_name, 300);
	archive->len += BLOCK;
	memset(archive->bytes + archive->len - BLOCK, 1, BLOCK);
	unsigned char *block = put_header(archive, "base 256", '7', 0);
	memset(block + 124, 0, 12);
	block[124] = 0x80;
	block[135] = 5;
	set_checksum(block);
	put_data(archive, "large", 5);
	put_end(archive);
}

/* ---- walking ---- */

struct seen {
	struct {
		uint64_t hash, at, size, next; /* of name and body, its offset, its size, where the archive goes on */
		char name[24];                 /* as far as it fits in */
	} members[MEMBERS_MOST];
	size_t count;
	int err;
	uint64_t fault_offset;
	const char *fault;
};

static uint64_t hash_of(uint64_t hash, const void *data, size_t len)
{
	for (const unsigned char *at = data; len--; at++)
		hash = (hash ^ *at) * 1099511628211u;
	return hash;
}

static uint64_t random_state = 88172645463325252u;

static size_t random_below(size_t bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (size_t)(random_state % bound);
}

/* Walk data[start..len] in pieces of up to `most` bytes, each in memory of its own size so that no read can overrun it
 * unnoticed. Bodies are taken from the whole: a walk says where they are. */
static void walk(const unsigned char *data, size_t start, size_t len, size_t most, struct seen *seen)
{
	struct dpx_tar tar;
	enum dpx_tar_event event = DPX_TAR_MORE;
	dpx_tar_init(&tar, start, DPX_TAR_SIZE_MOST);
	memset(seen, 0, sizeof(*seen));
	for (size_t at = start; at < len && !tar.err && event != DPX_TAR_END;) {
		size_t size = most > len ? len - at : 1 + random_below(most < len - at ? most : len - at), used = 0;
		unsigned char *piece = malloc(size);
		CHECK(piece);
		memcpy(piece, data + at, size);
		for (size_t done = 0; done < size && event != DPX_TAR_END; done += used) {
			if (dpx_tar_next(&tar, piece + done, size - done, &used, &event))
				break;
			CHECK(used <= size - done);
			CHECK(event == DPX_TAR_MEMBER || event == DPX_TAR_END || used == size - done);
			if (event != DPX_TAR_MEMBER || seen->count == MEMBERS_MOST)
				continue;
			CHECK(tar.offset == at + done + used);
			uint64_t here = tar.size < len - tar.offset ? tar.size : len - tar.offset;
			seen->members[seen->count].at = tar.offset;
			seen->members[seen->count].size = tar.size;
			seen->members[seen->count].next = tar.offset + tar.skip;
			memcpy(seen->members[seen->count].name, tar.name, tar.name_len < 23 ? tar.name_len : 23);
			seen->members[seen->count++].hash =
				hash_of(hash_of(1469598103934665603u, tar.name, tar.name_len), data + tar.offset, here);
		}
		at += size;
		free(piece);
	}
	int err = dpx_tar_finish(&tar);
	CHECK(err == tar.err && !err == !tar.fault);
	CHECK(tar.fault_offset <= len);
	seen->err = err;
	seen->fault = tar.fault;
	seen->fault_offset = tar.fault_offset;
	dpx_tar_free(&tar);
}

static void check_same(const struct seen *one, const struct seen *other, size_t skipped)
{
	CHECK(one->err == other->err && one->fault == other->fault && one->fault_offset == other->fault_offset);
	if (one->count == MEMBERS_MOST)
		return;
	CHECK(one->count == other->count + skipped);
	for (size_t i = 0; i < other->count; i++)
		CHECK(memcmp(&one->members[i + skipped], &other->members[i], sizeof(one->members[i])) == 0);
}

/* What must hold of any bytes: pieces change nothing, and a walk goes on behind any member as if it had come there. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct seen whole, pieces;
	walk(data, 0, size, SIZE_MAX, &whole);
	walk(data, 0, size, 1 + random_below(2 * BLOCK), &pieces);
	check_same(&whole, &pieces, 0);
	for (size_t i = 0; i < whole.count; i++) {
		uint64_t next = whole.members[i].next;
		CHECK(next % BLOCK == whole.members[0].next % BLOCK);
		if (next > size || (i && i != random_below(whole.count)))
			continue;
		walk(data, (size_t)next, size, SIZE_MAX, &pieces);
		check_same(&whole, &pieces, i + 1);
	}
	return 0;
}

#ifndef DPX_LIBFUZZER

static struct archive archive;
static struct seen seen;

static void walk_archive(void)
{
	CHECK(LLVMFuzzerTestOneInput(archive.bytes, archive.len) == 0);
	walk(archive.bytes, 0, archive.len, SIZE_MAX, &seen);
}

static void test_all_kinds_are_read_and_others_passed_over(void)
{
	static const char *const names[] = {"plain", "prefix/name", "pax", "nnnnnnnnnnnnnnnnnnnnnnn", "base 256"};
	static const char *const bodies[] = {"0123456789", "", "pax", "long", "large"};
	put_all_kinds(&archive);
	walk_archive();
	CHECK(seen.err == 0 && seen.count == 5);
	for (size_t i = 0; i < 5; i++) {
		CHECK(strcmp(seen.members[i].name, names[i]) == 0);
		CHECK(seen.members[i].size == strlen(bodies[i]));
		CHECK(memcmp(archive.bytes + seen.members[i].at, bodies[i], strlen(bodies[i])) == 0);
	}
}

static void test_what_follows_the_end_is_not_looked_at(void)
{
	put_all_kinds(&archive);
	memset(archive.bytes + archive.len, 0xee, 3 * BLOCK);
	archive.len += 3 * BLOCK;
	walk_archive();
	CHECK(seen.err == 0 && seen.count == 5);
}

static void test_every_cut_is_noticed(void)
{
	put_all_kinds(&archive);
	size_t whole = archive.len - BLOCK; /* one block of zeros will do */
	for (archive.len = 0; archive.len < whole; archive.len++) {
		walk(archive.bytes, 0, archive.len, SIZE_MAX, &seen);
		CHECK(seen.err == ENODATA && seen.fault_offset == archive.len);
	}
	walk_archive();
	CHECK(seen.err == 0);
}

static void check_refused(int err, size_t offset)
{
	walk_archive();
	CHECK(seen.err == err);
	CHECK(seen.fault_offset == offset);
}

static void test_every_changed_byte_of_a_header_is_noticed(void)
{
	archive.len = 0;
	put_file(&archive, "first", "1");
	put_file(&archive, "second", "2");
	put_end(&archive);
	for (size_t at = 2 * BLOCK; at < 3 * BLOCK; at++) {
		if (at >= 2 * BLOCK + 154 && at < 2 * BLOCK + 156)
			continue; /* behind the checksum's last digit */
		archive.bytes[at] ^= 0x11;
		check_refused(EBADMSG, 2 * BLOCK);
		CHECK(seen.count == 1);
		archive.bytes[at] ^= 0x11;
	}
}

static void test_extended_headers_that_lie_are_refused(void)
{
	static const char *const records[] = {
		"0 path=a\n", "5 a=\n\n", "99 path=a\n", "9 path=ab\n", "x path=a\n", "9 path a\n", "6 =ab\n", "11 size=0x1\n",
		"11 size=-10\n", "30 size=99999999999999999999999\n", "99999999999999999999999999 path=a\n", "9", "9 ", "9 path=a",
	};
	for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++) {
		archive.len = 0;
		put_file(&archive, "first", "1");
		put_extension(&archive, 'x', records[i], strlen(records[i]));
		put_file(&archive, "second", "2");
		put_end(&archive);
		check_refused(EBADMSG, 2 * BLOCK);
	}
}

static void test_what_cannot_be_read_is_refused(void)
{
	archive.len = 0;
	put_extension(&archive, 'g', "9 path=a\n", 9);
	check_refused(ENOTSUP, 0);
	archive.len = 0;
	put_extension(&archive, 'x', "22 GNU.sparse.major=1\n", 22);
	check_refused(ENOTSUP, 0);
	archive.len = 0;
	put_header(&archive, "sparse", 'S', 0);
	check_refused(ENOTSUP, 0);
	archive.len = 0;
	put_header(&archive, "long", 'L', DPX_TAR_EXTENSION_MOST + 1);
	check_refused(EBADMSG, 0);
	archive.len = 0;
	put_extension(&archive, 'L', "name", 5);
	put_end(&archive);
	check_refused(EBADMSG, 2 * BLOCK);
}

static void test_member_beyond_the_bound_is_refused(void)
{
	struct dpx_tar tar;
	enum dpx_tar_event event;
	size_t used;
	archive.len = 0;
	put_header(&archive, "large", '0', 1001);
	dpx_tar_init(&tar, 0, 1000);
	CHECK(dpx_tar_next(&tar, archive.bytes, archive.len, &used, &event) == EFBIG);
	CHECK(dpx_tar_next(&tar, archive.bytes, archive.len, &used, &event) == EFBIG);
	dpx_tar_free(&tar);
}

static void test_numbers(void)
{
	static const struct {
		const char *field;
		int err;
		uint64_t value;
	} cases[] = {
		{"00000000017", 0, 15}, {"         17 ", 0, 15}, {"17\0        9", 0, 15}, {"777777777777", 0, 0777777777777},
		{"\0", 0, 0}, {"            ", 0, 0}, {"8\0", EBADMSG, 0}, {"1 7\0", EBADMSG, 0}, {"-1\0", EBADMSG, 0},
		{"+1\0", EBADMSG, 0}, {"0x1\0", EBADMSG, 0}, {"\x80\0\0\0\0\0\0\0\0\0\1\2", 0, 258},
		{"\x80\0\0\0\x40\0\0\0\0\0\0\0", 0, DPX_TAR_SIZE_MOST}, {"\x80\0\0\0\x40\0\0\0\0\0\0\1", EBADMSG, 0},
		{"\x80\1\0\0\0\0\0\0\0\0\0\0", EBADMSG, 0}, {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", EBADMSG, 0},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t value = 0;
		CHECK(dpx_tar_number((const unsigned char *)cases[i].field, 12, &value) == cases[i].err);
		CHECK(cases[i].err || value == cases[i].value);
	}
}

/* Bytes changed, blocks repeated, archives cut; half the time checksums are put right, so that it gets further. */
static void test_mutated_archives_do_no_harm(void)
{
	static struct archive mutant;
	put_all_kinds(&archive);
	for (int round = 0; round < 20000; round++) {
		mutant = archive;
		size_t blocks = mutant.len / BLOCK;
		for (size_t changes = 1 + random_below(4); changes--;) {
			unsigned char *block = mutant.bytes + random_below(blocks) * BLOCK;
			size_t kind = random_below(8);
			if (kind == 0)
				memcpy(block, mutant.bytes + random_below(blocks) * BLOCK, BLOCK);
			else if (kind == 1)
				mutant.len = random_below(mutant.len) + 1;
			else if (kind == 2)
				block[156] = (unsigned char)"01235679xXgLKSQ\0"[random_below(16)];
			else if (kind == 3)
				block[124 + random_below(12)] = (unsigned char)"01789 \200\377"[random_below(8)];
			else
				block[random_below(kind < 6 ? 64 : BLOCK)] = (unsigned char)random_below(256);
			if (random_below(2))
				set_checksum(block);
		}
		LLVMFuzzerTestOneInput(mutant.bytes, mutant.len);
	}
}

int main(void)
{
	RUN(test_all_kinds_are_read_and_others_passed_over);
	RUN(test_what_follows_the_end_is_not_looked_at);
	RUN(test_every_cut_is_noticed);
	RUN(test_every_changed_byte_of_a_header_is_noticed);
	RUN(test_extended_headers_that_lie_are_refused);
	RUN(test_what_cannot_be_read_is_refused);
	RUN(test_member_beyond_the_bound_is_refused);
	RUN(test_numbers);
	RUN(test_mutated_archives_do_no_harm);
	return 0;
}

#endif
