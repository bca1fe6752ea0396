/* The parts of the engine one by one: the pool of threads, buffers, the depth, writing, the posix and delay tables. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adapt.h"
#include "buffers.h"
#include "fake_files.h"
#include "gate.h"
#include "io_delay.h"
#include "monotonic.h"
#include "pool.h"
#include "put.h"
#include "session.h"
#include "write_file.h"

/* ---- pool ---- */

static atomic_int ran, holding;

static void count_task(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ran, 1);
}

static void hold_task(void *arg)
{
	(void)arg;
	while (atomic_load(&holding))
		fake_sleep(1000);
	atomic_fetch_add(&ran, 1);
}

static void test_pool_runs_all_tasks_on_few_threads(void)
{
	struct dpx_pool *pool;
	atomic_store(&ran, 0);
	CHECK(dpx_pool_create(3, &pool) == 0);
	CHECK(dpx_pool_threads(pool) == 0);
	for (int i = 0; i < 100; i++)
		CHECK(dpx_pool_submit(pool, count_task, NULL, 10) == 0);
	CHECK(dpx_pool_threads(pool) <= 3);
	CHECK(dpx_pool_close(pool, 5000) == 0);
	CHECK(atomic_load(&ran) == 1000);
	CHECK(dpx_pool_submit(pool, count_task, NULL, 1) == ESHUTDOWN);
	dpx_pool_release(pool);
}

static void test_pool_is_left_while_a_task_hangs(void)
{
	struct dpx_pool *pool;
	atomic_store(&ran, 0);
	atomic_store(&holding, 1);
	CHECK(dpx_pool_create(2, &pool) == 0);
	CHECK(dpx_pool_submit(pool, hold_task, NULL, 3) == 0);
	CHECK(dpx_pool_close(pool, 20) == ETIMEDOUT);
	dpx_pool_release(pool);
	atomic_store(&holding, 0);
	for (int i = 0; i < 2000 && atomic_load(&ran) < 3; i++)
		fake_sleep(1000);
	CHECK(atomic_load(&ran) == 3); /* the queued one as well */
}

/* ---- gate ---- */

static struct dpx_gate gate;

static void *pass_gate(void *arg)
{
	CHECK(dpx_gate_enter(&gate, 10) == ETIMEDOUT);
	CHECK(dpx_gate_enter(&gate, 5000) == 0);
	dpx_gate_leave(&gate);
	return arg;
}

static void test_gate_lets_one_thread_in(void)
{
	pthread_t thread;
	CHECK(dpx_gate_init(&gate) == 0);
	CHECK(dpx_gate_enter(&gate, 0) == 0);
	CHECK(dpx_gate_enter(&gate, 0) == EDEADLK);
	CHECK(pthread_create(&thread, NULL, pass_gate, NULL) == 0);
	fake_sleep(30000);
	dpx_gate_leave(&gate);
	CHECK(pthread_join(thread, NULL) == 0);
	dpx_gate_destroy(&gate);
}

/* ---- buffers ---- */

static void test_buffers_are_large_enough_and_not_much_larger(void)
{
	for (size_t bytes = 1; bytes < (size_t)1 << 40; bytes += bytes / 7 + 1) {
		size_t capacity = dpx_buffers_capacity(bytes);
		CHECK(capacity >= bytes);
		CHECK(capacity <= bytes + bytes / 4 + 4096);
		CHECK(dpx_buffers_capacity(capacity) == capacity);
	}
}

static void test_buffers_are_reused_within_the_bound(void)
{
	struct dpx_buffers *buffers;
	struct dpx_buffer *taken[8];
	struct dpx_buffers_stats stats;
	const size_t mib = (size_t)1 << 20;
	CHECK(dpx_buffers_create(&buffers) == 0);
	dpx_buffers_keep(buffers, (int64_t)(64 * mib));
	CHECK(dpx_buffers_get(buffers, 5 * mib, &taken[0]) == 0);
	unsigned char *data = taken[0]->data;
	memset(data, 1, 5 * mib);
	dpx_buffer_release(taken[0]);
	CHECK(dpx_buffers_get(buffers, 5 * mib, &taken[0]) == 0);
	CHECK(taken[0]->data == data);
	for (int i = 1; i < 8; i++)
		CHECK(dpx_buffers_get(buffers, 20 * mib, &taken[i]) == 0);
	for (int i = 0; i < 7; i++)
		dpx_buffer_release(taken[i]);
	dpx_buffers_stats(buffers, &stats);
	CHECK(stats.live == 1 && stats.kept_bytes > 0);
	CHECK(stats.live_bytes + stats.kept_bytes <= 64 * mib);
	dpx_buffers_keep(buffers, -(int64_t)(64 * mib));
	dpx_buffers_stats(buffers, &stats);
	CHECK(stats.kept_bytes <= 8 * mib);
	dpx_buffers_release(buffers);
	memset(taken[7]->data, 2, 20 * mib); /* a view outlives the session */
	dpx_buffer_release(taken[7]);
	dpx_buffer_release(NULL);
}

/* ---- depth ---- */

struct machine {
	double latency_s, cost_s; /* an item sleeps so long, and takes so much of a core */
	double cores, consumer_s; /* the consumer takes so much of a core for each item */
	double crowd;             /* and each thread more costs so much, as a part */
	double noise;
	double stall_s, stall_every_s; /* others have the cores for so long, now and then */
};

/* Items a second at that depth. */
static double rate_of(const struct machine *machine, double depth)
{
	double threads = depth / (machine->latency_s + machine->cost_s);
	double cpu = machine->cores / (machine->cost_s * (1 + machine->crowd * depth) + machine->consumer_s);
	double pace = 1 / machine->cost_s * (depth < machine->cores ? depth : machine->cores);
	double least = threads < cpu ? threads : cpu;
	return least < pace ? least : pace;
}

static double best_rate(const struct machine *machine, unsigned most)
{
	double best = 0;
	for (unsigned depth = 1; depth <= most; depth++)
		if (rate_of(machine, depth) > best)
			best = rate_of(machine, depth);
	return best;
}

static double random_part(void)
{
	static uint64_t state = 88172645463325252u;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (double)(state >> 11) / (double)(UINT64_C(1) << 53);
}

/* Run for so many seconds of the machine's time; the mean rate of the last one. */
static double simulate(const struct machine *machine, unsigned most, double seconds, unsigned *depth)
{
	struct dpx_adapt adapt;
	double now = 0, counted = 0;
	dpx_adapt_init(&adapt, 4, most);
	dpx_adapt_begin(&adapt, 0);
	while (now < seconds) {
		double noise = 1 + machine->noise * (2 * random_part() - 1);
		double item = 1 / (rate_of(machine, adapt.depth) * noise);
		now += item;
		if (machine->stall_every_s > 0 && random_part() < item / machine->stall_every_s)
			now += 2 * machine->stall_s * random_part();
		counted += now > seconds - 1;
		dpx_adapt_done(&adapt, 8192, (int64_t)(now * 1e9));
	}
	*depth = adapt.depth;
	return counted;
}

static void test_depth_comes_near_the_best_within_two_seconds(void)
{
	static const struct machine machines[] = {
		{.cost_s = 6e-6, .cores = 2, .consumer_s = 1.5e-6, .crowd = 0.01, .noise = 0.3},  /* page cache */
		{.cost_s = 26e-6, .cores = 2, .consumer_s = 3e-6, .crowd = 0.05, .noise = 0.3},
		{.cost_s = 6e-6, .cores = 16, .consumer_s = 1e-6, .crowd = 0.02, .noise = 0.3},
		{.latency_s = 2e-4, .cost_s = 8e-6, .cores = 2, .consumer_s = 1.5e-6, .noise = 0.3}, /* sleeping opens */
		{.latency_s = 2e-3, .cost_s = 8e-6, .cores = 2, .consumer_s = 1.5e-6, .noise = 0.3},
		{.latency_s = 2e-2, .cost_s = 8e-6, .cores = 2, .consumer_s = 1.5e-6, .noise = 0.3},
		{.latency_s = 1e-3, .cost_s = 60e-6, .cores = 2, .consumer_s = 10e-6, .crowd = 0.03, .noise = 0.3},
	};
	for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
		unsigned depth;
		double got = simulate(&machines[i], 64, 3, &depth), best = best_rate(&machines[i], 64);
		printf("  %.0f of %.0f a second at depth %u\n", got, best, depth);
		CHECK(got >= 0.9 * best);
	}
}

/* The mean over many starts of the depth found by then; what is best is found within half a second. */
static void test_stalls_do_not_end_the_climb(void)
{
	static const struct machine machine = {.latency_s = 2e-4, .cost_s = 2e-5, .cores = 2, .consumer_s = 2e-6,
					       .noise = 0.3, .stall_s = 5e-3, .stall_every_s = 2e-2};
	double best = best_rate(&machine, 64), got = 0;
	for (unsigned i = 0; i < 100; i++) {
		unsigned depth;
		simulate(&machine, 64, 0.2, &depth);
		got += rate_of(&machine, depth) / 100;
	}
	printf("  %.0f of %.0f a second\n", got, best);
	CHECK(got >= 0.8 * best);
}

static void test_depth_is_one_where_there_is_no_choice(void)
{
	const struct machine machine = {.latency_s = 1e-3, .cost_s = 1e-5, .cores = 2, .consumer_s = 1e-6};
	unsigned depth;
	simulate(&machine, 1, 1, &depth);
	CHECK(depth == 1);
}

/* ---- sessions, writing ---- */

static char root[] = "/tmp/dpx-test-XXXXXX";

static struct dpx_session *open_root(unsigned delay_us)
{
	struct dpx_session_spec spec = {.io = dpx_io_find("posix"), .root = root, .open_delay_us = delay_us};
	struct dpx_session *session;
	char why[DPX_WHY_ROOM];
	CHECK(dpx_session_open(&spec, &session, why) == 0 && !why[0]);
	return session;
}

static void test_session_that_cannot_open(void)
{
	struct dpx_session_spec spec = {.io = dpx_io_find("posix"), .root = "/nowhere/at/all"};
	struct dpx_session *session;
	char why[DPX_WHY_ROOM];
	CHECK(dpx_session_open(&spec, &session, why) == ENOENT);
	CHECK(!why[0]); /* the errno says it all */
	spec.open_delay_us = 5;
	CHECK(dpx_session_open(&spec, &session, why) == ENOENT);
	CHECK(dpx_io_find("nothing") == NULL);
}

static size_t entries_of(const char *path)
{
	size_t count = 0;
	DIR *dir = opendir(path);
	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 2;
}

static void test_put_makes_parents_and_replaces(void)
{
	struct dpx_session *session = open_root(0);
	struct dpx_stat st;
	char where[64];
	CHECK(dpx_put_file(session, "a/b/c", "12345", 5) == 0);
	CHECK(dpx_put_file(session, "a/b/c", "123", 3) == 0);
	CHECK(dpx_session_stat(session, "a/b/c", &st) == 0 && st.size == 3 && st.kind == DPX_KIND_FILE);
	CHECK(dpx_put_directory(session, "a/b") == 0 && dpx_put_directory(session, "") == 0);
	CHECK(dpx_put_directory(session, "a/b/c/d") == ENOTDIR || dpx_put_directory(session, "a/b/c") == EEXIST);
	CHECK(dpx_put_file(session, "a/b", "x", 1) != 0); /* a directory stands there */
	CHECK(dpx_put_file(session, "../x", "x", 1) == EINVAL);
	CHECK(dpx_session_rename(session, "a/b/c", "a/../../x") == EINVAL);
	CHECK(dpx_session_rename(session, "a/b/c", "a/z") == 0);
	CHECK(dpx_session_remove(session, "a/z") == 0 && dpx_session_remove(session, "a/b") == 0);
	CHECK(dpx_session_remove(session, "a/z") == ENOENT);
	snprintf(where, sizeof(where), "%s/a", root);
	CHECK(entries_of(where) == 0); /* nothing of what failed */
	CHECK(dpx_session_remove(session, "a") == 0);
	CHECK(atomic_load(&session->counters.files_open) == 0);
	dpx_session_release(session);
}

static void test_write_file_takes_parts_in_any_order(void)
{
	struct dpx_session *session = open_root(0);
	struct dpx_write_file *file;
	struct dpx_stat st;
	CHECK(dpx_write_file_open(session, "w", &(struct dpx_new_file){.mode = 0640}, &file) == 0);
	CHECK(dpx_write_file_put(file, "45", 2, 3) == 0 && dpx_write_file_put(file, "123", 3, 0) == 0);
	CHECK(dpx_write_file_sync(file) == 0);
	CHECK(atomic_load(&session->counters.files_open) == 1);
	dpx_write_file_close(file);
	CHECK(dpx_session_stat(session, "w", &st) == 0 && st.size == 5 && (st.mode & 0777) == 0640);
	CHECK(dpx_write_file_open(session, "no/w", &(struct dpx_new_file){0}, &file) == ENOENT);
	CHECK(dpx_session_remove(session, "w") == 0);
	dpx_session_release(session);
}

static void test_delay_table_sleeps_at_open_and_else_passes_on(void)
{
	struct dpx_session *session = open_root(20000);
	void *file;
	char text[8];
	size_t got;
	CHECK(dpx_put_file(session, "d", "123", 3) == 0);
	int64_t before = dpx_now_ns();
	CHECK(dpx_session_open_file(session, "d", &file) == 0);
	CHECK(dpx_now_ns() - before >= 20000000);
	CHECK(session->io.read(file, text, sizeof(text), 1, &got) == 0 && got == 2 && text[0] == '2');
	dpx_session_close_file(session, file);
	CHECK(dpx_session_remove(session, "d") == 0);
	dpx_session_release(session);
}

static void test_opening_a_pipe_does_not_wait(void)
{
	struct dpx_session *session = open_root(0);
	void *file;
	char path[64], text[8];
	size_t got;
	snprintf(path, sizeof(path), "%s/pipe", root);
	CHECK(mkfifo(path, 0600) == 0);
	CHECK(dpx_session_open_file(session, "pipe", &file) == 0);
	CHECK(session->io.read(file, text, sizeof(text), 0, &got) != 0);
	dpx_session_close_file(session, file);
	CHECK(dpx_session_remove(session, "pipe") == 0);
	dpx_session_release(session);
}

int main(void)
{
	CHECK(mkdtemp(root));
	RUN(test_pool_runs_all_tasks_on_few_threads);
	RUN(test_pool_is_left_while_a_task_hangs);
	RUN(test_gate_lets_one_thread_in);
	RUN(test_buffers_are_large_enough_and_not_much_larger);
	RUN(test_buffers_are_reused_within_the_bound);
	RUN(test_depth_comes_near_the_best_within_two_seconds);
	RUN(test_stalls_do_not_end_the_climb);
	RUN(test_depth_is_one_where_there_is_no_choice);
	RUN(test_session_that_cannot_open);
	RUN(test_put_makes_parents_and_replaces);
	RUN(test_write_file_takes_parts_in_any_order);
	RUN(test_delay_table_sleeps_at_open_and_else_passes_on);
	RUN(test_opening_a_pipe_does_not_wait);
	CHECK(rmdir(root) == 0);
	(void)fake_io;
	return 0;
}
