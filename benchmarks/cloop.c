/* The limit: a bare C loop that opens, fstats, reads and closes each file of a list, on N threads that take
 * the next file from a shared counter. usage: cloop LISTFILE THREADS REPEATS [OPEN_DELAY_US]
 * Prints wall and CPU seconds of each repeat. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char **paths;
static size_t count;
static atomic_size_t next_path;
static long delay_us;

static void *read_files(void *arg)
{
	size_t room = 1 << 20, i;
	char *slab = malloc(room);

	(void)arg;
	while ((i = atomic_fetch_add(&next_path, 1)) < count) {
		struct stat st;
		struct timespec delay = { 0, delay_us * 1000 };
		int fd;

		if (delay_us)
			nanosleep(&delay, NULL);
		fd = open(paths[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) || read(fd, slab, (size_t)st.st_size) != st.st_size)
			abort();
		close(fd);
	}
	free(slab);
	return NULL;
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void load_list(const char *name)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t len;
	FILE *file = fopen(name, "r");

	if (!file)
		abort();
	while ((len = getline(&line, &room, file)) > 0) {
		line[len - 1] = 0;
		paths = realloc(paths, (count + 1) * sizeof(*paths));
		paths[count++] = strdup(line);
	}
	free(line);
	fclose(file);
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 1, repeats = argc > 3 ? atoi(argv[3]) : 1, r, t;
	pthread_t *ids = calloc((size_t)threads, sizeof(*ids));

	if (argc < 2)
		return 2;
	delay_us = argc > 4 ? atol(argv[4]) : 0;
	load_list(argv[1]);
	for (r = 0; r < repeats; r++) {
		double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);

		atomic_store(&next_path, 0);
		for (t = 0; t < threads; t++)
			pthread_create(&ids[t], NULL, read_files, NULL);
		for (t = 0; t < threads; t++)
			pthread_join(ids[t], NULL);
		printf("%.6f %.6f\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
	}
	free(ids);
	return 0;
}
