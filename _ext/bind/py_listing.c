/* Session.list and its iterator. */
#include "bind.h"

#include <errno.h>
#include <unistd.h>

#include "../core/listing.h"

struct list_iterator {
	PyObject_HEAD
	struct dpx_listing *listing; /* owned; NULL when closed or at the end */
	pid_t pid;                   /* the process that began it */
	int busy;                    /* a thread is inside next without the GIL: it closes the listing */
	int close_later;
	struct dpx_list_counts counts; /* of a listing that has been closed */
};

/* GIL: held; released around the wait. Called when no other thread uses the listing. In a forked child there are no
 * threads to wait for and the lock may be held by one of them: the child leaves the listing's memory alone. */
static void drop_listing(struct list_iterator *self)
{
	struct dpx_listing *listing = self->listing;
	self->listing = NULL;
	if (!listing || self->pid != getpid())
		return;
	dpx_listing_counts(listing, &self->counts);
	unsigned wait_ms = dpx_py_close_wait_ms();
	Py_BEGIN_ALLOW_THREADS
	dpx_listing_close(listing, wait_ms);
	Py_END_ALLOW_THREADS
}

/* GIL: held. */
static PyObject *raise_error(struct list_iterator *self)
{
	const char *path;
	size_t len;
	const struct dpx_status *status = dpx_listing_error(self->listing, &path, &len);
	if (status->err == EBADF) {
		PyErr_SetString(PyExc_ValueError, "the session was closed while it was listing");
		return NULL;
	}
	PyObject *bytes = PyBytes_FromStringAndSize(path, (Py_ssize_t)len);
	if (bytes)
		dpx_py_raise(status->err, PyBytes_AsString(bytes));
	Py_XDECREF(bytes);
	return NULL;
}

/* GIL: held. A new (path, size) or NULL. */
static PyObject *make_entry(const struct dpx_list_entry *entry)
{
	PyObject *path = PyUnicode_DecodeUTF8(entry->path, (Py_ssize_t)entry->path_len, "surrogateescape");
	PyObject *size = PyLong_FromLongLong(entry->size == DPX_SIZE_UNKNOWN ? -1 : (long long)entry->size);
	PyObject *pair = path && size ? PyTuple_New(2) : NULL;
	if (!pair) {
		Py_XDECREF(path);
		Py_XDECREF(size);
		return NULL;
	}
	PyTuple_SetItem(pair, 0, path); /* steals, like the next */
	PyTuple_SetItem(pair, 1, size);
	return pair;
}

/* GIL: held. */
static PyObject *make_block(const struct dpx_list_entry *entries, size_t count)
{
	PyObject *block = PyList_New((Py_ssize_t)count);
	for (size_t i = 0; block && i < count; i++) {
		PyObject *pair = make_entry(&entries[i]);
		if (pair)
			PyList_SetItem(block, (Py_ssize_t)i, pair); /* steals */
		else
			Py_CLEAR(block);
	}
	return block;
}

/* GIL: held; released around dpx_listing_next. */
static PyObject *next_block(struct list_iterator *self)
{
	struct dpx_listing *listing = self->listing;
	const struct dpx_list_entry *entries;
	size_t count;
	int rc;
	for (;;) {
		Py_BEGIN_ALLOW_THREADS
		rc = dpx_listing_next(listing, DPX_WAIT_SLICE_MS, &entries, &count);
		Py_END_ALLOW_THREADS
		if (rc != EAGAIN || self->close_later)
			break;
		if (PyErr_CheckSignals()) /* not with a block in hand: it would be lost */
			return NULL;
	}
	if (self->close_later)
		return NULL;
	if (rc)
		return raise_error(self);
	if (count)
		return make_block(entries, count);
	self->close_later = 1; /* the end: nothing more is needed of the store */
	return NULL;
}

/* GIL: held; released in next_block. */
static PyObject *list_iterator_next(PyObject *object)
{
	struct list_iterator *self = (struct list_iterator *)object;
	if (!self->listing)
		return NULL;
	if (self->pid != getpid()) {
		PyErr_SetString(PyExc_RuntimeError, "this listing was begun by another process; begin one here");
		return NULL;
	}
	if (self->busy) {
		PyErr_SetString(PyExc_ValueError, "another thread is taking from this listing");
		return NULL;
	}
	self->busy = 1;
	PyObject *block = next_block(self);
	self->busy = 0;
	if (self->close_later)
		drop_listing(self);
	return block;
}

/* GIL: held; released in drop_listing. */
static PyObject *list_iterator_close(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct list_iterator *self = (struct list_iterator *)object;
	if (self->busy && self->pid == getpid()) {
		self->close_later = 1;
		dpx_listing_cancel(self->listing);
	} else {
		drop_listing(self);
	}
	Py_RETURN_NONE;
}

/* GIL: held. */
static PyObject *list_iterator_stats(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct list_iterator *self = (struct list_iterator *)object;
	if (self->listing && self->pid == getpid())
		dpx_listing_counts(self->listing, &self->counts);
	return Py_BuildValue("{s:K,s:K,s:K,s:K}", "entries", (unsigned long long)self->counts.entries, "directories",
			     (unsigned long long)self->counts.directories, "left_out",
			     (unsigned long long)self->counts.left_out, "depth",
			     (unsigned long long)self->counts.depth);
}

/* GIL: held; released in drop_listing. */
static void list_iterator_dealloc(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	PyObject *error_type, *error_value, *error_trace;
	PyErr_Fetch(&error_type, &error_value, &error_trace); /* another thread may run meanwhile */
	drop_listing((struct list_iterator *)object);
	PyErr_Restore(error_type, error_value, error_trace);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
	Py_DECREF(type);
}

static PyMethodDef list_iterator_methods[] = {
	{"close", list_iterator_close, METH_NOARGS, "Stop the listing and free what it holds; safe to call twice."},
	{"stats", list_iterator_stats, METH_NOARGS, "entries, directories, left_out (special files, links to directories), depth."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot list_iterator_slots[] = {
	{Py_tp_doc, "Blocks of (path, size) in byte order of the path."},
	{Py_tp_dealloc, list_iterator_dealloc},
	{Py_tp_iter, PyObject_SelfIter},
	{Py_tp_iternext, list_iterator_next},
	{Py_tp_methods, list_iterator_methods},
	{0, NULL},
};

PyType_Spec dpx_list_iterator_spec = {
	.name = "datapipes._dfs.ListIterator",
	.basicsize = sizeof(struct list_iterator),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = list_iterator_slots,
};

/* GIL: held. Takes over *listing. */
static PyObject *make_iterator(struct session_object *session, struct dpx_listing *listing)
{
	PyTypeObject *type = dpx_py_state((PyObject *)session)->list_iterator_type;
	allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct list_iterator *self = (struct list_iterator *)allocate(type, 0); /* zeroed */
	if (!self) {
		dpx_listing_close(listing, 0);
		return NULL;
	}
	self->listing = listing;
	self->pid = getpid();
	return (PyObject *)self;
}

/* GIL: held. */
PyObject *dpx_py_session_list(struct session_object *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"path", "recursive", "start_after", "sizes", "types", "handles", "depth", NULL};
	PyObject *path, *after = Py_None, *handles = Py_None, *path_bytes = NULL, *after_bytes = NULL, *iterator = NULL;
	struct dpx_listing *listing = NULL;
	struct dpx_spool *spool;
	int recursive = 1, sizes = 1, types = 1, depth = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$pOppOi:list", names, &path, &recursive, &after, &sizes, &types,
					 &handles, &depth) ||
	    dpx_py_spool_of(self, handles, &spool))
		return NULL;
	if (depth < 0) {
		PyErr_Format(PyExc_ValueError, "depth must be 0 (adapt) or more, not %d", depth);
		return NULL;
	}
	struct dpx_session *session = dpx_py_session_retain(self);
	if (!session)
		return NULL;
	path_bytes = dpx_py_path_bytes(path);
	if (path_bytes && after != Py_None)
		after_bytes = dpx_py_path_bytes(after);
	if (path_bytes && (after_bytes || after == Py_None)) {
		struct dpx_list_options options = {
			.path = PyBytes_AsString(path_bytes),
			.start_after = after_bytes ? PyBytes_AsString(after_bytes) : NULL,
			.recursive = recursive,
			.sizes = sizes,
			.kinds = types,
			.spool = spool,
			.depth = (unsigned)depth,
		};
		int rc = dpx_listing_open(session, &options, &listing);
		if (rc)
			dpx_py_raise(rc, options.path);
		else
			iterator = make_iterator(self, listing);
	}
	Py_XDECREF(path_bytes);
	Py_XDECREF(after_bytes);
	dpx_session_release(session);
	return iterator;
}
