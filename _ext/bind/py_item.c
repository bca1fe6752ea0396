/* Requests into items, items into results. */
#include "bind.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

int dpx_py_check_options(PyObject *result, PyObject *error, long long max_in_flight, double timeout_s)
{
	if (!result || !PyType_Check(result) || !PyType_IsSubtype((PyTypeObject *)result, &PyTuple_Type))
		PyErr_SetString(PyExc_TypeError, "result must be a subclass of tuple");
	else if (!error || !PyCallable_Check(error))
		PyErr_SetString(PyExc_TypeError, "error must be callable");
	else if (max_in_flight < 1 || max_in_flight > DPX_IN_FLIGHT_MOST)
		PyErr_Format(PyExc_ValueError, "max_in_flight must lie between 1 and %d, not %lld", DPX_IN_FLIGHT_MOST,
			     max_in_flight);
	else if (!(timeout_s >= 0))
		PyErr_SetString(PyExc_ValueError, "timeout_s must be 0 (no bound) or more");
	else
		return 0;
	return -1;
}

int64_t dpx_py_timeout_ns(double timeout_s)
{
	if (timeout_s == 0 || timeout_s > 1e9)
		return 0; /* no bound */
	int64_t ns = (int64_t)ceil(timeout_s * 1e9);
	return ns > 0 ? ns : 1;
}

void dpx_py_maker_init(struct dpx_py_maker *maker, PyObject *result, PyObject *error)
{
	maker->result = result == Py_None ? NULL : (PyTypeObject *)Py_NewRef(result);
	maker->error = Py_NewRef(error);
}

void dpx_py_maker_clear(struct dpx_py_maker *maker)
{
	Py_CLEAR(maker->result);
	Py_CLEAR(maker->error);
}

PyObject *dpx_py_maker_raise(const struct dpx_py_maker *maker, int err)
{
	PyObject *error = PyObject_CallFunction(maker->error, "Osi", Py_None, dpx_op_name(DPX_OP_OPEN), err);
	if (error && PyExceptionInstance_Check(error))
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	else if (error)
		PyErr_SetString(PyExc_TypeError, "error must return an exception");
	Py_XDECREF(error);
	return NULL;
}

/* GIL: held. The path of a request into the item, which copies it: a thread that hangs may outlive the str. */
static int fill_path(struct dpx_item *item, PyObject *path)
{
	Py_ssize_t len;
	PyObject *bytes = NULL;
	if (!PyUnicode_Check(path)) {
		PyErr_SetString(PyExc_TypeError, "the path of a request must be str");
		return -1;
	}
	const char *text = PyUnicode_AsUTF8AndSize(path, &len);
	if (!text) { /* surrogates: a name that is not UTF-8 */
		PyErr_Clear();
		bytes = dpx_py_path_bytes(path);
		if (!bytes)
			return -1;
		text = PyBytes_AsString(bytes);
		len = PyBytes_Size(bytes);
	}
	int rc = 0;
	if (memchr(text, '\0', (size_t)len)) {
		PyErr_SetString(PyExc_ValueError, "the path of a request has a NUL in it");
		rc = -1;
	} else if (dpx_item_set_path(item, text, (size_t)len)) {
		PyErr_NoMemory();
		rc = -1;
	}
	Py_XDECREF(bytes);
	return rc;
}

/* GIL: held. A count of bytes of a request; -1 stands for "not known" where `open` is set. */
static int fill_count(PyObject *request, Py_ssize_t index, const char *name, int open, uint64_t *out)
{
	long long value = PyLong_AsLongLong(PyTuple_GetItem(request, index));
	if (value == -1 && PyErr_Occurred())
		return -1;
	if (value < (open ? -1 : 0)) {
		PyErr_Format(PyExc_ValueError, "the %s of a request cannot be %lld", name, value);
		return -1;
	}
	*out = value < 0 ? DPX_SIZE_UNKNOWN : (uint64_t)value;
	return 0;
}

int dpx_py_item_fill(struct dpx_item *item, PyObject *request)
{
	if (!PyTuple_Check(request) || PyTuple_Size(request) != 5) {
		PyErr_SetString(PyExc_TypeError, "a request is a tuple (path, offset, length, size, tag)");
		return -1;
	}
	if (fill_path(item, PyTuple_GetItem(request, 0)) || fill_count(request, 1, "offset", 0, &item->offset) ||
	    fill_count(request, 2, "length", 1, &item->length) || fill_count(request, 3, "size", 1, &item->size))
		return -1;
	item->tag = Py_NewRef(PyTuple_GetItem(request, 4));
	return 0;
}

/* GIL: held. A copy of `data`, or without any, uninitialised memory. */
static PyObject *new_bytes(const char *data, uint64_t length, int writable)
{
	return writable ? PyByteArray_FromStringAndSize(data, (Py_ssize_t)length)
			: PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
}

int dpx_py_bytes_new(uint64_t length, int writable, PyObject **bytes, void **data)
{
	*bytes = length <= PY_SSIZE_T_MAX ? new_bytes(NULL, length, writable) : NULL;
	if (!*bytes) {
		PyErr_Clear();
		return -1;
	}
	*data = writable ? PyByteArray_AsString(*bytes) : PyBytes_AsString(*bytes);
	return 0;
}

/* GIL: held. Does what was read fill the memory that was made for it? The caller's own memory always fits. */
static int is_filled(PyObject *owner, uint64_t got)
{
	if (PyBytes_Check(owner))
		return (uint64_t)PyBytes_Size(owner) == got;
	return !PyByteArray_Check(owner) || (uint64_t)PyByteArray_Size(owner) == got;
}

/* GIL: held. The data of a taken item, a new reference or NULL. */
static PyObject *make_data(const struct dpx_py_maker *maker, struct dpx_item *item)
{
	PyObject *owner = item->owner;
	if (owner && is_filled(owner, item->got)) {
		item->owner = NULL; /* moves into the result */
		return owner;
	}
	if (owner || !maker->buffer_type)
		return new_bytes(item->got ? item->dest : NULL, item->got, maker->writable);
	if (item->buffer && item->got)
		return dpx_py_view(maker->buffer_type, &item->buffer, (size_t)item->got);
	PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
	PyObject *view = empty ? PyMemoryView_FromObject(empty) : NULL;
	Py_XDECREF(empty);
	return view;
}

/* GIL: held. The exception of a taken item that failed, a new reference or NULL. */
static PyObject *make_error(const struct dpx_py_maker *maker, const struct dpx_item *item)
{
	return PyObject_CallFunction(maker->error, "Osi", item->tag, dpx_op_name(item->status.op), item->status.err);
}

/* GIL: held. (position, tag, data, exception) as the result type, made by tuple's own tp_new: a subclass's __new__
 * takes other arguments and costs more than the read. */
static PyObject *make_result(const struct dpx_py_maker *maker, struct dpx_item *item)
{
	int failed = item->status.err != 0;
	PyObject *result = NULL;
	PyObject *data = failed ? Py_NewRef(Py_None) : make_data(maker, item);
	PyObject *error = failed ? make_error(maker, item) : Py_NewRef(Py_None);
	PyObject *position = PyLong_FromUnsignedLongLong(item->position);
	if (position && data && error) {
		newfunc make = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
		PyObject *values = PyTuple_Pack(4, position, (PyObject *)item->tag, data, error);
		PyObject *args = values ? PyTuple_Pack(1, values) : NULL;
		if (args)
			result = make(maker->result, args, NULL);
		Py_XDECREF(args);
		Py_XDECREF(values);
	}
	Py_XDECREF(position);
	Py_XDECREF(data);
	Py_XDECREF(error);
	return result;
}

PyObject *dpx_py_item_result(const struct dpx_py_maker *maker, struct dpx_item *item)
{
	PyObject *result;
	if (maker->result)
		result = make_result(maker, item);
	else
		result = item->status.err ? make_error(maker, item) : make_data(maker, item);
	dpx_py_item_clear(item);
	return result;
}

void dpx_py_item_clear(struct dpx_item *item)
{
	PyObject *tag = item->tag, *owner = item->owner;
	item->tag = item->owner = NULL;
	item->dest = NULL;
	Py_XDECREF(tag);
	Py_XDECREF(owner);
}

/* References given up by threads that came back late: a stack that any thread pushes on and that is emptied at once. */
struct grave {
	struct grave *next;
	PyObject *reference; /* owned */
};

static _Atomic(struct grave *) graves;

/* GIL: not held, and not wanted: the interpreter may be gone by now. */
void dpx_py_disown(void *reference)
{
	struct grave *grave = malloc(sizeof(*grave));
	if (!grave)
		return; /* leaks one reference */
	grave->reference = reference;
	grave->next = atomic_load(&graves);
	while (!atomic_compare_exchange_weak(&graves, &grave->next, grave))
		continue;
}

/* GIL: held. */
void dpx_py_bury(void)
{
	if (!atomic_load_explicit(&graves, memory_order_relaxed))
		return;
	struct grave *next, *grave = atomic_exchange(&graves, NULL);
	for (; grave; grave = next) {
		next = grave->next;
		Py_DECREF(grave->reference);
		free(grave);
	}
}
