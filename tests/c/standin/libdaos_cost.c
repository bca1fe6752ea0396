/* What calls cost, and names that are derived. */
#include "standin.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t standin_now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static int64_t price(enum standin_cost cost, unsigned count)
{
	static const char *const names[COST_COUNT] = {
		[COST_INIT] = "STANDIN_INIT_US",       [COST_CONNECT] = "STANDIN_CONNECT_US",
		[COST_QUEUE] = "STANDIN_QUEUE_US",     [COST_REINIT] = "STANDIN_REINIT_US",
		[COST_LOOKUP] = "STANDIN_LOOKUP_US",   [COST_READ] = "STANDIN_READ_US",
		[COST_SIZE] = "STANDIN_SIZE_US",       [COST_STAT] = "STANDIN_STAT_US",
		[COST_ROUND] = "STANDIN_ROUND_US",     [COST_READDIR] = "STANDIN_READDIR_US",
		[COST_WRITE] = "STANDIN_WRITE_US",     [COST_CHANGE] = "STANDIN_CHANGE_US",
	};
	return standin_number(names[cost]) * 1000 * count;
}

static void sleep_ns(int64_t span)
{
	static _Thread_local int exact; /* else the system adds 50 us */
	if (!exact)
		exact = prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL) == 0;
	struct timespec left = {.tv_sec = span / 1000000000, .tv_nsec = span % 1000000000};
	while (nanosleep(&left, &left) && errno == EINTR)
		continue;
}

int64_t standin_pay_later(enum standin_cost cost, unsigned count)
{
	char mode = standin_initial("STANDIN_COST");
	if (mode != 's' && mode != 'b')
		return 0;
	int64_t span = price(cost, count);
	if (mode == 's')
		return span;
	int64_t until = clock_ns(CLOCK_THREAD_CPUTIME_ID) + span;
	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < until)
		continue;
	return 0;
}

void standin_pay(enum standin_cost cost, unsigned count)
{
	standin_paying(1);
	int64_t span = standin_pay_later(cost, count);
	if (span)
		sleep_ns(span);
	standin_paying(-1);
}

void standin_uuid(const char *label, char out[37])
{
	uint64_t hash[2] = {14695981039346656037u, 1099511628211u};
	for (const char *at = label; *at; at++)
		for (int i = 0; i < 2; i++)
			hash[i] = (hash[i] ^ (unsigned char)*at) * (1099511628211u + 2u * (unsigned)i);
	snprintf(out, 37, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(hash[0] >> 32), (unsigned)(hash[0] >> 16) & 0xffff,
		 (unsigned)hash[0] & 0xffff, (unsigned)(hash[1] >> 48),
		 (unsigned long long)hash[1] & 0xffffffffffffull);
}
