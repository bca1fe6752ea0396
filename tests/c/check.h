/* Stop at the first thing that is not as it should be, and say which. */
#ifndef DPX_TEST_CHECK_H
#define DPX_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

/* Tests that let each call fail in turn, do it with every call. ThreadSanitizer, which is slow and looks for something
 * else, gets every seventh. */
#ifdef __SANITIZE_THREAD__
#define CALLS_STEP 7
#else
#define CALLS_STEP 1
#endif

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition);        \
			exit(1);                                                                             \
		}                                                                                            \
	} while (0)

#define RUN(test)                                                                                            \
	do {                                                                                                 \
		printf("%s\n", #test);                                                                       \
		fflush(stdout);                                                                              \
		test();                                                                                      \
	} while (0)

#endif
