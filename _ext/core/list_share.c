/* Work on one directory, shared among the runners of a listing. */
#include "list_tree.h"

/* With the lock held, which is given up meanwhile: the next step of a crew. */
static void do_step(struct dpx_listing *listing, struct list_crew *crew)
{
	size_t number = crew->next++;
	pthread_mutex_unlock(&listing->lock);
	int rc = crew->step(crew->of, number);
	pthread_mutex_lock(&listing->lock);
	dpx_listing_worked(listing, crew->calls);
	if (rc && !crew->err) {
		crew->err = rc;
		crew->next = crew->count;
	}
}

int dpx_list_share(struct dpx_listing *listing, struct dir_node *node, const struct list_crew *work)
{
	struct list_crew crew = *work;
	pthread_mutex_lock(&listing->lock);
	node->crew = &crew;
	while (crew.next < crew.count) {
		if (crew.next + 1 < crew.count)
			dpx_listing_kick(listing); /* without a thread for one more, this one goes on alone */
		do_step(listing, &crew);
	}
	while (crew.busy)
		pthread_cond_wait(&listing->done, &listing->lock);
	node->crew = NULL;
	pthread_mutex_unlock(&listing->lock);
	return crew.err;
}

void dpx_work_help(struct dpx_listing *listing, struct dir_node *node)
{
	pthread_mutex_lock(&listing->lock);
	struct list_crew *crew = node->crew; /* stays while it is busy */
	if (crew->next < crew->count)
		do_step(listing, crew);
	if (--crew->busy == 0)
		pthread_cond_broadcast(&listing->done);
	pthread_mutex_unlock(&listing->lock);
}
