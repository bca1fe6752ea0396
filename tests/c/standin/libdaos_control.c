/* Settings, faults and counts: standin.h says what there is. Calls take no lock unless there are faults: where many
 * threads call at once, they would wait for this file more than for the store that it stands for. */
#include "standin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_ROOM 1024
#define MOST_FAULTS 32
#define MOST_FUNCTIONS 64

struct setting {
	const char *name, *standard;
	char value[VALUE_ROOM];
	atomic_long number;
	atomic_char initial;
};

static struct setting settings[] = {
	{.name = "STANDIN_ROOT", .standard = "."},
	{.name = "STANDIN_AGENT", .standard = ""},
	{.name = "STANDIN_ENGINE", .standard = ""},
	{.name = "STANDIN_ENGINE_US", .standard = "10000000"},
	{.name = "STANDIN_VERSION", .standard = "2.8.0"},
	{.name = "STANDIN_POOL", .standard = ""},
	{.name = "STANDIN_CONTAINER", .standard = ""},
	{.name = "STANDIN_PARTS", .standard = "1"},
	{.name = "STANDIN_COST", .standard = "none"},
	{.name = "STANDIN_DELAY_US", .standard = "0"},
	{.name = "STANDIN_INIT_US", .standard = "25000"},
	{.name = "STANDIN_CONNECT_US", .standard = "50000"},
	{.name = "STANDIN_QUEUE_US", .standard = "9500"},
	{.name = "STANDIN_REINIT_US", .standard = "13000"},
	{.name = "STANDIN_LOOKUP_US", .standard = "45"},
	{.name = "STANDIN_READ_US", .standard = "32"},
	{.name = "STANDIN_SIZE_US", .standard = "34"},
	{.name = "STANDIN_STAT_US", .standard = "78"},
	{.name = "STANDIN_ROUND_US", .standard = "45"},
	{.name = "STANDIN_READDIR_US", .standard = "2"},
	{.name = "STANDIN_WRITE_US", .standard = "100"},
	{.name = "STANDIN_CHANGE_US", .standard = "100"},
	{.name = "STANDIN_FAIL", .standard = ""},
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

struct fault {
	char function[64];
	long from, to; /* calls, counted from 1 */
	int dead;
	struct standin_fault what;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all that is not atomic */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct fault faults[MOST_FAULTS];
static size_t fault_count;
static atomic_int armed; /* there are faults, or the connection is lost */
static struct {
	char name[64];
	atomic_long calls;
} functions[MOST_FUNCTIONS]; /* names stay once they are in */
static atomic_uint function_count;
static atomic_long any_calls;
static atomic_int dead;
static atomic_long living[LIVE_COUNT];
static atomic_long made_class, made_chunk;
static atomic_long paying, most_paying;

/* "FUNCTION:WHEN=WHAT", cut apart in place. */
static int parse_fault(char *text, struct fault *out)
{
	char *colon = strchr(text, ':'), *equals = strchr(text, '='), *end;
	*out = (struct fault){0};
	if (!colon || !equals || colon > equals || colon - text >= (long)sizeof(out->function))
		return -1;
	*colon = *equals = '\0';
	const char *when = colon + 1, *what = equals + 1;
	memcpy(out->function, text, strlen(text) + 1);
	out->from = 1;
	out->to = __LONG_MAX__;
	if (strcmp(when, "*") != 0) {
		out->from = strtol(when, &end, 10);
		if (out->from < 1 || (*end && strcmp(end, "+") != 0))
			return -1;
		out->to = *end ? __LONG_MAX__ : out->from;
	}
	out->what.is_short = strcmp(what, "short") == 0;
	out->what.until = strcmp(what, "never") == 0;
	out->dead = strcmp(what, "dead") == 0;
	if (strncmp(what, "late:", 5) == 0)
		out->what.late = atoi(what + 5);
	else
		out->what.code = atoi(what);
	return out->what.is_short || out->what.until || out->dead || out->what.late > 0 || out->what.code > 0 ? 0 : -1;
}

static int parse_faults(const char *text)
{
	char copy[VALUE_ROOM], *rest = copy, *one;
	snprintf(copy, sizeof(copy), "%s", text);
	fault_count = 0;
	while ((one = strsep(&rest, ",")))
		if (*one && (fault_count == MOST_FAULTS || parse_fault(one, &faults[fault_count++])))
			return -1;
	return 0;
}

static struct setting *find(const char *name)
{
	for (size_t i = 0; i < SETTINGS; i++)
		if (strcmp(settings[i].name, name) == 0)
			return &settings[i];
	return NULL;
}

static int set_locked(struct setting *setting, const char *value)
{
	size_t len = strlen(value);
	if (len >= VALUE_ROOM)
		return -1;
	memcpy(setting->value, value, len + 1);
	atomic_store(&setting->number, strtol(value, NULL, 10));
	atomic_store(&setting->initial, value[0]);
	if (strcmp(setting->name, "STANDIN_FAIL") != 0)
		return 0;
	int rc = parse_faults(value);
	atomic_store(&armed, fault_count > 0 || dead);
	return rc;
}

static void reset_locked(void)
{
	dead = 0;
	for (size_t i = 0; i < SETTINGS; i++) {
		const char *value = getenv(settings[i].name);
		value = value ? value : settings[i].standard;
		if (set_locked(&settings[i], value)) {
			fprintf(stderr, "stand-in: %s=%s makes no sense\n", settings[i].name, value);
			abort();
		}
	}
	for (size_t i = 0; i < MOST_FUNCTIONS; i++)
		atomic_store(&functions[i].calls, 0);
	atomic_store(&any_calls, 0);
	atomic_store(&most_paying, 0);
}

/* A child must not find the lock held by a thread that it does not have. */
static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

static void begin(void)
{
	reset_locked();
	pthread_atfork(before_fork, after_fork, after_fork);
}

static void start(void)
{
	pthread_once(&once, begin);
}

static void enter(void)
{
	start();
	pthread_mutex_lock(&lock);
}

static int leave(int rc)
{
	pthread_mutex_unlock(&lock);
	return rc;
}

int standin_set(const char *name, const char *value)
{
	struct setting *setting = find(name);
	enter();
	return leave(setting ? set_locked(setting, value) : -1);
}

void standin_reset(void)
{
	enter();
	reset_locked();
	leave(0);
}

const char *standin_text(const char *name)
{
	enter();
	const char *value = find(name)->value;
	leave(0);
	return value;
}

long standin_number(const char *name)
{
	start();
	return atomic_load_explicit(&find(name)->number, memory_order_relaxed);
}

char standin_initial(const char *name)
{
	start();
	return atomic_load_explicit(&find(name)->initial, memory_order_relaxed);
}

static unsigned place_of(const char *function, unsigned from, unsigned count)
{
	while (from < count && strcmp(functions[from].name, function) != 0)
		from++;
	return from;
}

static atomic_long *calls_of(const char *function)
{
	unsigned count = atomic_load(&function_count), at = place_of(function, 0, count);
	if (at == count) {
		pthread_mutex_lock(&lock);
		count = atomic_load(&function_count);
		at = place_of(function, at, count);
		if (at == count && count < MOST_FUNCTIONS) {
			snprintf(functions[at].name, sizeof(functions[at].name), "%s", function);
			atomic_store(&function_count, count + 1);
		}
		pthread_mutex_unlock(&lock);
	}
	return &functions[at < MOST_FUNCTIONS ? at : MOST_FUNCTIONS - 1].calls;
}

struct standin_fault standin_enter(const char *function, int remote)
{
	struct standin_fault what = {0};
	start();
	long calls = atomic_fetch_add(calls_of(function), 1) + 1;
	long any_now = atomic_fetch_add(&any_calls, remote >= 0) + (remote >= 0);
	if (remote > 0 && strcmp(function, "daos_reinit") != 0 && standin_thread_is_old())
		what.code = strncmp(function, "dfs_", 4) == 0 ? EINVAL : ABI_DER_INVAL;
	if (!atomic_load(&armed))
		return what;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < fault_count; i++) {
		const struct fault *fault = &faults[i];
		int any = strcmp(fault->function, "any") == 0;
		long at = any ? any_now : calls;
		if ((any ? remote < 0 : strcmp(fault->function, function) != 0) || at < fault->from || at > fault->to)
			continue;
		if (fault->dead)
			dead = 1;
		what = fault->what;
		what.until = what.until ? standin_next_release() : 0;
	}
	if (dead && remote > 0)
		what.code = EIO;
	leave(0);
	return what;
}

long standin_count(const char *what)
{
	static const char *const names[LIVE_COUNT] = {
		[LIVE_INITS] = "inits",   [LIVE_MOUNTS] = "mounts", [LIVE_OBJECTS] = "objects",
		[LIVE_QUEUES] = "queues", [LIVE_EVENTS] = "events", [LIVE_READS] = "reads",
		[LIVE_HANDLES] = "handles",
	};
	start();
	long count = strcmp(what, "calls") == 0 ? atomic_load(&any_calls)
		     : strncmp(what, "dfs_", 4) == 0 || strncmp(what, "daos_", 5) == 0 ? atomic_load(calls_of(what)) : -1;
	if (strcmp(what, "at_once") == 0)
		count = atomic_load(&most_paying);
	if (strcmp(what, "class") == 0)
		count = atomic_load(&made_class);
	if (strcmp(what, "chunk") == 0)
		count = atomic_load(&made_chunk);
	for (size_t i = 0; i < LIVE_COUNT; i++)
		if (strcmp(names[i], what) == 0)
			count = atomic_load(&living[i]);
	return count;
}

void standin_made(uint32_t cid, uint64_t chunk_size)
{
	atomic_store(&made_class, (long)cid);
	atomic_store(&made_chunk, (long)chunk_size);
}

void standin_paying(int change)
{
	long now = atomic_fetch_add(&paying, change) + change, most = atomic_load(&most_paying);
	while (now > most && !atomic_compare_exchange_weak(&most_paying, &most, now))
		continue;
}

void standin_live(enum standin_live what, long change)
{
	atomic_fetch_add(&living[what], change);
}

long standin_living(enum standin_live what)
{
	return atomic_load(&living[what]);
}

int standin_is_dead(void)
{
	start();
	return atomic_load(&dead);
}
