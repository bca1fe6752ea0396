/* How a container is mounted: as this user may, as it was made, beside others, and with nothing left of it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "put.h"
#include "session.h"
#include "standin_world.h"

static int open_session(struct dpx_session **session, char why[DPX_WHY_ROOM])
{
	struct dpx_session_spec spec = {.io = dpx_io_find("dfs"), .root = "pool/cont"};
	return dpx_session_open(&spec, session, why);
}

/* All that changes something, and reading what has become of it. The first errno, or 0. */
static int change_all(struct dpx_session *session)
{
	char first = 0;
	int rc = dpx_put_file(session, "a/b/file", "1", 1);
	if (!rc)
		rc = world_read_first(session, "a/b/file", &first);
	CHECK(rc || first == '1');
	if (!rc)
		rc = dpx_session_rename(session, "a/b", "a/c");
	if (!rc) {
		CHECK(world_read_first(session, "a/b/file", &first) != 0);
		rc = world_read_first(session, "a/c/file", &first);
	}
	if (!rc)
		rc = dpx_session_remove(session, "a/c/file");
	if (!rc) {
		CHECK(world_read_first(session, "a/c/file", &first) != 0);
		rc = dpx_session_remove(session, "a/c");
	}
	return rc ? rc : dpx_session_remove(session, "a");
}

/* What another library in this process does. */
static abi_dfs *others_connect(void)
{
	abi_dfs *theirs;
	CHECK(dfs->dfs_init() == 0);
	CHECK(others.connect("pool", NULL, "cont", O_RDONLY, NULL, &theirs) == 0);
	return theirs;
}

static void others_leave(abi_dfs *theirs)
{
	CHECK(others.disconnect(theirs) == 0 && dfs->dfs_fini() == 0);
}

static void test_beside_others_who_only_read(void)
{
	abi_dfs *theirs = others_connect();
	struct dpx_session *one = world_session(), *two = world_session();
	CHECK(change_all(one) == 0 && change_all(two) == 0);
	world_close(one);
	CHECK(change_all(two) == 0);
	others_leave(theirs);
	CHECK(change_all(two) == 0);
	theirs = others_connect();
	CHECK(change_all(two) == 0);
	world_close(two);
	others_leave(theirs);
	world_check_empty();
}

/* The pool for reading, the container for what the user may do there; a mount has one handle of each. */
static void test_what_the_user_may_do(void)
{
	static const struct {
		const char *pool, *container, *says;
		int opening, changing;
	} cases[] = {
		{"", "", "", 0, 0},
		{"read", "", "", 0, 0},
		{"", "read", "", 0, EPERM},
		{"read", "read", "", 0, EPERM},
		{"", "none", "daos container get-acl", EPERM, 0},
		{"none", "", "dmg pool get-acl", EPERM, 0},
	};
	char why[DPX_WHY_ROOM], first;
	world_file(world_path("dir/there"), "1", 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dpx_session *session;
		standin.set("STANDIN_POOL", cases[i].pool);
		standin.set("STANDIN_CONTAINER", cases[i].container);
		CHECK(open_session(&session, why) == cases[i].opening && strstr(why, cases[i].says));
		if (!cases[i].opening) {
			CHECK(standin.count("handles") == 2);
			CHECK(world_read_first(session, "dir/there", &first) == 0 && first == '1');
			CHECK(change_all(session) == cases[i].changing);
			CHECK((dpx_session_rename(session, "dir/there", "dir/here") == 0) == !cases[i].changing);
			CHECK((dpx_session_rename(session, "dir/here", "dir/there") == 0) == !cases[i].changing);
			world_close(session);
		}
		world_check_empty();
	}
	standin.reset();
}

/* A right that is missing only where the container is mounted. */
static void test_a_mount_for_writing_that_is_refused(void)
{
	struct dpx_session *session;
	char why[DPX_WHY_ROOM], first;
	world_file(world_path("dir/there"), "1", 1);
	standin.reset();
	standin.set("STANDIN_FAIL", "dfs_mount:1=1,dfs_mount:2=1");
	CHECK(open_session(&session, why) == 0 && standin.count("handles") == 2);
	CHECK(world_read_first(session, "dir/there", &first) == 0 && change_all(session) == EPERM);
	world_close(session);
	standin.reset();
	standin.set("STANDIN_FAIL", "dfs_mount:*=1");
	CHECK(open_session(&session, why) == EPERM && strstr(why, "get-acl"));
	standin.reset();
	world_check_empty();
}

static void test_balanced_containers(void)
{
	abi_dfs *theirs;
	world_balanced(1);
	CHECK(dfs->dfs_init() == 0 && others.connect("pool", NULL, "cont", O_RDWR, NULL, &theirs) == EPERM);
	CHECK(dfs->dfs_fini() == 0);
	struct dpx_session *session = world_session();
	CHECK(change_all(session) == 0);
	world_close(session);
	standin.set("STANDIN_CONTAINER", "read");
	session = world_session();
	CHECK(change_all(session) == EPERM);
	world_close(session);
	standin.reset();
	world_balanced(0);
	world_check_empty();
}

/* What was replaced in a transaction would be out of their reach: they use none, where the container asks for none. */
static void test_others_remove_what_was_replaced(void)
{
	abi_dfs *theirs = NULL;
	struct dpx_session *session = world_session();
	CHECK(dfs->dfs_init() == 0 && others.connect("pool", NULL, "cont", O_RDWR, NULL, &theirs) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(dpx_put_file(session, "name", "1", 1) == 0);
	CHECK(dfs->dfs_remove(theirs, NULL, "name", false, NULL) == 0);
	others_leave(theirs);
	world_close(session);
	world_check_empty();
}

static atomic_int replacing;

static void *replace(void *session)
{
	for (int i = 0; i < 40; i++)
		CHECK(dpx_put_file(session, "dir/name", "1", 1) == 0);
	atomic_store(&replacing, 0);
	return NULL;
}

/* In other containers DAOS takes the old file away, and puts the new one there a round trip later. */
static void test_a_name_that_is_replaced_in_a_balanced_container_is_always_there(void)
{
	world_balanced(1);
	struct dpx_session *session = world_session(), *reader = world_session();
	struct dpx_stat st;
	pthread_t thread;
	CHECK(dpx_put_file(session, "dir/name", "0", 1) == 0);
	standin.set("STANDIN_COST", "sleep");
	standin.set("STANDIN_CHANGE_US", "2000");
	atomic_store(&replacing, 1);
	CHECK(pthread_create(&thread, NULL, replace, session) == 0);
	while (atomic_load(&replacing))
		CHECK(dpx_session_stat(reader, "dir/name", &st) == 0);
	pthread_join(thread, NULL);
	standin.reset();
	CHECK(dpx_session_remove(session, "dir/name") == 0);
	world_close(session);
	world_close(reader);
	world_balanced(0);
	world_check_empty();
}

/* It is looked for again there, as it may be back in a moment; and is believed to be missing in the end. */
static void test_a_name_that_is_missing_for_a_moment_in_a_relaxed_container(void)
{
	struct dpx_stat st;
	for (int balanced = 0; balanced < 2; balanced++) {
		if (balanced)
			world_balanced(1);
		struct dpx_session *session = world_session();
		CHECK(dpx_put_file(session, "name", "0", 1) == 0 && dpx_session_stat(session, "name", &st) == 0);
		standin.reset(); /* calls are counted from here */
		standin.set("STANDIN_FAIL", "dfs_lookup_rel:1=2"); /* ENOENT */
		CHECK(dpx_session_stat(session, "name", &st) == (balanced ? ENOENT : 0));
		standin.set("STANDIN_FAIL", "dfs_lookup_rel:*=2");
		CHECK(dpx_session_stat(session, "name", &st) == ENOENT);
		standin.reset();
		CHECK(dpx_session_remove(session, "name") == 0 && dpx_session_stat(session, "name", &st) == ENOENT);
		world_close(session);
	}
	world_balanced(0);
	world_check_empty();
}

/* What libdaos says, as users are told it. */
static void test_what_is_said_when_connecting_fails(void)
{
	static const struct {
		const char *fault, *says;
		int err;
	} cases[] = {
		{"daos_pool_connect:*=1001", "dmg pool get-acl", EPERM},
		{"daos_pool_connect:*=1003", "not a name", EINVAL},
		{"daos_pool_connect:*=1005", "no such DAOS pool", ENOENT},
		{"daos_pool_connect:*=1006", "", EHOSTUNREACH},
		{"daos_pool_connect:*=1009", "", ENOMEM},
		{"daos_pool_connect:*=1011", "engine", ETIMEDOUT},
		{"daos_pool_connect:*=2034", "daos_agent", EIO},
		{"daos_pool_connect:*=1025", "DER 1025", EIO},
		{"daos_cont_open:*=1005", "no such container", ENOENT},
		{"daos_cont_open:*=1003", "not a name", EINVAL},
		{"daos_cont_open:*=1012", "", EBUSY},
		{"daos_cont_open:*=2031", "DER 2031", EIO},
		{"dfs_mount:*=22", "type POSIX", EINVAL},
		{"dfs_mount:*=5", "failed to open", EIO},
		{"dfs_lookup:1=12", "", ENOMEM},
	};
	struct dpx_session *session;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char why[DPX_WHY_ROOM];
		standin.reset();
		CHECK(standin.set("STANDIN_FAIL", cases[i].fault) == 0);
		CHECK(open_session(&session, why) == cases[i].err);
		CHECK(*cases[i].says ? strstr(why, cases[i].says) != NULL : !*why);
		world_check_empty();
	}
	standin.reset();
}

int main(void)
{
	world_make();
	world_load();
	RUN(test_beside_others_who_only_read);
	RUN(test_what_the_user_may_do);
	RUN(test_a_mount_for_writing_that_is_refused);
	RUN(test_balanced_containers);
	RUN(test_a_name_that_is_replaced_in_a_balanced_container_is_always_there);
	RUN(test_a_name_that_is_missing_for_a_moment_in_a_relaxed_container);
	RUN(test_others_remove_what_was_replaced);
	RUN(test_what_is_said_when_connecting_fails);
	world_remove();
	return 0;
}
