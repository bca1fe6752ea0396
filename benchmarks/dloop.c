/* The incumbent's pattern on libdfs: one thread that opens the files of a batch in turn, parents cached, reads them
 * asynchronously on one event queue, and waits for all of the batch. usage: dloop POOL CONT LISTFILE SIZE BATCH KEEP
 * Files have SIZE bytes each, which the reader knows. KEEP 1: opened by the handles that a first pass, not timed, has
 * left: the least that a thread can spend. Prints wall and CPU seconds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dfs_load.h"

#define MOST 1024

struct file {
	char *folder, *name;
	abi_obj *parent; /* of the first of its folder, and shared by those behind it */
	char blob[512];
	size_t blob_len;
};

static struct read {
	abi_event event; /* first */
	abi_obj *obj;
	abi_sgl sgl;
	abi_iov iov;
	uint64_t got;
} reads[MOST];

static const struct dpx_dfs *dfs;
static abi_dfs *mount;
static abi_handle pool, cont, queue;
static struct file *files;
static size_t count;

static void must(int rc)
{
	if (rc) {
		fprintf(stderr, "dloop: %d\n", rc);
		exit(1);
	}
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
	FILE *list = fopen(name, "r");
	must(!list);
	while ((len = getline(&line, &room, list)) > 0) {
		line[len - 1] = 0;
		files = realloc(files, (count + 1) * sizeof(*files));
		struct file *file = &files[count++];
		*file = (struct file){.folder = strdup(line)};
		file->name = strrchr(file->folder, '/') + 1;
		file->name[-1] = 0;
	}
	free(line);
	fclose(list);
}

static void find_parents(void)
{
	char path[4096];
	for (size_t i = 0; i < count; i++) {
		if (i && strcmp(files[i].folder, files[i - 1].folder) == 0) {
			files[i].parent = files[i - 1].parent;
			continue;
		}
		snprintf(path, sizeof(path), "/%s", files[i].folder);
		must(dfs->dfs_lookup(mount, path, O_RDONLY, &files[i].parent, NULL, NULL));
	}
}

static void open_one(struct file *file, abi_obj **obj)
{
	abi_iov blob = {.iov_buf = file->blob, .iov_buf_len = file->blob_len, .iov_len = file->blob_len};
	if (file->blob_len)
		must(dfs->dfs_obj_global2local(mount, O_RDONLY, blob, obj));
	else
		must(dfs->dfs_open(mount, file->parent, file->name, S_IFREG, O_RDONLY, 0, 0, NULL, obj));
}

static void keep(struct file *file, abi_obj *obj)
{
	abi_iov blob = {.iov_buf = file->blob, .iov_buf_len = sizeof(file->blob)};
	must(dfs->dfs_obj_local2global(mount, obj, &blob));
	file->blob_len = blob.iov_len;
}

static void read_batch(size_t first, size_t n, char *memory, size_t size)
{
	abi_event *done[MOST];
	for (size_t i = 0; i < n; i++)
		open_one(&files[first + i], &reads[i].obj);
	for (size_t i = 0; i < n; i++) {
		struct read *read = &reads[i];
		read->iov = (abi_iov){.iov_buf = memory + i * size, .iov_buf_len = size, .iov_len = size};
		read->sgl = (abi_sgl){.sg_nr = 1, .sg_iovs = &read->iov};
		must(dfs->dfs_read(mount, read->obj, &read->sgl, 0, &read->got, &read->event));
	}
	for (size_t left = n; left;) {
		int landed = dfs->daos_eq_poll(queue, 1, 1000000, MOST, done);
		must(landed < 0);
		left -= (size_t)landed;
	}
	for (size_t i = 0; i < n; i++) {
		must(reads[i].event.ev_error || reads[i].got != size);
		dfs->dfs_release(reads[i].obj);
	}
}

int main(int argc, char **argv)
{
	char why[DPX_WHY_ROOM] = "";
	if (argc != 7)
		return 2;
	size_t size = strtoul(argv[4], NULL, 10), batch = strtoul(argv[5], NULL, 10);
	must(batch < 1 || batch > MOST || dpx_dfs_load(&dfs, why));
	must(dfs->dfs_init());
	must(dfs->daos_pool_connect(argv[1], NULL, ABI_PC_RO, &pool, NULL, NULL));
	must(dfs->daos_cont_open(pool, argv[2], ABI_COO_RO, &cont, NULL, NULL));
	must(dfs->dfs_mount(pool, cont, O_RDONLY, &mount));
	must(dfs->daos_eq_create(&queue));
	for (size_t i = 0; i < batch; i++)
		must(dfs->daos_event_init(&reads[i].event, queue, NULL));
	load_list(argv[3]);
	find_parents();
	for (size_t i = 0; argv[6][0] == '1' && i < count; i++) {
		open_one(&files[i], &reads[0].obj);
		keep(&files[i], reads[0].obj);
		dfs->dfs_release(reads[0].obj);
	}
	char *memory = malloc(batch * size);
	double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	for (size_t i = 0; i < count; i += batch)
		read_batch(i, count - i < batch ? count - i : batch, memory, size);
	printf("%.6f %.6f\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
	return 0;
}
