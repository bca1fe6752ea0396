/* Every allocation of a listing fails in turn: it ends with ENOMEM after a true beginning of the whole, or goes
 * on without what it can do without, and frees all it had.
 *
 * link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup,--wrap=strndup
 */
#include "fake_tree.h"

static atomic_long allocations;
static atomic_long fail_at;              /* the allocation with this number fails; 0: none */
static _Thread_local int not_the_engine; /* allocations of the test itself */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t len);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t len);

static int fails(void)
{
	long at = atomic_load(&fail_at);
	return at && !not_the_engine && atomic_fetch_add(&allocations, 1) + 1 == at;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
	return fails() ? NULL : __real_realloc(memory, size);
}

char *__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t len)
{
	return fails() ? NULL : __real_strndup(text, len);
}

/* List with the k-th allocation failing; returns whether it came to that. */
static int list_failing(long k, struct result *result)
{
	struct dpx_list_options options = {.path = "", .recursive = 1, .sizes = 1, .depth = 1 + (unsigned)k % 3};
	struct dpx_session *session = open_session();
	struct dpx_listing *listing;
	const struct dpx_list_entry *entries;
	size_t count;
	*result = (struct result){.text = calloc(1, 4096), .capacity = 4096};
	atomic_store(&allocations, 0);
	atomic_store(&fail_at, k);
	result->err = dpx_listing_open(session, &options, &listing);
	while (!result->err || result->err == EAGAIN) {
		result->err = dpx_listing_next(listing, 50, &entries, &count);
		if (!result->err && count == 0)
			break;
		not_the_engine = 1;
		for (size_t i = 0; i < count; i++)
			keep(result, &entries[i]);
		not_the_engine = 0;
	}
	dpx_listing_close(listing, 5000);
	atomic_store(&fail_at, 0);
	close_session(session);
	return atomic_load(&allocations) >= k;
}

static void fail_each_allocation(void (*prepare)(void))
{
	prepare();
	struct result whole = list_path("", NULL, 2), result;
	long failures = 0;
	int reached = 1;
	for (long k = 1; reached; k += k < 150 ? 1 : 11) {
		prepare();
		reached = list_failing(k, &result);
		if (result.err) {
			CHECK(result.err == ENOMEM);
			CHECK(strncmp(whole.text, result.text, result.len) == 0);
			failures++;
		} else {
			CHECK(result.entries == whole.entries);
		}
		free(result.text);
	}
	CHECK(failures > 10);
	free(whole.text);
}

static void restless_tree(void)
{
	small_tree();
	fake.restless = 1;
}

static void wide_tree(void)
{
	big_tree(3, 700);
}

static void file_to_e(void)
{
	fake_rename("a.txt", 0, "e");
}

static void dir_to_e(void)
{
	fake_rename("a", 0, "e");
}

static void file_renamed(void)
{
	small_tree();
	change_before(CALL_STAT, "a.txt", file_to_e);
}

static void dir_renamed(void)
{
	small_tree();
	change_before(CALL_OPEN, "a", dir_to_e);
}

static void test_small_tree(void) { fail_each_allocation(small_tree); }
static void test_restless_tree(void) { fail_each_allocation(restless_tree); }
static void test_wide_tree(void) { fail_each_allocation(wide_tree); }
static void test_renamed_file(void) { fail_each_allocation(file_renamed); }
static void test_renamed_directory(void) { fail_each_allocation(dir_renamed); }

int main(void)
{
	RUN(test_small_tree);
	RUN(test_restless_tree);
	RUN(test_wide_tree);
	RUN(test_renamed_file);
	RUN(test_renamed_directory);
	free(fake.files);
	return 0;
}
