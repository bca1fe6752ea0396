/* Numbers in memory that processes share. */
#ifndef DPX_SHARED_ADD_H
#define DPX_SHARED_ADD_H

#include <stddef.h>

/* Add amounts[i] to at[i], which is aligned. Any number of threads and processes may add to the same: nothing is lost. */
void dpx_shared_add(double *at, const double *amounts, size_t count);

#endif
