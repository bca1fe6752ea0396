/* Session: one root, and the single-shot calls on it. */
#include "bind.h"

#include <errno.h>
#include <string.h>

#include "../core/buffers.h"
#include "../core/pool.h"
#include "../core/process.h"
#include "../core/put.h"

enum call { CALL_OPEN, CALL_STAT, CALL_WRITE, CALL_RENAME, CALL_REMOVE, CALL_MKDIR, CALL_CLOSE };

/* One call to the core, with all it takes and gives. */
struct job {
	enum call call;
	struct dpx_session *session; /* a reference of the caller's */
	const struct dpx_session_spec *spec;
	const char *path, *target; /* borrowed from bytes objects that the caller holds */
	const void *data;          /* borrowed from a Py_buffer that the caller holds */
	size_t len;
	struct dpx_stat st;
	char why[DPX_WHY_ROOM]; /* of CALL_OPEN */
	unsigned wait_ms;       /* of CALL_CLOSE */
};

static int perform(struct job *job)
{
	struct dpx_session *session = job->session;
	switch (job->call) {
	case CALL_OPEN:
		return dpx_session_open(job->spec, &job->session, job->why);
	case CALL_STAT:
		return dpx_session_stat(session, job->path, &job->st);
	case CALL_WRITE:
		return dpx_put_file(session, job->path, job->data, job->len);
	case CALL_RENAME:
		return dpx_session_rename(session, job->path, job->target);
	case CALL_REMOVE:
		return dpx_session_remove(session, job->path);
	case CALL_MKDIR:
		return dpx_put_directory(session, job->path);
	case CALL_CLOSE:
		return dpx_session_close(session, job->wait_ms);
	}
	return EINVAL;
}

/* GIL: held; released around the call. */
static int run(struct job *job)
{
	int rc;
	Py_BEGIN_ALLOW_THREADS
	rc = perform(job);
	Py_END_ALLOW_THREADS
	return rc;
}

/* GIL: held. For methods that return nothing: run on one path, or on two. */
static PyObject *run_on(struct session_object *self, enum call call, PyObject *path, PyObject *target)
{
	PyObject *path_bytes = NULL, *target_bytes = NULL, *result = NULL;
	struct job job = {.call = call, .session = dpx_py_session_retain(self)};
	if (!job.session)
		return NULL;
	path_bytes = dpx_py_path_bytes(path);
	if (path_bytes && target)
		target_bytes = dpx_py_path_bytes(target);
	if (path_bytes && (target_bytes || !target)) {
		job.path = PyBytes_AsString(path_bytes);
		job.target = target_bytes ? PyBytes_AsString(target_bytes) : NULL;
		int rc = run(&job);
		result = rc ? dpx_py_raise(rc, job.path) : Py_NewRef(Py_None);
	}
	Py_XDECREF(target_bytes);
	Py_XDECREF(path_bytes);
	dpx_session_release(job.session);
	return result;
}

/* GIL: held; released while the root is opened. */
static int session_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"table", "root", "open_delay_us", NULL};
	struct session_object *self = (struct session_object *)op;
	const char *table;
	PyObject *root, *root_bytes;
	long long delay = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|$L:Session", names, &table, &root, &delay))
		return -1;
	struct dpx_session_spec spec = {.io = dpx_io_find(table), .open_delay_us = (unsigned)delay};
	if (!spec.io) {
		PyErr_Format(PyExc_ValueError, "no table of I/O functions is called '%s'; there are 'posix' and 'dfs'", table);
		return -1;
	}
	if (delay < 0 || delay > 3600LL * 1000 * 1000) {
		PyErr_Format(PyExc_ValueError, "open_delay_us must lie between 0 and one hour, not %lld", delay);
		return -1;
	}
	if (self->session) {
		PyErr_SetString(PyExc_RuntimeError, "a session is opened once");
		return -1;
	}
	root_bytes = PyBytes_Check(root) ? Py_NewRef(root) : dpx_py_path_bytes(root);
	if (!root_bytes)
		return -1;
	spec.root = PyBytes_AsString(root_bytes);
	struct job job = {.call = CALL_OPEN, .spec = &spec};
	int rc = spec.io->mount_waits ? dpx_py_open(&spec, &job.session, job.why) : run(&job);
	if (rc > 0)
		dpx_py_raise_why(rc, job.why, spec.root);
	if (!rc)
		self->session = job.session;
	Py_DECREF(root_bytes);
	return rc ? -1 : 0;
}

/* GIL: held; released while the root is let go of, which may wait for other machines. In a forked child the threads are
 * gone and locks may be held for ever: its memory is left alone. */
static void session_dealloc(PyObject *op)
{
	struct session_object *self = (struct session_object *)op;
	PyTypeObject *type = Py_TYPE(op);
	struct dpx_session *session = self->session;
	if (session && session->generation == dpx_process_generation()) {
		PyObject *error, *value, *trace;
		PyErr_Fetch(&error, &value, &trace);
		Py_BEGIN_ALLOW_THREADS
		dpx_session_release(session);
		Py_END_ALLOW_THREADS
		PyErr_Restore(error, value, trace);
	}
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(op);
	Py_DECREF(type);
}

static PyObject *session_stat(PyObject *op, PyObject *path)
{
	static const char *const kinds[] = {
		[DPX_KIND_FILE] = "file",   [DPX_KIND_DIR] = "dir",       [DPX_KIND_LINK] = "link",
		[DPX_KIND_OTHER] = "other", [DPX_KIND_UNKNOWN] = "other",
	};
	PyObject *result = NULL;
	struct job job = {.call = CALL_STAT, .session = dpx_py_session_retain((struct session_object *)op)};
	if (!job.session)
		return NULL;
	PyObject *path_bytes = dpx_py_path_bytes(path);
	if (path_bytes) {
		job.path = PyBytes_AsString(path_bytes);
		int rc = run(&job);
		result = rc ? dpx_py_raise(rc, job.path)
			    : Py_BuildValue("sKL", kinds[job.st.kind], (unsigned long long)job.st.size,
					    (long long)job.st.mtime_ns);
	}
	Py_XDECREF(path_bytes);
	dpx_session_release(job.session);
	return result;
}

static PyObject *session_write(PyObject *op, PyObject *args)
{
	PyObject *path, *result = NULL;
	Py_buffer data;
	if (!PyArg_ParseTuple(args, "Oy*:write", &path, &data))
		return NULL;
	struct job job = {.call = CALL_WRITE, .session = dpx_py_session_retain((struct session_object *)op)};
	PyObject *path_bytes = job.session ? dpx_py_path_bytes(path) : NULL;
	if (path_bytes) {
		job.path = PyBytes_AsString(path_bytes);
		job.data = data.buf;
		job.len = (size_t)data.len;
		int rc = run(&job);
		result = rc ? dpx_py_raise(rc, job.path) : Py_NewRef(Py_None);
	}
	Py_XDECREF(path_bytes);
	dpx_session_release(job.session);
	PyBuffer_Release(&data);
	return result;
}

static PyObject *session_rename(PyObject *op, PyObject *args)
{
	PyObject *source, *target;
	if (!PyArg_ParseTuple(args, "OO:rename", &source, &target))
		return NULL;
	return run_on((struct session_object *)op, CALL_RENAME, source, target);
}

static PyObject *session_remove(PyObject *op, PyObject *path)
{
	return run_on((struct session_object *)op, CALL_REMOVE, path, NULL);
}

static PyObject *session_mkdir(PyObject *op, PyObject *path)
{
	return run_on((struct session_object *)op, CALL_MKDIR, path, NULL);
}

static PyObject *session_create(PyObject *op, PyObject *args, PyObject *kwargs)
{
	return dpx_py_session_create((struct session_object *)op, args, kwargs);
}

static PyObject *session_read_many(PyObject *op, PyObject *args, PyObject *kwargs)
{
	return dpx_py_session_read_many((struct session_object *)op, args, kwargs);
}

static PyObject *session_read_batch(PyObject *op, PyObject *args, PyObject *kwargs)
{
	return dpx_py_session_read_batch((struct session_object *)op, args, kwargs);
}

static PyObject *session_list(PyObject *op, PyObject *args, PyObject *kwargs)
{
	return dpx_py_session_list((struct session_object *)op, args, kwargs);
}

/* GIL: held; released while threads are waited for. Closing twice, or a session that never opened, is fine. */
static PyObject *session_close(PyObject *op, PyObject *unused)
{
	struct session_object *self = (struct session_object *)op;
	(void)unused;
	if (self->session && self->session->generation == dpx_process_generation()) {
		struct job job = {.call = CALL_CLOSE, .wait_ms = dpx_py_close_wait_ms()};
		job.session = dpx_session_retain(self->session);
		run(&job);
		dpx_session_release(job.session);
	}
	Py_RETURN_NONE;
}

static PyObject *session_stats(PyObject *op, PyObject *unused)
{
	struct dpx_session *session = ((struct session_object *)op)->session;
	struct dpx_buffers_stats buffers;
	(void)unused;
	if (!session || session->generation != dpx_process_generation())
		return PyDict_New();
	struct dpx_counters *counters = &session->counters;
	dpx_buffers_stats(session->buffers, &buffers);
	return Py_BuildValue("{sIsKsKsKsKsKsKsKsKsKsKsK}", "threads", dpx_pool_threads(session->pool), "files_open",
			     (unsigned long long)atomic_load(&counters->files_open), "buffers_live",
			     (unsigned long long)buffers.live, "bytes_live", (unsigned long long)buffers.live_bytes,
			     "bytes_kept", (unsigned long long)buffers.kept_bytes, "readers_live",
			     (unsigned long long)atomic_load(&counters->readers_live), "listings_live",
			     (unsigned long long)atomic_load(&counters->listings_live), "graveyard",
			     (unsigned long long)atomic_load(&counters->graveyard), "reads",
			     (unsigned long long)atomic_load(&counters->reads), "read_bytes",
			     (unsigned long long)atomic_load(&counters->read_bytes), "lists",
			     (unsigned long long)atomic_load(&counters->lists), "handle_hits",
			     (unsigned long long)atomic_load(&counters->handle_hits));
}

static PyObject *session_pid(PyObject *op, void *closure)
{
	struct dpx_session *session = ((struct session_object *)op)->session;
	(void)closure;
	return PyLong_FromLong(session ? (long)session->pid : 0);
}

static PyMethodDef session_methods[] = {
	{"read_many", (PyCFunction)(void (*)(void))session_read_many, METH_VARARGS | METH_KEYWORDS,
	 "Read many files or ranges; an iterator of results."},
	{"read_batch", (PyCFunction)(void (*)(void))session_read_batch, METH_VARARGS | METH_KEYWORDS,
	 "Read a batch and wait for all of it; a list of results in request order."},
	{"list", (PyCFunction)(void (*)(void))session_list, METH_VARARGS | METH_KEYWORDS,
	 "List the files below a path; an iterator of blocks of (path, size)."},
	{"stat", session_stat, METH_O, "(kind, size in bytes, mtime in ns) of a path."},
	{"write", session_write, METH_VARARGS, "Create or replace a file atomically."},
	{"create", (PyCFunction)(void (*)(void))session_create, METH_VARARGS | METH_KEYWORDS, "A new or emptied file for writing."},
	{"rename", session_rename, METH_VARARGS, "Rename, replacing what stood at the target."},
	{"remove", session_remove, METH_O, "Remove a file or an empty directory."},
	{"mkdir", session_mkdir, METH_O, "Make a directory with its parents."},
	{"stats", session_stats, METH_NOARGS, "Live objects and totals of this session."},
	{"close", session_close, METH_NOARGS, "Refuse new work and stop what runs."},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef session_getset[] = {
	{"pid", session_pid, NULL, "The process that opened the session.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot session_slots[] = {
	{Py_tp_doc, "One root directory or container opened in this process."},
	{Py_tp_init, session_init},
	{Py_tp_dealloc, session_dealloc},
	{Py_tp_methods, session_methods},
	{Py_tp_getset, session_getset},
	{0, NULL},
};

PyType_Spec dpx_session_spec = {
	.name = "datapipes._dfs.Session",
	.basicsize = sizeof(struct session_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = session_slots,
};
