/* How many threads to use: found by trying, from nothing but the throughput that was measured.
 *
 * At first the depth doubles while that pays, in one of two windows. Then it is held, and now and then a window of time is spent at a
 * larger or a smaller depth and compared with the windows before and after it: more threads are kept only when
 * they gain clearly, fewer as soon as they lose next to nothing. Trials that fail come ever more rarely. Only time
 * in which somebody is at work counts, so a consumer that pauses does not look like a slow store.
 *
 * No locks: the owner calls all of it under its own. Times in nanoseconds of a monotonic clock. */
#ifndef DPX_ADAPT_H
#define DPX_ADAPT_H

#include <stdint.h>

enum dpx_adapt_phase {
	DPX_ADAPT_CLIMB, /* doubling */
	DPX_ADAPT_HOLD,  /* at the base depth */
	DPX_ADAPT_TRY,   /* one window at another depth */
	DPX_ADAPT_CHECK, /* back at the base, before judging the trial */
};

struct dpx_adapt {
	unsigned depth; /* the answer: threads to use now */
	unsigned most;
	enum dpx_adapt_phase phase;
	unsigned base;      /* the depth that was best so far */
	double base_rate;   /* score per nanosecond, last window at the base; 0: not known */
	double trial_rate;  /* of the window at `trial` */
	unsigned trial;     /* the depth tried last */
	unsigned next_move; /* index of the trial to make next */
	int doubted;        /* a window of the climb was too slow: the next one decides */
	unsigned pause;     /* windows to hold between trials */
	unsigned held;      /* windows held since the last one */
	int settling;       /* the depth has just changed: this window does not count */
	/* The window under way. */
	double score;
	unsigned items;
	int64_t active_ns; /* of the window, up to active_since */
	int64_t active_since;
	int64_t paused_at;
	int active;
};

/* Start with so many threads, never more than `most` (both at least 1). */
void dpx_adapt_init(struct dpx_adapt *adapt, unsigned depth, unsigned most);

/* Somebody is at work from now on; nobody is. */
void dpx_adapt_begin(struct dpx_adapt *adapt, int64_t now);
void dpx_adapt_pause(struct dpx_adapt *adapt, int64_t now);

/* One item of so many bytes was done; a piece of work that is so much, in any unit. Non-zero when the depth has changed. */
int dpx_adapt_done(struct dpx_adapt *adapt, uint64_t bytes, int64_t now);
int dpx_adapt_worked(struct dpx_adapt *adapt, double work, int64_t now);

#endif
