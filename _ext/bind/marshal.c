/* Between Python's objects and the core's, for all of bind/: paths, sessions, errors. */
#include "bind.h"

#include <errno.h>
#include <string.h>

struct dpx_session *dpx_py_session_retain(struct session_object *self)
{
	dpx_py_bury();
	if (!self->session) {
		PyErr_SetString(PyExc_ValueError, "the session was never opened");
		return NULL;
	}
	switch (dpx_session_check(self->session)) {
	case 0:
		return dpx_session_retain(self->session);
	case ECHILD:
		PyErr_Format(PyExc_RuntimeError,
			     "the session was opened by process %ld and cannot be used after fork; open one here",
			     (long)self->session->pid);
		return NULL;
	default:
		PyErr_SetString(PyExc_ValueError, "the session is closed");
		return NULL;
	}
}

PyObject *dpx_py_raise_why(int err, const char *why, const char *path)
{
	PyObject *name = path ? PyUnicode_DecodeUTF8(path, (Py_ssize_t)strlen(path), "surrogateescape") : NULL;
	if (path && !name)
		return NULL;
	PyObject *error = why[0] ? PyObject_CallFunction(PyExc_OSError, "isO", err, why, name ? name : Py_None) : NULL;
	errno = err;
	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	else if (!why[0])
		PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
	Py_XDECREF(error);
	Py_XDECREF(name);
	return NULL;
}

PyObject *dpx_py_raise(int err, const char *path)
{
	return dpx_py_raise_why(err, "", path);
}

PyObject *dpx_py_path_bytes(PyObject *path)
{
	if (!PyUnicode_Check(path)) {
		PyErr_SetString(PyExc_TypeError, "a path must be str");
		return NULL;
	}
	PyObject *bytes = PyUnicode_AsEncodedString(path, "utf-8", "surrogateescape");
	char *text;
	/* With no place for the length PyBytes_AsStringAndSize refuses NULs, by ValueError. */
	if (bytes && PyBytes_AsStringAndSize(bytes, &text, NULL)) {
		Py_DECREF(bytes);
		return NULL;
	}
	return bytes;
}
