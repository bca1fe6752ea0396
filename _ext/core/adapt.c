#include "adapt.h"

/* A window lasts at least so long, and until each thread has done a few items. */
#define CLIMB_NS (5 * INT64_C(1000000))
#define WINDOW_NS (15 * INT64_C(1000000))
#define SETTLE_NS (2 * INT64_C(1000000))
#define ITEMS_PER_THREAD 2

/* A shorter pause counts as time spent: threads that race ahead only to wait for the consumer gain nothing. Longer
 * ones are the consumer's own affair. */
#define SHORT_PAUSE_NS (1 * INT64_C(1000000))

/* Bytes that cost about as much as opening a file, so that windows with larger files compare with others. */
#define BYTES_PER_OPEN 32768.0

#define CLIMB_GAIN 1.15
#define MORE_GAIN 1.05
#define FEWER_LOSS 0.98
#define LEAST_PAUSE 1
#define MOST_PAUSE 48

/* Trials in turn, as fractions of the base depth. */
static const struct {
	unsigned up, down;
} moves[] = {{2, 1}, {1, 2}, {5, 4}, {4, 5}};
#define MOVES (sizeof(moves) / sizeof(moves[0]))

static unsigned moved(const struct dpx_adapt *adapt, unsigned move)
{
	uint64_t depth = (uint64_t)adapt->base * moves[move].up / moves[move].down;
	if (moves[move].up > moves[move].down && depth <= adapt->base)
		depth = adapt->base + 1;
	if (depth < 1)
		depth = 1;
	return depth > adapt->most ? adapt->most : (unsigned)depth;
}

static void use(struct dpx_adapt *adapt, unsigned depth, enum dpx_adapt_phase phase)
{
	adapt->settling = adapt->depth != depth;
	adapt->depth = depth;
	adapt->phase = phase;
}

void dpx_adapt_init(struct dpx_adapt *adapt, unsigned depth, unsigned most)
{
	*adapt = (struct dpx_adapt){.most = most ? most : 1, .pause = LEAST_PAUSE};
	adapt->depth = depth < 1 ? 1 : depth > adapt->most ? adapt->most : depth;
	adapt->base = adapt->depth;
	adapt->phase = adapt->most == 1 ? DPX_ADAPT_HOLD : DPX_ADAPT_CLIMB;
}

void dpx_adapt_begin(struct dpx_adapt *adapt, int64_t now)
{
	if (!adapt->active) {
		adapt->active = 1;
		adapt->active_since = now - adapt->paused_at < SHORT_PAUSE_NS ? adapt->paused_at : now;
	}
}

void dpx_adapt_pause(struct dpx_adapt *adapt, int64_t now)
{
	if (adapt->active) {
		adapt->active = 0;
		adapt->active_ns += now - adapt->active_since;
		adapt->paused_at = now;
	}
}

static void climb(struct dpx_adapt *adapt, double rate)
{
	if (adapt->base_rate > 0 && rate < adapt->base_rate * CLIMB_GAIN) {
		if (!adapt->doubted++)
			return; /* others may have had the cores: once more */
		adapt->doubted = 0;
		use(adapt, adapt->base, DPX_ADAPT_HOLD);
		adapt->next_move = 1; /* the base may be too much already */
		return;
	}
	adapt->doubted = 0;
	adapt->base = adapt->depth;
	adapt->base_rate = rate;
	if (adapt->base == adapt->most)
		use(adapt, adapt->base, DPX_ADAPT_HOLD);
	else
		use(adapt, moved(adapt, 0), DPX_ADAPT_CLIMB);
}

static void hold(struct dpx_adapt *adapt, double rate)
{
	adapt->base_rate = rate;
	if (++adapt->held < adapt->pause || adapt->most == 1)
		return;
	adapt->held = 0;
	for (unsigned i = 0; i < MOVES; i++) {
		unsigned move = adapt->next_move;
		adapt->trial = moved(adapt, move);
		if (adapt->trial != adapt->base) {
			use(adapt, adapt->trial, DPX_ADAPT_TRY);
			return;
		}
		adapt->next_move = (move + 1) % MOVES;
	}
}

/* The trial is judged against the mean of the base windows before and after it. */
static void judge(struct dpx_adapt *adapt, double rate)
{
	double base = (adapt->base_rate + rate) / 2;
	int more = adapt->trial > adapt->base;
	adapt->base_rate = rate;
	if (adapt->trial_rate > base * (more ? MORE_GAIN : FEWER_LOSS)) {
		adapt->base = adapt->trial;
		adapt->base_rate = adapt->trial_rate;
		adapt->pause = LEAST_PAUSE; /* and the same move again */
	} else {
		adapt->next_move = (adapt->next_move + 1) % MOVES;
		/* a whole round of moves has to fail before the pauses grow */
		if (adapt->next_move == 0 && adapt->pause < MOST_PAUSE)
			adapt->pause *= 2;
	}
	use(adapt, adapt->base, DPX_ADAPT_HOLD);
}

int dpx_adapt_done(struct dpx_adapt *adapt, uint64_t bytes, int64_t now)
{
	return dpx_adapt_worked(adapt, 1.0 + (double)bytes / BYTES_PER_OPEN, now);
}

int dpx_adapt_worked(struct dpx_adapt *adapt, double work, int64_t now)
{
	adapt->items++;
	adapt->score += work;
	int64_t span = adapt->active_ns + (adapt->active ? now - adapt->active_since : 0);
	int64_t least = adapt->settling ? SETTLE_NS : adapt->phase == DPX_ADAPT_CLIMB ? CLIMB_NS : WINDOW_NS;
	if (span < least || adapt->items < adapt->depth * (adapt->settling ? 1u : ITEMS_PER_THREAD))
		return 0;
	double rate = adapt->score / (double)span;
	unsigned before = adapt->depth;
	adapt->score = 0;
	adapt->items = 0;
	adapt->active_ns = 0;
	adapt->active_since = now;
	if (adapt->settling) {
		adapt->settling = 0;
		return 0;
	}
	switch (adapt->phase) {
	case DPX_ADAPT_CLIMB:
		climb(adapt, rate);
		break;
	case DPX_ADAPT_HOLD:
		hold(adapt, rate);
		break;
	case DPX_ADAPT_TRY:
		adapt->trial_rate = rate;
		use(adapt, adapt->base, DPX_ADAPT_CHECK);
		break;
	case DPX_ADAPT_CHECK:
		judge(adapt, rate);
		break;
	}
	return adapt->depth != before;
}
