/* Forks and what libdaos does under locks of its own: a child that is forked meanwhile finds them taken for good. */
#ifndef DPX_DFS_FORK_H
#define DPX_DFS_FORK_H

/* Between these two, which any number of threads may be, forks of this process wait: two seconds at most, since a store
 * that does not answer must not hold up what has nothing to do with it. First called when libdaos is loaded: what
 * libraries do before a fork, taking locks of theirs, comes after what was asked for later. */
void dpx_dfs_hold_forks(void);
void dpx_dfs_let_forks(void);

#endif
