/* One engine buffer as Python sees it: read-only, and back with the engine when its last view is dropped. */
#include "bind.h"

#include "../core/buffers.h"
#include "../core/process.h"

struct buffer_object {
	PyObject_HEAD
	struct dpx_buffer *buffer; /* owned */
	Py_ssize_t length;
	unsigned generation; /* of the process that read it */
};

static int buffer_get(PyObject *op, Py_buffer *view, int flags)
{
	struct buffer_object *self = (struct buffer_object *)op;
	return PyBuffer_FillInfo(view, op, self->buffer->data, self->length, 1, flags);
}

/* GIL: held. A forked child keeps its copy: the pool's lock may be held by a thread that it does not have. */
static void buffer_dealloc(PyObject *op)
{
	struct buffer_object *self = (struct buffer_object *)op;
	PyTypeObject *type = Py_TYPE(op);
	if (self->generation == dpx_process_generation())
		dpx_buffer_release(self->buffer);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(op);
	Py_DECREF(type);
}

static PyType_Slot buffer_slots[] = {
	{Py_tp_doc, "Memory of the engine; see memoryview."},
	{Py_tp_dealloc, buffer_dealloc},
	{Py_bf_getbuffer, buffer_get},
	{0, NULL},
};

PyType_Spec dpx_buffer_spec = {
	.name = "datapipes._dfs.Buffer",
	.basicsize = sizeof(struct buffer_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = buffer_slots,
};

PyObject *dpx_py_view(PyTypeObject *type, struct dpx_buffer **buffer, size_t length)
{
	allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct buffer_object *self = (struct buffer_object *)allocate(type, 0);
	if (!self)
		return NULL;
	self->buffer = *buffer;
	*buffer = NULL;
	self->length = (Py_ssize_t)length;
	self->generation = dpx_process_generation();
	PyObject *view = PyMemoryView_FromObject((PyObject *)self);
	Py_DECREF(self);
	return view;
}
