/* Numbers that threads and processes add to at the same time. */
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shared_add.h"

#define TIMES 20000
#define THREADS 3
#define CHILDREN 2

static double *numbers;

static void *add(void *arg)
{
	const double amounts[] = {1, 0, 0.5};
	for (int i = 0; i < TIMES; i++)
		dpx_shared_add(numbers, amounts, 3);
	return arg;
}

static void add_in_threads(void)
{
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, add, NULL) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

static void test_nothing_is_lost(void)
{
	numbers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(numbers != MAP_FAILED);
	numbers[1] = 7;
	for (int i = 0; i < CHILDREN; i++) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			add_in_threads();
			_exit(0);
		}
	}
	add_in_threads();
	for (int i = 0; i < CHILDREN; i++) {
		int status = 1;
		CHECK(wait(&status) > 0 && status == 0);
	}
	CHECK(numbers[0] == (double)TIMES * THREADS * (CHILDREN + 1));
	CHECK(numbers[1] == 7);
	CHECK(numbers[2] == numbers[0] / 2);
	CHECK(munmap(numbers, 4096) == 0);
}

int main(void)
{
	RUN(test_nothing_is_lost);
	return 0;
}
