/* The batch reader below Python, on a store that counts, lies, is slow, fails at each call in turn, or hangs. */
#include "reader.h"

#include "fake_files.h"

#define WINDOW_MOST 64

/* A call that has not come back by then never will; all others have, on a machine that is busy too. */
#define NEVER_NS (INT64_C(2) * 1000000000)

/* A consumer as the Python layer is one: it keeps a window of requests out and checks every byte of what comes. */
struct consumer {
	struct dpx_session *session;
	struct dpx_reader *reader;
	struct dpx_read_options options;
	const char *(*name)(size_t i); /* of request i */
	uint64_t (*told)(size_t i);    /* the size it is said to have; NULL: not known */
	size_t count;
	size_t window; /* requests out at once; 0: max_in_flight */
	size_t pushed, given, errors;
	int last_error;
	uint64_t most_held; /* bytes of read-ahead at once, as the session counts them */
	int seen[4096];
};

static atomic_int owners; /* tags and memory of the consumer's that are out */

static void *new_owner(uint64_t bytes)
{
	atomic_fetch_add(&owners, 1);
	return malloc(bytes);
}

static void free_owner(void *owner)
{
	if (owner)
		atomic_fetch_sub(&owners, 1);
	free(owner);
}

static struct dpx_session *open_session(void)
{
	struct dpx_session_spec spec = {.io = &fake_io, .root = ""};
	struct dpx_session *session;
	char why[DPX_WHY_ROOM];
	CHECK(dpx_session_open(&spec, &session, why) == 0);
	return session;
}

static void note_memory(struct consumer *me)
{
	struct dpx_buffers_stats stats;
	dpx_buffers_stats(me->session->buffers, &stats);
	if (stats.live_bytes > me->most_held)
		me->most_held = stats.live_bytes;
}

static void push(struct consumer *me)
{
	struct dpx_item *items[WINDOW_MOST];
	size_t count = 0;
	size_t window = me->window ? me->window : me->options.max_in_flight;
	while (me->pushed + count < me->count && me->pushed + count - me->given < window) {
		size_t i = me->pushed + count;
		struct dpx_item *item = items[count++] = dpx_item_new();
		item->length = DPX_SIZE_UNKNOWN;
		item->size = me->told ? me->told(i) : DPX_SIZE_UNKNOWN;
		item->tag = new_owner(1);
		CHECK(dpx_item_set_path(item, me->name(i), strlen(me->name(i))) == 0);
	}
	size_t promised = me->options.consumer_memory ? dpx_reader_promise(me->reader, items, count) : 0;
	for (size_t i = 0; i < promised; i++)
		if (items[i]->held)
			items[i]->dest = items[i]->owner = new_owner(items[i]->held);
	me->pushed += count;
	dpx_reader_push(me->reader, items, count);
}

static void use(struct consumer *me, struct dpx_item *item)
{
	CHECK(item->position < me->count && !me->seen[item->position]++);
	if (me->options.ordered)
		CHECK(item->position == me->given);
	if (item->status.err) {
		me->errors++;
		me->last_error = item->status.err;
	} else {
		uint64_t size = strtoull(me->name(item->position), NULL, 10);
		CHECK(item->got == size);
		for (uint64_t i = 0; i < size; i++)
			CHECK(((unsigned char *)item->dest)[i] == (size + i) % 251);
	}
	me->given++;
	free_owner(item->owner);
	free_owner(item->tag);
	item->owner = item->tag = NULL;
}

static void provide(struct consumer *me, struct dpx_taken *taken)
{
	for (size_t i = 0; i < taken->wanting_count; i++) {
		void *memory = new_owner(taken->wanting[i]->want);
		dpx_reader_provide(me->reader, taken->wanting[i], memory, memory);
	}
}

/* Take until `count` results were given in all. */
static void consume(struct consumer *me, size_t count)
{
	struct dpx_taken taken;
	while (me->given < count) {
		push(me);
		int rc = dpx_reader_take(me->reader, 50, &taken);
		CHECK(rc == 0 || rc == EAGAIN);
		note_memory(me);
		provide(me, &taken);
		for (size_t i = 0; i < taken.done_count; i++)
			use(me, taken.done[i]);
		dpx_reader_recycle(me->reader, taken.done, taken.done_count);
		for (size_t i = 0; i < taken.done_count; i++)
			dpx_item_free(taken.done[i]);
	}
}

static void start(struct consumer *me)
{
	me->session = open_session();
	me->options.disown = free_owner;
	CHECK(dpx_reader_open(me->session, &me->options, &me->reader) == 0);
}

static void end(struct consumer *me, unsigned wait_ms)
{
	struct dpx_item *next;
	dpx_reader_cancel(me->reader);
	dpx_reader_drain(me->reader, wait_ms);
	for (struct dpx_item *item = dpx_reader_reap(me->reader); item; item = next) {
		next = item->link;
		free_owner(item->owner);
		free_owner(item->tag);
		dpx_item_free(item);
	}
	dpx_reader_close(me->reader);
	dpx_session_release(me->session);
}

static void run_all(struct consumer *me)
{
	struct dpx_taken taken;
	start(me);
	consume(me, me->count);
	CHECK(dpx_reader_take(me->reader, 0, &taken) == 0 && taken.done_count == 0);
	end(me, 5000);
	CHECK(atomic_load(&owners) == 0);
	fake_check_empty();
}

static const char *mixed_name(size_t i)
{
	static _Thread_local char name[32];
	static const unsigned sizes[] = {0, 1, 4096, 8192, 100, 65536, 200000, 65535, 17};
	snprintf(name, sizeof(name), "%u", sizes[i % (sizeof(sizes) / sizeof(sizes[0]))]);
	return name;
}

static uint64_t mixed_size(size_t i)
{
	return strtoull(mixed_name(i), NULL, 10);
}

static uint64_t sometimes(size_t i)
{
	return i % 3 ? mixed_size(i) : DPX_SIZE_UNKNOWN;
}

static void test_every_way_to_read_gives_every_byte(void)
{
	uint64_t (*const told[])(size_t) = {NULL, mixed_size, sometimes};
	for (int bits = 0; bits < 8; bits++) {
		for (int how = 0; how < 3; how++) {
			struct consumer me = {.name = mixed_name, .told = told[how], .count = 300};
			me.options = (struct dpx_read_options){
				.max_in_flight = bits & 4 ? 1 : 32,
				.max_bytes = (uint64_t)1 << 20,
				.ordered = bits & 1,
				.consumer_memory = !!(bits & 2),
				.timeout_ns = INT64_C(60000000000),
			};
			run_all(&me);
			CHECK(me.errors == 0);
		}
	}
}

static void test_batch_is_taken_when_all_of_it_is_there(void)
{
	struct consumer me = {.name = mixed_name, .told = mixed_size, .count = 60};
	struct dpx_taken taken;
	me.options = (struct dpx_read_options){
		.max_in_flight = 64, .max_bytes = UINT64_MAX / 2, .ordered = 1, .batch = 1, .depth = 3};
	start(&me);
	push(&me);
	while (dpx_reader_take(me.reader, 50, &taken) == EAGAIN)
		continue;
	CHECK(taken.done_count == DPX_TAKE_MOST);
	for (size_t i = 0; i < taken.done_count; i++)
		use(&me, taken.done[i]);
	dpx_reader_recycle(me.reader, taken.done, taken.done_count);
	for (size_t i = 0; i < taken.done_count; i++)
		dpx_item_free(taken.done[i]);
	consume(&me, me.count);
	end(&me, 5000);
	fake_check_empty();
}

static const char *large_name(size_t i)
{
	(void)i;
	return "70000";
}

/* Files that wait for memory are open: a batch of thousands must not take all descriptors. */
static void test_no_more_files_are_open_than_in_flight(void)
{
	for (int batch = 0; batch < 2; batch++) {
		struct consumer me = {.name = large_name, .count = 60};
		me.options = (struct dpx_read_options){.max_in_flight = 5,
						       .max_bytes = UINT64_MAX / 2,
						       .ordered = 1,
						       .batch = batch,
						       .consumer_memory = 1,
						       .depth = 3};
		me.window = 60;
		atomic_store(&fake.most_open, 0);
		run_all(&me);
		CHECK(me.errors == 0);
		CHECK(atomic_load(&fake.most_open) <= 5);
	}
}

/* As many bytes as there may be, at most, whatever comes in whatever order; one that is larger comes alone. */
static void test_memory_stays_within_its_bound(void)
{
	for (int bits = 0; bits < 4; bits++) {
		struct consumer me = {.name = mixed_name, .told = bits & 2 ? sometimes : NULL, .count = 600};
		me.options = (struct dpx_read_options){
			.max_in_flight = 64, .max_bytes = 512 << 10, .ordered = bits & 1, .depth = 8};
		run_all(&me);
		CHECK(me.errors == 0);
		CHECK(me.most_held <= 512 << 10);
	}
	for (int ordered = 0; ordered < 2; ordered++) {
		struct consumer me = {.name = mixed_name, .count = 100};
		me.options = (struct dpx_read_options){
			.max_in_flight = 64, .max_bytes = 1000, .ordered = ordered, .depth = 8};
		run_all(&me);
		CHECK(me.errors == 0);
		CHECK(me.most_held <= 229376 + 1000 / 8);
	}
}

static void test_sizes_that_mean_nothing_are_read_past(void)
{
	for (int how = 0; how < 2; how++) {
		atomic_store(how ? &fake.untold : &fake.zero, 1);
		struct consumer me = {.name = mixed_name, .count = 100};
		me.options = (struct dpx_read_options){
			.max_in_flight = 16, .max_bytes = 1 << 20, .ordered = 1, .consumer_memory = 1};
		run_all(&me);
		CHECK(me.errors == 0);
		atomic_store(&fake.untold, 0);
		atomic_store(&fake.zero, 0);
	}
}

static const char *plain_name(size_t i)
{
	(void)i;
	return "1000";
}

static uint64_t plain_size(size_t i)
{
	(void)i;
	return 1000;
}

static uint64_t too_small(size_t i)
{
	(void)i;
	return 999;
}

static void test_file_of_another_length_is_an_error(void)
{
	struct consumer shorter = {.name = plain_name, .told = plain_size, .count = 10};
	shorter.options = (struct dpx_read_options){.max_in_flight = 4, .max_bytes = 1 << 20, .ordered = 1};
	atomic_store(&fake.cut, 1);
	run_all(&shorter);
	atomic_store(&fake.cut, 0);
	CHECK(shorter.errors == 10 && shorter.last_error == ENODATA);
	struct consumer longer = {.name = plain_name, .told = too_small, .count = 10};
	longer.options = (struct dpx_read_options){
		.max_in_flight = 4, .max_bytes = 1 << 20, .ordered = 1, .verify_size = 1};
	run_all(&longer);
	CHECK(longer.errors == 10 && longer.last_error == EFBIG);
}

/* Each call to the store fails once: one item has an error, all others their bytes, and nothing is left open. */
static void test_a_fault_at_each_call_concerns_one_item(void)
{
	for (int how = 0; how < 4; how++) {
		long calls = 1;
		for (long k = 1; k <= calls; k += CALLS_STEP) {
			struct consumer me = {.name = mixed_name, .told = how & 1 ? mixed_size : NULL, .count = 30};
			me.options = (struct dpx_read_options){.max_in_flight = 8,
							       .max_bytes = 1 << 20,
							       .ordered = !(how & 2),
							       .consumer_memory = 1,
							       .verify_size = 1};
			atomic_store(&fake.calls, 0);
			atomic_store(&fake.fail_at, k);
			run_all(&me);
			CHECK(me.errors == (atomic_load(&fake.calls) >= k));
			calls = atomic_load(&fake.calls);
		}
		atomic_store(&fake.fail_at, 0);
	}
}

static const char *one_hangs(size_t i)
{
	return i == 5 ? "70000-hang" : mixed_name(i);
}

static void test_item_that_hangs_times_out_at_its_place(void)
{
	for (int memory = 0; memory < 2; memory++) {
		struct consumer me = {.name = one_hangs, .count = 100};
		me.options = (struct dpx_read_options){.max_in_flight = 16,
						       .max_bytes = 1 << 20,
						       .ordered = 1,
						       .consumer_memory = memory,
						       .timeout_ns = NEVER_NS};
		fake_hang(1);
		start(&me);
		consume(&me, me.count);
		CHECK(me.errors == 1 && me.last_error == ETIMEDOUT);
		CHECK(atomic_load(&me.session->counters.graveyard) == 1);
		CHECK(atomic_load(&fake.open) == 1 && atomic_load(&owners) == memory);
		end(&me, 5000);
		fake_hang(0);
		fake_check_empty();
		CHECK(atomic_load(&owners) == 0);
	}
}

static void test_threads_that_hang_are_replaced(void)
{
	struct consumer me = {.name = one_hangs, .count = 50};
	me.options = (struct dpx_read_options){
		.max_in_flight = 16, .max_bytes = 1 << 20, .ordered = 1, .depth = 1, .timeout_ns = NEVER_NS};
	fake_hang(1);
	start(&me);
	consume(&me, me.count);
	CHECK(me.errors == 1);
	end(&me, 5000);
	fake_hang(0);
	fake_check_empty();
}

static void test_closing_does_not_wait_for_a_hanging_thread(void)
{
	struct consumer me = {.name = one_hangs, .count = 100};
	struct dpx_taken taken;
	me.options = (struct dpx_read_options){
		.max_in_flight = 16, .max_bytes = 1 << 20, .ordered = 1, .consumer_memory = 1, .depth = 4};
	fake_hang(1);
	start(&me);
	consume(&me, 5);
	while (dpx_reader_take(me.reader, 10, &taken) == 0) {
		CHECK(taken.done_count == 0); /* the head of the line hangs; items behind it may want memory */
		provide(&me, &taken);
	}
	end(&me, 20);
	CHECK(atomic_load(&fake.mounts) == 1);
	fake_hang(0);
	fake_check_empty();
	for (int i = 0; i < 2000 && atomic_load(&owners); i++)
		fake_sleep(1000);
	CHECK(atomic_load(&owners) == 0);
}

static void test_slow_head_holds_memory_to_the_bound(void)
{
	struct consumer me = {.name = one_hangs, .count = 64};
	struct dpx_taken taken;
	me.options = (struct dpx_read_options){.max_in_flight = 64, .max_bytes = 1 << 20, .ordered = 1, .depth = 8};
	fake_hang(1);
	start(&me);
	consume(&me, 5);
	push(&me);
	fake_wait_hanging(1);
	for (int i = 0; i < 10; i++) {
		CHECK(dpx_reader_take(me.reader, 20, &taken) == EAGAIN);
		note_memory(&me);
	}
	struct dpx_buffers_stats stats;
	dpx_buffers_stats(me.session->buffers, &stats);
	CHECK(stats.live_bytes <= 1 << 20);
	fake_hang(0);
	consume(&me, me.count);
	end(&me, 5000);
	fake_check_empty();
}

static void test_depth_is_respected(void)
{
	struct consumer me = {.name = plain_name, .count = 200};
	me.options = (struct dpx_read_options){.max_in_flight = 64, .max_bytes = 1 << 20, .ordered = 0, .depth = 3};
	atomic_store(&fake.delay_us, 300);
	atomic_store(&fake.most_in_calls, 0);
	run_all(&me);
	CHECK(atomic_load(&fake.most_in_calls) == 3);
	atomic_store(&fake.delay_us, 0);
}

static void test_cancelling_at_any_moment_frees_all(void)
{
	atomic_store(&fake.delay_us, 50);
	for (size_t stop = 0; stop < 60; stop++) {
		struct consumer me = {.name = mixed_name, .told = stop % 2 ? mixed_size : NULL, .count = 100};
		me.options = (struct dpx_read_options){
			.max_in_flight = 32, .max_bytes = 300000, .ordered = stop % 3 != 0, .consumer_memory = stop % 5 != 0};
		start(&me);
		consume(&me, stop);
		push(&me);
		fake_sleep((long)stop * 7);
		end(&me, 5000);
		CHECK(atomic_load(&owners) == 0);
		fake_check_empty();
	}
	atomic_store(&fake.delay_us, 0);
}

static void *close_soon(void *arg)
{
	fake_sleep(30000);
	dpx_session_close(arg, 5000);
	return NULL;
}

static void test_closing_the_session_stops_its_readers(void)
{
	struct consumer me = {.name = plain_name, .count = 4096};
	struct dpx_taken taken;
	pthread_t thread;
	int rc;
	me.options = (struct dpx_read_options){.max_in_flight = 8, .max_bytes = 1 << 20, .ordered = 1};
	atomic_store(&fake.delay_us, 1000);
	start(&me);
	CHECK(pthread_create(&thread, NULL, close_soon, me.session) == 0);
	do {
		push(&me);
		rc = dpx_reader_take(me.reader, 50, &taken);
		for (size_t i = 0; i < taken.done_count; i++)
			use(&me, taken.done[i]);
		dpx_reader_recycle(me.reader, taken.done, taken.done_count);
		for (size_t i = 0; i < taken.done_count; i++)
			dpx_item_free(taken.done[i]);
	} while (rc == 0 || rc == EAGAIN);
	CHECK(rc == EBADF);
	CHECK(pthread_join(thread, NULL) == 0);
	end(&me, 5000);
	fake_check_empty();
	atomic_store(&fake.delay_us, 0);
}

int main(void)
{
	RUN(test_every_way_to_read_gives_every_byte);
	RUN(test_batch_is_taken_when_all_of_it_is_there);
	RUN(test_no_more_files_are_open_than_in_flight);
	RUN(test_memory_stays_within_its_bound);
	RUN(test_sizes_that_mean_nothing_are_read_past);
	RUN(test_file_of_another_length_is_an_error);
	RUN(test_a_fault_at_each_call_concerns_one_item);
	RUN(test_item_that_hangs_times_out_at_its_place);
	RUN(test_threads_that_hang_are_replaced);
	RUN(test_closing_does_not_wait_for_a_hanging_thread);
	RUN(test_slow_head_holds_memory_to_the_bound);
	RUN(test_depth_is_respected);
	RUN(test_cancelling_at_any_moment_frees_all);
	RUN(test_closing_the_session_stops_its_readers);
	return 0;
}
