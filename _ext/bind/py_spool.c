/* HandleSpool: handles that listings come by, until their table can be made. */
#include "bind.h"

#include <errno.h>

#include "../core/handles_spool.h"

struct spool_object {
	PyObject_HEAD
	struct dpx_spool *spool; /* one reference; NULL before __init__ has succeeded */
};

/* GIL: held; released while the file is made. masks: a list of bytes objects. */
static int open_spool(struct spool_object *self, PyObject *directory, PyObject *masks, long long max_bytes)
{
	struct dpx_spool *opened = NULL;
	size_t count = (size_t)PyList_Size(masks);
	const char *text = PyBytes_AsString(directory);
	const char **texts = PyMem_Calloc(count + 1, sizeof(*texts));
	int rc;
	if (!texts) {
		PyErr_NoMemory();
		return -1;
	}
	for (size_t i = 0; i < count; i++)
		texts[i] = PyBytes_AsString(PyList_GetItem(masks, (Py_ssize_t)i));
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_spool_open(text, (uint64_t)max_bytes, texts, count, &opened);
	Py_END_ALLOW_THREADS
	PyMem_Free((void *)texts);
	if (rc) {
		dpx_py_raise(rc, text);
		return -1;
	}
	self->spool = opened;
	return 0;
}

/* GIL: held. The masks as bytes, in a new list; NULL with an exception. */
static PyObject *mask_bytes(PyObject *masks)
{
	PyObject *given = PySequence_List(masks);
	for (Py_ssize_t i = 0; given && i < PyList_Size(given); i++) {
		PyObject *bytes = dpx_py_path_bytes(PyList_GetItem(given, i));
		if (bytes)
			PyList_SetItem(given, i, bytes); /* steals */
		else
			Py_CLEAR(given);
	}
	return given;
}

/* GIL: held; released in open_spool. */
static int spool_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"directory", "max_bytes", "masks", NULL};
	struct spool_object *self = (struct spool_object *)op;
	PyObject *directory, *masks = NULL;
	long long max_bytes = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$LO:HandleSpool", names, &directory, &max_bytes, &masks))
		return -1;
	if (self->spool || max_bytes < 0) {
		PyErr_SetString(PyExc_ValueError, "a spool is opened once, for a number of bytes");
		return -1;
	}
	PyObject *bytes = dpx_py_path_bytes(directory);
	PyObject *list = !bytes ? NULL : masks ? mask_bytes(masks) : PyList_New(0);
	int rc = list ? open_spool(self, bytes, list, max_bytes) : -1;
	Py_XDECREF(list);
	Py_XDECREF(bytes);
	return rc;
}

/* GIL: held; released while the table is made. */
static PyObject *spool_settle(PyObject *op, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"path", "identity", "files", "max_bytes", NULL};
	struct dpx_spool *spool = ((struct spool_object *)op)->spool;
	const char *identity = NULL;
	PyObject *path;
	long long files = 0, max_bytes = 0;
	int rc;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$sLL:settle", names, &path, &identity, &files, &max_bytes))
		return NULL;
	if (!spool || !identity || files < 0 || max_bytes < 0) {
		PyErr_SetString(PyExc_ValueError, "a table of handles needs an identity, files and max_bytes");
		return NULL;
	}
	PyObject *path_bytes = dpx_py_path_bytes(path);
	if (!path_bytes)
		return NULL;
	const char *text = PyBytes_AsString(path_bytes);
	dpx_spool_retain(spool);
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_spool_settle(spool, text, identity, (uint64_t)files, (uint64_t)max_bytes);
	dpx_spool_release(spool);
	Py_END_ALLOW_THREADS
	if (rc)
		dpx_py_raise(rc, text);
	Py_DECREF(path_bytes);
	return rc ? NULL : Py_NewRef(Py_None);
}

/* GIL: held; released while room is made. */
static PyObject *spool_give_up(PyObject *op, PyObject *Py_UNUSED(unused))
{
	struct dpx_spool *spool = ((struct spool_object *)op)->spool;
	if (!spool)
		Py_RETURN_NONE;
	dpx_spool_retain(spool);
	Py_BEGIN_ALLOW_THREADS
	dpx_spool_give_up(spool);
	dpx_spool_release(spool);
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static void spool_dealloc(PyObject *op)
{
	PyTypeObject *type = Py_TYPE(op);
	dpx_spool_release(((struct spool_object *)op)->spool);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(op);
	Py_DECREF(type);
}

int dpx_py_spool_of(struct session_object *self, PyObject *object, struct dpx_spool **spool)
{
	*spool = NULL;
	if (object == Py_None)
		return 0;
	if (Py_TYPE(object) != dpx_py_state((PyObject *)self)->spool_type) {
		PyErr_SetString(PyExc_TypeError, "handles must be a HandleSpool or None");
		return -1;
	}
	*spool = ((struct spool_object *)object)->spool;
	return 0;
}

static PyMethodDef spool_methods[] = {
	{"settle", (PyCFunction)(void (*)(void))spool_settle, METH_VARARGS | METH_KEYWORDS,
	 "Make the table of handles at a path."},
	{"give_up", spool_give_up, METH_NOARGS, "Let go of all that was kept, and keep nothing more."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot spool_slots[] = {
	{Py_tp_doc, "Handles that listings come by, until their table can be made."},
	{Py_tp_init, spool_init},
	{Py_tp_dealloc, spool_dealloc},
	{Py_tp_methods, spool_methods},
	{0, NULL},
};

PyType_Spec dpx_spool_spec = {
	.name = "datapipes._dfs.HandleSpool",
	.basicsize = sizeof(struct spool_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = spool_slots,
};
