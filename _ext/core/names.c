#include "names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"

#define CHUNK_FIRST 256
#define CHUNK_LARGEST (256 * 1024)
#define NAME_LONGEST 65535

void dpx_names_free(struct dpx_names *names)
{
	while (names->arena) {
		struct dpx_name_chunk *chunk = names->arena;
		names->arena = chunk->next;
		free(chunk);
	}
	free(names->entries);
	memset(names, 0, sizeof(*names));
}

static char *arena_take(struct dpx_names *names, size_t need)
{
	struct dpx_name_chunk *chunk = names->arena;
	if (!chunk || chunk->size - chunk->used < need) {
		size_t size = chunk ? chunk->size * 2 : CHUNK_FIRST;
		if (size > CHUNK_LARGEST)
			size = CHUNK_LARGEST;
		if (size < need)
			size = need;
		chunk = malloc(sizeof(*chunk) + size);
		if (!chunk)
			return NULL;
		*chunk = (struct dpx_name_chunk){.next = names->arena, .size = size};
		names->arena = chunk;
		names->bytes += sizeof(*chunk) + size;
	}
	char *at = chunk->text + chunk->used;
	chunk->used += need;
	return at;
}

static int make_room(struct dpx_names *names)
{
	if (names->count < names->capacity)
		return 0;
	/* Half again as large: a table of a million names wastes less than by doubling. */
	size_t capacity = names->capacity ? names->capacity + names->capacity / 2 : 16;
	struct dpx_name *entries = realloc(names->entries, capacity * sizeof(*entries));
	if (!entries)
		return ENOMEM;
	names->bytes += (capacity - names->capacity) * sizeof(*entries);
	names->entries = entries;
	names->capacity = capacity;
	return 0;
}

int dpx_names_add(struct dpx_names *names, const char *text, size_t len, const struct dpx_name *like)
{
	if (len > NAME_LONGEST)
		return ENAMETOOLONG;
	if (make_room(names))
		return ENOMEM;
	char *copy = arena_take(names, len + 2); /* room for a '/' that may come later */
	if (!copy)
		return ENOMEM;
	memcpy(copy, text, len);
	copy[len] = '\0';

	const char *first = names->count ? names->entries[0].text : copy;
	size_t shared = names->count ? names->shared : len;
	size_t same = 0;
	while (same < shared && first[same] == copy[same])
		same++;
	names->shared = same;

	struct dpx_name *entry = &names->entries[names->count++];
	*entry = *like;
	entry->text = copy;
	dpx_name_set_kind(entry, like->kind);
	return 0;
}

void dpx_names_pop(struct dpx_names *names)
{
	const char *text = names->entries[--names->count].text;
	names->arena->used = (size_t)(text - names->arena->text);
}

void dpx_name_set_kind(struct dpx_name *entry, int kind)
{
	entry->kind = (uint8_t)kind;
	if (kind == DPX_KIND_DIR) {
		char *text = (char *)entry->text; /* the arena is ours and left room for it */
		size_t len = strlen(text);
		if (len && text[len - 1] != '/')
			memcpy(text + len, "/", 2);
	}
}

static int before(const struct dpx_name *a, const struct dpx_name *b, size_t shared)
{
	if (a->key != b->key)
		return a->key < b->key;
	if (!(a->key & 0xff)) /* one of the eight bytes was the end of both texts */
		return 0;
	return strcmp(a->text + shared + 8, b->text + shared + 8) < 0;
}

static void swap(struct dpx_name *a, struct dpx_name *b)
{
	struct dpx_name held = *a;
	*a = *b;
	*b = held;
}

static void insertion_sort(struct dpx_name *a, size_t n, size_t shared)
{
	for (size_t i = 1; i < n; i++) {
		struct dpx_name held = a[i];
		size_t at = i;
		for (; at > 0 && before(&held, &a[at - 1], shared); at--)
			a[at] = a[at - 1];
		a[at] = held;
	}
}

static void heap_sort(struct dpx_name *a, size_t n, size_t shared)
{
	for (size_t left = n / 2, end = n; end > 1;) {
		if (left > 0)
			left--;
		else
			swap(&a[0], &a[--end]);
		for (size_t at = left, child; (child = 2 * at + 1) < end; at = child) {
			if (child + 1 < end && before(&a[child], &a[child + 1], shared))
				child++;
			if (!before(&a[at], &a[child], shared))
				break;
			swap(&a[at], &a[child]);
		}
	}
}

/* Quicksort around a median of three; `tries` bounds the depth, after which heap sort takes over, so that no
 * order of names makes it slow. Recurses into the smaller half only: the stack stays logarithmic. */
static void intro_sort(struct dpx_name *a, size_t n, size_t shared, unsigned tries)
{
	while (n > 24) {
		if (tries-- == 0) {
			heap_sort(a, n, shared);
			return;
		}
		size_t mid = n / 2, last = n - 1;
		if (before(&a[mid], &a[0], shared))
			swap(&a[mid], &a[0]);
		if (before(&a[last], &a[0], shared))
			swap(&a[last], &a[0]);
		if (before(&a[last], &a[mid], shared))
			swap(&a[last], &a[mid]);
		struct dpx_name pivot = a[mid];
		size_t low = 0, high = last;
		for (;;) {
			while (before(&a[low], &pivot, shared))
				low++;
			while (before(&pivot, &a[high], shared))
				high--;
			if (low >= high)
				break;
			swap(&a[low++], &a[high--]);
		}
		size_t left = low, right = n - low;
		if (left < right) {
			intro_sort(a, left, shared, tries);
			a += low;
			n = right;
		} else {
			intro_sort(a + low, right, shared, tries);
			n = left;
		}
	}
	insertion_sort(a, n, shared);
}

static void fill_keys(struct dpx_names *names)
{
	for (size_t i = 0; i < names->count; i++) {
		const unsigned char *at = (const unsigned char *)names->entries[i].text + names->shared;
		uint64_t key = 0;
		int byte = 0;
		for (; byte < 8 && at[byte]; byte++)
			key = key << 8 | at[byte];
		names->entries[i].key = byte > 0 && byte < 8 ? key << (8 * (8 - byte)) : key;
	}
}

/* Stores often hand names out in order, or, as tmpfs does, newest first: both are cheaper to see than to sort. */
static int in_order(struct dpx_names *names)
{
	size_t n = names->count, up = 1, down = 1;
	while (up < n && before(&names->entries[up - 1], &names->entries[up], names->shared))
		up++;
	if (up >= n)
		return 1;
	while (down < n && before(&names->entries[down], &names->entries[down - 1], names->shared))
		down++;
	if (down < n)
		return 0;
	for (size_t i = 0; i < n / 2; i++)
		swap(&names->entries[i], &names->entries[n - 1 - i]);
	return 1;
}

void dpx_names_sort(struct dpx_names *names)
{
	fill_keys(names);
	if (in_order(names))
		return;
	unsigned tries = 2;
	for (size_t n = names->count; n > 1; n /= 2)
		tries += 2;
	intro_sort(names->entries, names->count, names->shared, tries);
	size_t kept = 0;
	for (size_t i = 0; i < names->count; i++)
		if (kept == 0 || before(&names->entries[kept - 1], &names->entries[i], names->shared))
			names->entries[kept++] = names->entries[i];
	names->count = kept;
}

size_t dpx_names_find(const struct dpx_names *names, const char *text)
{
	size_t low = 0, high = names->count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = strcmp(names->entries[mid].text, text);
		if (order == 0)
			return mid;
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return SIZE_MAX;
}
