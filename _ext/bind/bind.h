/* What the files of bind/ share. Only this layer knows Python; it calls core/, never a store.
 *
 * GIL: every function here is called with the GIL held and says in a heading when it releases it. While it is
 * released no PyObject is touched; core objects used then are retained first. */
#ifndef DPX_BIND_H
#define DPX_BIND_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/session.h"

struct module_state {
	PyTypeObject *session_type;       /* owned, as are the others */
	PyTypeObject *read_iterator_type;
	PyTypeObject *list_iterator_type;
	PyTypeObject *write_file_type;
	PyTypeObject *buffer_type; /* exporter of one engine buffer, read-only */
};

struct session_object {
	PyObject_HEAD
	struct dpx_session *session; /* owned; NULL before __init__ has succeeded */
};

/* One per type; module.c makes the types. */
extern PyType_Spec dpx_session_spec;
extern PyType_Spec dpx_read_iterator_spec;
extern PyType_Spec dpx_list_iterator_spec;
extern PyType_Spec dpx_write_file_spec;
extern PyType_Spec dpx_buffer_spec;

/* State of the module that made this object's type. */
struct module_state *dpx_py_state(PyObject *self);

/* The open session with a reference for the caller (dpx_session_release), or NULL with RuntimeError set (opened by
 * another process: forked) or ValueError (closed, never opened). */
struct dpx_session *dpx_py_session_retain(struct session_object *self);

/* Raise OSError(err, strerror, path). path: UTF-8 with surrogate escapes, or NULL. Always returns NULL. */
PyObject *dpx_py_raise(int err, const char *path);

/* A path argument (str) as bytes, UTF-8 with surrogate escapes; a new bytes object, or NULL with TypeError, or
 * ValueError for a NUL inside. Leading and trailing slashes are the caller's affair. */
PyObject *dpx_py_path_bytes(PyObject *path);

/* Methods of Session that live in files of their own; each parses its own arguments. New references or NULL. */
PyObject *dpx_py_session_read_many(struct session_object *self, PyObject *args, PyObject *kwargs);
PyObject *dpx_py_session_read_batch(struct session_object *self, PyObject *args, PyObject *kwargs);
PyObject *dpx_py_session_list(struct session_object *self, PyObject *args, PyObject *kwargs);
PyObject *dpx_py_session_create(struct session_object *self, PyObject *path);

/* Longest wait without the GIL before signals are looked at. */
#define DPX_WAIT_SLICE_MS 50

#endif
