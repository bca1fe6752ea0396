/* The listing below Python. Run under ASan, UBSan and LSan with leaks on: what a listing leaves behind shows. */
#include "fake_tree.h"

static void test_order_and_links(void)
{
	small_tree();
	for (unsigned depth = 0; depth < 5; depth++)
		expect(list_path("", NULL, depth), SMALL_TREE);
	struct result result = list_path("", NULL, 0);
	CHECK(result.counts.left_out == 2 && result.counts.entries == 8 && result.counts.directories == 4);
	free(result.text);
	expect(list_path("b", NULL, 0), "b/c/1 5\nb/z 6\n");
	expect(list_path("b/", NULL, 0), "b/c/1 5\nb/z 6\n");
	expect(list_path("a/x", NULL, 0), "a/x 3\n");
	expect(list_path("a/x", "a/x", 0), "");
}

static void expect_error(struct result result, int err)
{
	CHECK(result.err == err);
	CHECK(result.len == 0);
	free(result.text);
}

static void test_bad_roots(void)
{
	small_tree();
	expect_error(list_path("nope", NULL, 0), ENOENT);
	expect_error(list_path("a/nope/x", NULL, 0), ENOENT);
	expect_error(list_path("a/x/y", NULL, 0), ENOTDIR);
	expect_error(list_path("a/x/", NULL, 0), ENOTDIR);
	expect_error(list_path("s", NULL, 0), ENOTDIR);
	expect_error(list_path("a/../b", NULL, 0), EINVAL);
	expect_error(list_path("..", NULL, 0), EINVAL);
	fake_reset();
	expect(list_path("", NULL, 0), "");
}

static void test_start_after(void)
{
	small_tree();
	const char *all = SMALL_TREE;
	for (const char *line = all; *line; line = strchr(line, '\n') + 1) {
		char path[32] = "";
		memcpy(path, line, strcspn(line, " "));
		expect(list_path("", path, 2), strchr(line, '\n') + 1);
	}
	expect(list_path("", "", 0), all);
	expect(list_path("", "a/", 0), strstr(all, "a/x"));
	expect(list_path("", "a0", 0), strstr(all, "b/c"));
	expect(list_path("b", "a", 0), "b/c/1 5\nb/z 6\n");
	expect(list_path("b", "b0", 0), "");
	long before = atomic_load(&fake.listed);
	expect(list_path("", "b/c/1", 0), strstr(all, "b/z"));
	CHECK(atomic_load(&fake.listed) - before == 8 + 2 + 1); /* the root, b, c: not a */
}

static void test_stores_that_tell_less_or_more(void)
{
	for (int mode = 0; mode < 32; mode++) {
		small_tree();
		fake.parts = mode & 16 ? 3 : 0;
		fake.hide_kinds = mode & 1;
		fake.hide_inodes = mode & 2;
		fake.tell_sizes = mode & 4;
		fake.restless = mode & 8;
		expect(list_path("", NULL, 0), SMALL_TREE);
		expect(list_path("", "a/x", 0), strstr(SMALL_TREE, "a/y"));
	}
}

static void only_links_are_looked_at(enum fake_call call, const char *name)
{
	CHECK(call != CALL_STAT || *name == '\0' || *name == 'l');
}

static void check_wide(unsigned parts, unsigned depth)
{
	big_tree(1, 3000);
	struct result plain = list_path("", NULL, 1);
	fake.hide_kinds = 1;
	fake.parts = parts;
	expect(list_path("", NULL, depth), plain.text);
	free(plain.text);
}

static void test_one_wide_directory_in_parts_and_steps(void)
{
	for (unsigned depth = 0; depth < 6; depth++) {
		check_wide(1, depth);
		check_wide(7, depth);
		check_wide(4000, depth); /* more than there are entries */
	}
}

static void test_names_only_looks_at_links_alone(void)
{
	struct dpx_list_options options = {.path = "", .recursive = 1};
	small_tree();
	fake.before = only_links_are_looked_at;
	struct dpx_session *session = open_session();
	expect(list_in(session, &options), "a-b -1\na.txt -1\na/x -1\na/y -1\nb/c/1 -1\nb/z -1\nl1 1\nl3 -1\n");
	options.recursive = 0;
	expect(list_in(session, &options), "a-b -1\na.txt -1\nl1 1\nl3 -1\n");
	close_session(session);
}

/* ---- faults ---- */

/* Every call in turn fails: the listing ends with that error after a true beginning of the whole, or, for what
 * may vanish under it, goes on without it. Nothing is left open. */
static void fail_each_call(int err)
{
	struct result whole = list_path("", NULL, 2);
	for (long k = 1;; k += k < 100 ? 1 : 37) {
		atomic_store(&fake.calls, 0);
		fake.failed = 0;
		fake.fail_at = k;
		fake.fail_with = err;
		struct result result = list_path("", NULL, 1 + (unsigned)k % 3);
		fake.fail_at = 0;
		if (!fake.failed) {
			CHECK(result.err == 0 && strcmp(result.text, whole.text) == 0);
			free(result.text);
			break;
		}
		if (err != ENOENT) {
			CHECK(result.err == err);
			CHECK(strncmp(whole.text, result.text, result.len) == 0);
		}
		free(result.text);
	}
	free(whole.text);
}

static void test_fault_at_every_call(void)
{
	small_tree();
	fail_each_call(EIO);
	fail_each_call(ENOMEM);
	fail_each_call(ENOENT);
	big_tree(3, 700);
	fail_each_call(EIO);
	small_tree();
	fake.restless = 1;
	fail_each_call(EIO);
	small_tree();
	fake.hide_kinds = 1;
	fail_each_call(EIO);
	big_tree(2, 300);
	fake.hide_kinds = 1;
	fake.parts = 4;
	fail_each_call(EIO);
	big_tree(3, 20); /* without links: one that may not be followed is listed all the same */
	fail_each_call(EACCES);
}

/* ---- changes under way ---- */

static void flat_tree(void)
{
	fake_reset();
	fake_add(0, "b", DPX_KIND_FILE, 1);
	fake_add(0, "d", DPX_KIND_FILE, 2);
	fake_add(0, "f", DPX_KIND_FILE, 3);
	size_t dir = fake_add(0, "h", DPX_KIND_DIR, 0);
	fake_add(dir, "x", DPX_KIND_FILE, 4);
}

static void d_to_e(void) { fake_rename("d", 0, "e"); }
static void d_to_a(void) { fake_rename("d", 0, "a"); }
static void d_to_z(void) { fake_rename("d", 0, "z"); }
static void d_over_f(void) { fake_rename("d", 0, "f"); }
static void d_over_b(void) { fake_rename("d", 0, "b"); }
static void d_removed(void) { fake_remove("d"); }
static void h_to_k(void) { fake_rename("h", 0, "k"); }
static void h_removed(void) { fake_remove("h"); }
static void nothing_left(void) { fake_remove("d"), fake_remove("h"), fake_remove("b"), fake_remove("f"); }
static void rotate(void) { fake_rename("f", 0, "g"), fake_rename("d", 0, "f"), fake_rename("b", 0, "d"); }

static void expect_change(enum fake_call call, const char *name, void (*what)(void), const char *text)
{
	for (unsigned depth = 1; depth < 4; depth++) {
		flat_tree();
		change_before(call, name, what);
		expect(list_path("", NULL, depth), text);
		CHECK(!change);
	}
}

static void test_changes_between_reading_and_looking(void)
{
	expect_change(CALL_STAT, "d", d_to_e, "b 1\ne 2\nf 3\nh/x 4\n");
	expect_change(CALL_STAT, "d", d_to_z, "b 1\nf 3\nh/x 4\nz 2\n");
	expect_change(CALL_STAT, "d", d_to_a, "a 2\nb 1\nf 3\nh/x 4\n");
	expect_change(CALL_STAT, "d", d_removed, "b 1\nf 3\nh/x 4\n");
	expect_change(CALL_STAT, "d", d_over_f, "b 1\nf 2\nh/x 4\n");
	expect_change(CALL_STAT, "d", d_over_b, "b 1\nf 3\nh/x 4\n");
	expect_change(CALL_STAT, "b", nothing_left, "");
	expect_change(CALL_STAT, "b", rotate, "d 1\nf 2\ng 3\nh/x 4\n");
	expect_change(CALL_OPEN, "h", h_to_k, "b 1\nd 2\nf 3\nh/x 4\n"); /* files of a moved directory: old names */
	expect_change(CALL_OPEN, "h", h_removed, "b 1\nd 2\nf 3\n");
}

static void test_changes_between_passes(void)
{
	expect_change(CALL_VERSION, "", d_to_a, "a 2\nb 1\nf 3\nh/x 4\n");
	expect_change(CALL_LIST, "", d_to_a, "a 2\nb 1\nf 3\nh/x 4\n");
	expect_change(CALL_LIST, "", d_removed, "b 1\nf 3\nh/x 4\n");
}

/* A directory that is renamed in before every pass and every look never holds still: still each file once. */
static void always_moving(enum fake_call call, const char *name)
{
	static int turn;
	(void)name;
	if (call == CALL_STAT && !*name)
		return;
	if (turn++ % 2)
		fake_rename("a", 0, "d");
	else
		fake_rename("d", 0, "a");
}

static void test_directory_that_never_holds_still(void)
{
	for (int turn = 0; turn < 50; turn++) {
		flat_tree();
		fake.before = always_moving;
		struct result result = list_path("", NULL, 1);
		CHECK(!result.err && result.entries == 4);
		CHECK((strstr(result.text, "a 2") || strstr(result.text, "a -1")) !=
		      (strstr(result.text, "d 2") || strstr(result.text, "d -1")));
		CHECK(strstr(result.text, "b 1") && strstr(result.text, "f 3") && strstr(result.text, "h/x 4"));
		free(result.text);
		fake.before = NULL;
		if (fake_find(0, "d", 1) == SIZE_MAX)
			fake_rename("a", 0, "d");
	}
}

/* ---- bounds ---- */

static struct dpx_listing *begin(struct dpx_session *session, unsigned depth)
{
	struct dpx_list_options options = {.path = "", .recursive = 1, .sizes = 1, .depth = depth};
	struct dpx_listing *listing;
	CHECK(dpx_listing_open(session, &options, &listing) == 0);
	return listing;
}

static size_t take(struct dpx_listing *listing)
{
	const struct dpx_list_entry *entries;
	size_t count;
	int rc;
	while ((rc = dpx_listing_next(listing, 50, &entries, &count)) == EAGAIN)
		continue;
	CHECK(rc == 0);
	return count;
}

static void rest(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

/* With a consumer that stands still, reading ahead ends at its bound, and goes on when the consumer does. */
static void check_bound(size_t dirs, size_t files, size_t most)
{
	big_tree(dirs, files);
	fake.tell_sizes = 1;
	struct dpx_session *session = open_session();
	struct dpx_listing *listing = begin(session, 4);
	size_t total = take(listing);
	long ahead = -1;
	while (ahead != atomic_load(&fake.listed)) {
		ahead = atomic_load(&fake.listed);
		rest(200);
	}
	CHECK((size_t)ahead < most);
	for (size_t got; (got = take(listing)) > 0;)
		total += got;
	CHECK(total == dirs * files);
	dpx_listing_close(listing, 5000);
	close_session(session);
}

static void test_read_ahead_is_bounded(void)
{
	size_t bound = DPX_LIST_AHEAD_BYTES / 48; /* entries, at 48 bytes or more each */
	check_bound(200, 3000, bound + 5 * 3000);
	check_bound(3, 250000, 250000 + bound + 4 * (1 << 20) / 48); /* one whole, the others begun and put off */
}

static void test_looks_ahead_are_bounded(void)
{
	static const size_t files = 3 * DPX_LIST_AHEAD_LOOKS / 2;
	fake_reset();
	for (size_t f = 0; f < files; f++) {
		char name[32];
		snprintf(name, sizeof(name), "f%06zu", f);
		fake_add(0, name, DPX_KIND_FILE, f);
	}
	fake.blind = 1;
	struct dpx_session *session = open_session();
	struct dpx_listing *listing = begin(session, 4);
	size_t total = take(listing);
	long calls = -1;
	while (calls != atomic_load(&fake.calls)) {
		calls = atomic_load(&fake.calls);
		rest(100);
	}
	CHECK((size_t)calls < total + DPX_LIST_AHEAD_LOOKS + 4 * (DPX_LIST_AHEAD_LOOKS / 256) + 1000);
	for (size_t got; (got = take(listing)) > 0;)
		total += got;
	CHECK(total == files);
	dpx_listing_close(listing, 5000);
	close_session(session);
}

static void test_deep_tree(void)
{
	fake_reset();
	size_t at = 0;
	for (int depth = 0; depth < 500; depth++) {
		at = fake_add(at, "d", DPX_KIND_DIR, 0);
		fake_add(at, depth % 2 ? "a" : "e", DPX_KIND_FILE, 1);
	}
	struct result result = list_path("", NULL, 3);
	CHECK(!result.err && result.entries == 500 && result.counts.directories == 501);
	free(result.text);
}

static atomic_uint at_once, most_at_once, deep, shallow; /* calls that began beside eight or more others, or fewer */

static void take_long(enum fake_call call, const char *name)
{
	(void)call, (void)name;
	unsigned now = atomic_fetch_add(&at_once, 1) + 1, most = atomic_load(&most_at_once);
	while (now > most && !atomic_compare_exchange_weak(&most_at_once, &most, now))
		continue;
	atomic_fetch_add(now > 8 ? &deep : &shallow, 1);
	nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
	atomic_fetch_sub(&at_once, 1);
}

static void list_slowly(unsigned depth)
{
	atomic_store(&most_at_once, 0);
	atomic_store(&deep, 0);
	atomic_store(&shallow, 0);
	struct result result = list_path("", NULL, depth);
	CHECK(!result.err && result.entries == 4000 && result.counts.depth <= DPX_LIST_DEEPEST);
	CHECK(!depth || result.counts.depth == depth);
	free(result.text);
}

/* Judged by what most calls met: where the listing ends may be a trial of fewer. */
static void test_depth_follows_sleep(void)
{
	big_tree(40, 100);
	fake.before = take_long;
	list_slowly(0);
	CHECK(atomic_load(&deep) > atomic_load(&shallow)); /* it begins with 8 at most, whatever the number of cores */
	CHECK(atomic_load(&most_at_once) <= DPX_LIST_DEEPEST);
	list_slowly(3);
	CHECK(atomic_load(&most_at_once) <= 3);
}

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void take_turns(enum fake_call call, const char *name)
{
	(void)call, (void)name;
	pthread_mutex_lock(&turn);
	nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	pthread_mutex_unlock(&turn);
}

/* They sleep all the time, and more of them gain nothing. */
static void test_runners_that_wait_for_each_other_stay_few(void)
{
	big_tree(50, 100);
	fake.before = take_turns;
	struct result result = list_path("", NULL, 0);
	CHECK(!result.err && result.entries == 5000);
	CHECK(result.counts.depth < DPX_LIST_DEEPEST);
	free(result.text);
}

/* ---- stopping ---- */

static void wait_for_hang(void)
{
	pthread_mutex_lock(&fake.lock);
	while (!fake.hanging)
		pthread_cond_wait(&fake.changed, &fake.lock);
	pthread_mutex_unlock(&fake.lock);
}

static void end_hang(void)
{
	pthread_mutex_lock(&fake.lock);
	fake.hang = 0;
	pthread_cond_broadcast(&fake.changed);
	pthread_mutex_unlock(&fake.lock);
}

static long ms_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void test_close_does_not_wait_for_a_hanging_store(void)
{
	small_tree();
	fake.hang = 1;
	struct dpx_session *session = open_session();
	struct dpx_listing *listing = begin(session, 2);
	const struct dpx_list_entry *entries;
	size_t count;
	CHECK(dpx_listing_next(listing, 20, &entries, &count) == EAGAIN);
	wait_for_hang();
	long start = ms_now();
	dpx_listing_close(listing, 50);
	CHECK(ms_now() - start < 1000);
	CHECK(atomic_load(&session->counters.listings_live) == 1); /* the runner keeps it */
	end_hang();
	for (int turn = 0; turn < 500 && atomic_load(&session->counters.listings_live); turn++)
		rest(10);
	close_session(session);
}

static void *cancel_soon(void *listing)
{
	rest(30);
	dpx_listing_cancel(listing);
	return NULL;
}

static void test_cancel_ends_a_next_that_waits(void)
{
	small_tree();
	fake.hang = 1;
	struct dpx_session *session = open_session();
	struct dpx_listing *listing = begin(session, 2);
	pthread_t thread;
	const struct dpx_list_entry *entries;
	size_t count = 1;
	CHECK(pthread_create(&thread, NULL, cancel_soon, listing) == 0);
	long start = ms_now();
	CHECK(dpx_listing_next(listing, 20000, &entries, &count) == 0 && count == 0);
	CHECK(ms_now() - start < 5000);
	pthread_join(thread, NULL);
	end_hang();
	dpx_listing_close(listing, 5000);
	close_session(session);
}

static void test_closing_early_at_every_block(void)
{
	big_tree(30, 1000);
	fake.tell_sizes = 1;
	for (int blocks = 0; blocks < 12; blocks++) {
		struct dpx_session *session = open_session();
		struct dpx_listing *listing = begin(session, 3);
		for (int i = 0; i < blocks; i++)
			take(listing);
		dpx_listing_close(listing, 5000);
		close_session(session);
	}
}

static void test_closed_session_is_an_error(void)
{
	big_tree(200, 100);
	struct dpx_session *session = open_session();
	struct dpx_listing *listing = begin(session, 2);
	const struct dpx_list_entry *entries;
	size_t count;
	int rc;
	take(listing);
	CHECK(dpx_session_close(session, 5000) == 0);
	while ((rc = dpx_listing_next(listing, 50, &entries, &count)) == 0 && count > 0)
		continue;
	CHECK(rc == EBADF);
	dpx_listing_close(listing, 5000);
	CHECK(atomic_load(&session->counters.listings_live) == 0);
	dpx_session_release(session);
}

int main(void)
{
	RUN(test_order_and_links);
	RUN(test_bad_roots);
	RUN(test_start_after);
	RUN(test_stores_that_tell_less_or_more);
	RUN(test_one_wide_directory_in_parts_and_steps);
	RUN(test_names_only_looks_at_links_alone);
	RUN(test_fault_at_every_call);
	RUN(test_changes_between_reading_and_looking);
	RUN(test_changes_between_passes);
	RUN(test_directory_that_never_holds_still);
	RUN(test_read_ahead_is_bounded);
	RUN(test_looks_ahead_are_bounded);
	RUN(test_deep_tree);
	RUN(test_depth_follows_sleep);
	RUN(test_runners_that_wait_for_each_other_stay_few);
	RUN(test_close_does_not_wait_for_a_hanging_store);
	RUN(test_cancel_ends_a_next_that_waits);
	RUN(test_closing_early_at_every_block);
	RUN(test_closed_session_is_an_error);
	free(fake.files);
	return 0;
}
