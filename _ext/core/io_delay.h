/* A table whose opens take a while: any other table behind a store's round trip. For benchmarks and tests. */
#ifndef DPX_IO_DELAY_H
#define DPX_IO_DELAY_H

#include "io.h"

/* Wrap an inner table and its mount. *table is filled in; *mount: owned by the caller until table->unmount, which
 * also unmounts the inner one. On failure (ENOMEM) the inner mount stays with the caller. */
int dpx_io_delay_wrap(const struct dpx_io *inner, void *inner_mount, unsigned open_delay_us, struct dpx_io *table,
		      void **mount);

#endif
