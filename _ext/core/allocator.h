/* The process's own allocator, as far as the engine's speed depends on it. */
#ifndef DPX_ALLOCATOR_H
#define DPX_ALLOCATOR_H

/* Let it keep freed memory of a few MiB at hand. As it is delivered, glibc's gives the top of the heap back to the
 * system as soon as 128 KiB of it are free: a batch of small files that is dropped as a whole is then unmapped, and
 * faulted in again for the next one, at more than the cost of reading it. Costs nothing on later calls. */
void dpx_allocator_settle(void);

#endif
