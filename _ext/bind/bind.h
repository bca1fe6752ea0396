/* What the files of bind/ share. Only this layer knows Python; it calls core/, never a store.
 *
 * GIL: every function here is called with the GIL held and says in a heading when it releases it. While it is
 * released no PyObject is touched; core objects used then are retained first. */
#ifndef DPX_BIND_H
#define DPX_BIND_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/gate.h"
#include "../core/reader.h"
#include "../core/session.h"

struct module_state {
	PyTypeObject *session_type;       /* owned, as are the others */
	PyTypeObject *read_iterator_type;
	PyTypeObject *list_iterator_type;
	PyTypeObject *write_file_type;
	PyTypeObject *buffer_type; /* exporter of one engine buffer, read-only */
	PyTypeObject *tar_stream_type;
	PyTypeObject *handles_type;
	PyTypeObject *spool_type;
	PyObject *tar_error; /* an exception */
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
extern PyType_Spec dpx_tar_stream_spec;
extern PyType_Spec dpx_handles_spec;
extern PyType_Spec dpx_spool_spec;

/* State of the module that made this object's type. */
struct module_state *dpx_py_state(PyObject *self);

/* The open session with a reference for the caller (dpx_session_release), or NULL with RuntimeError set (opened by
 * another process: forked) or ValueError (closed, never opened). */
struct dpx_session *dpx_py_session_retain(struct session_object *self);

/* Raise OSError(err, strerror, path). path: UTF-8 with surrogate escapes, or NULL. Always returns NULL. */
PyObject *dpx_py_raise(int err, const char *path);
/* The same with a sentence in place of strerror, unless it is "". */
PyObject *dpx_py_raise_why(int err, const char *why, const char *path);

/* A path argument (str) as bytes, UTF-8 with surrogate escapes; a new bytes object, or NULL with TypeError, or
 * ValueError for a NUL inside. Leading and trailing slashes are the caller's affair. */
PyObject *dpx_py_path_bytes(PyObject *path);

/* Methods of Session that live in files of their own; each parses its own arguments. New references or NULL. */
PyObject *dpx_py_session_read_many(struct session_object *self, PyObject *args, PyObject *kwargs);
PyObject *dpx_py_session_read_batch(struct session_object *self, PyObject *args, PyObject *kwargs);
PyObject *dpx_py_session_list(struct session_object *self, PyObject *args, PyObject *kwargs);
PyObject *dpx_py_session_create(struct session_object *self, PyObject *args, PyObject *kwargs);

/* The table of a Handles object, borrowed from it; NULL for None. -1: TypeError. */
int dpx_py_handles_of(struct session_object *self, PyObject *object, struct dpx_handles **handles);

/* The spool of a HandleSpool object, likewise. */
struct dpx_spool;
int dpx_py_spool_of(struct session_object *self, PyObject *object, struct dpx_spool **spool);

/* A function of the module: see tar_members in _dfs.pyi. */
PyObject *dpx_py_tar_members(PyObject *module, PyObject *args, PyObject *kwargs);

/* A read-only memoryview of the first `length` bytes of a buffer, which it takes over (*buffer becomes NULL). */
PyObject *dpx_py_view(PyTypeObject *type, struct dpx_buffer **buffer, size_t length);

/* What both readers do with requests and items (py_item.c). */
struct dpx_py_maker {
	PyTypeObject *result;      /* owned: a subclass of tuple; NULL: data or exceptions themselves */
	PyObject *error;           /* owned: callable(tag, operation, errno) */
	PyTypeObject *buffer_type; /* borrowed from the module; NULL: data are bytes, or bytearrays */
	int writable;              /* bytearrays */
};
void dpx_py_maker_init(struct dpx_py_maker *maker, PyObject *result, PyObject *error);
void dpx_py_maker_clear(struct dpx_py_maker *maker);

/* Fill a blank item from (path, offset, length, size, tag); the item then owns a reference to the tag. -1 with
 * TypeError or ValueError. */
int dpx_py_item_fill(struct dpx_item *item, PyObject *request);

/* The result of a taken item, a new reference, or NULL. Tag, owner and (for views) buffer move into it; the item is
 * ready to be recycled either way. */
PyObject *dpx_py_item_result(const struct dpx_py_maker *maker, struct dpx_item *item);

/* Raise what the maker has for an errno that is no item's (no thread could be started). Returns NULL. */
PyObject *dpx_py_maker_raise(const struct dpx_py_maker *maker, int err);

/* Drop what an item holds of Python's: before it is freed without a result. */
void dpx_py_item_clear(struct dpx_item *item);

/* An uninitialised bytes object, or a writable bytearray, for so many bytes as the item's destination; -1 without an
 * exception: no memory. */
int dpx_py_bytes_new(uint64_t length, int writable, PyObject **bytes, void **data);

#define DPX_IN_FLIGHT_MOST 65536

/* TypeError or ValueError, and -1. */
int dpx_py_check_options(PyObject *result, PyObject *error, long long max_in_flight, double timeout_s);
/* 0: no bound. */
int64_t dpx_py_timeout_ns(double timeout_s);

/* References that engine threads were left with: given up by any thread, dropped by the next call with the GIL. */
void dpx_py_disown(void *reference);
void dpx_py_bury(void);

/* py_wait.c: the waits, without the GIL and in slices. -1: an exception (of a signal) is set. Else what the core
 * function says, and 0 from take also means that something may be in *taken. */
int dpx_py_enter(struct dpx_gate *gate, unsigned wait_ms);
int dpx_py_open(const struct dpx_session_spec *spec, struct dpx_session **session, char why[DPX_WHY_ROOM]);
int dpx_py_take(struct dpx_reader *reader, unsigned wait_ms, struct dpx_taken *taken);
int dpx_py_drain(struct dpx_reader *reader, unsigned wait_ms);
struct dpx_item *dpx_py_reap(struct dpx_reader *reader);
/* The session may go with it, which waits for the store. */
void dpx_py_reader_close(struct dpx_reader *reader);

/* call_log(list): a callable that appends the tuple of its arguments to the list. */
PyObject *dpx_py_call_log(PyObject *module, PyObject *calls);

/* add_shared(memory, first, amounts): see shared_add.h. */
PyObject *dpx_py_add_shared(PyObject *module, PyObject *args);

/* index_rows(mapped, blocks, roots, rows) -> (urls, sizes): see index_row.h. */
PyObject *dpx_py_index_rows(PyObject *module, PyObject *args);

/* Longest wait without the GIL before signals are looked at. Dropping what was interrupted may wait as long again. */
#define DPX_WAIT_SLICE_MS 40

/* How long closing waits for threads that are in a call to the store; what hangs longer is left to its thread. A second,
 * but a slice where Ctrl-C is being handled: whoever pressed it waits for nothing. GIL: held. */
unsigned dpx_py_close_wait_ms(void);

#endif
