/* add_shared: numbers that processes count in together, without a lock. */
#include "bind.h"

#include "../core/shared_add.h"

#define MOST 64

/* GIL: held. The numbers of a sequence; their count, or -1. */
static Py_ssize_t get_amounts(PyObject *sequence, double amounts[MOST])
{
	Py_ssize_t count = PySequence_Size(sequence);
	if (count > MOST)
		PyErr_Format(PyExc_ValueError, "at most %d numbers at once", MOST);
	for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++) {
		PyObject *amount = PySequence_GetItem(sequence, i);
		amounts[i] = amount ? PyFloat_AsDouble(amount) : -1;
		Py_XDECREF(amount);
	}
	return PyErr_Occurred() ? -1 : count;
}

/* GIL: held. */
PyObject *dpx_py_add_shared(PyObject *module, PyObject *args)
{
	(void)module;
	PyObject *sequence;
	Py_buffer memory;
	Py_ssize_t first;
	double amounts[MOST];
	if (!PyArg_ParseTuple(args, "w*nO:add_shared", &memory, &first, &sequence))
		return NULL;
	Py_ssize_t count = get_amounts(sequence, amounts), room = memory.len / (Py_ssize_t)sizeof(double);
	if (count >= 0 && ((uintptr_t)memory.buf % sizeof(double) || first < 0 || first > room - count)) {
		PyErr_Format(PyExc_ValueError, "numbers %zd to %zd do not lie in memory of %zd", first, first + count, room);
		count = -1;
	}
	if (count >= 0)
		dpx_shared_add((double *)memory.buf + first, amounts, (size_t)count);
	PyBuffer_Release(&memory);
	return count < 0 ? NULL : Py_NewRef(Py_None);
}
