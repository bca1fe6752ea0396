/* Which process this is, known without a system call: forked children count one further than their parent. */
#ifndef DPX_PROCESS_H
#define DPX_PROCESS_H

/* 0 or an errno. Called before the first use of the other; any number of times. */
int dpx_process_watch(void);

unsigned dpx_process_generation(void);

#endif
