/* A callable without bytecode: whoever calls it back cannot be interrupted in it by the handler of a signal. */
#include "bind.h"

/* GIL: held. */
static PyObject *note_call(PyObject *calls, PyObject *const *arguments, Py_ssize_t count)
{
	PyObject *call = PyTuple_New(count);
	if (!call)
		return NULL;
	for (Py_ssize_t i = 0; i < count; i++)
		PyTuple_SetItem(call, i, Py_NewRef(arguments[i]));
	int failed = PyList_Append(calls, call);
	Py_DECREF(call);
	return failed ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef note_call_def = {"note_call", (PyCFunction)(void (*)(void))note_call, METH_FASTCALL, NULL};

/* GIL: held. */
PyObject *dpx_py_call_log(PyObject *module, PyObject *calls)
{
	(void)module;
	if (!PyList_CheckExact(calls)) {
		PyErr_SetString(PyExc_TypeError, "call_log takes a list");
		return NULL;
	}
	return PyCFunction_New(&note_call_def, calls);
}
