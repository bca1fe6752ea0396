/* index_rows: URLs and sizes out of a mapped index file. */
#include <errno.h>

#include "../core/index_row.h"
#include "bind.h"

/* GIL: held. The URL of a row: what its block's names begin with, and its name. */
static PyObject *url_of(PyObject *roots, const struct dpx_index_row *row)
{
	PyObject *root = PyTuple_GetItem(roots, (Py_ssize_t)row->block);
	PyObject *name = root ? PyUnicode_DecodeUTF8(row->name, (Py_ssize_t)row->length, "surrogateescape") : NULL;
	PyObject *url = name ? PyUnicode_Concat(root, name) : NULL;
	Py_XDECREF(name);
	return url;
}

/* GIL: held. Put row number `number` into both lists at `place`. */
static int put_row(const struct dpx_index *index, PyObject *roots, int64_t number, Py_ssize_t place, PyObject *urls,
		   PyObject *sizes)
{
	struct dpx_index_row row;
	int rc = dpx_index_row(index, number, &row);
	if (rc) {
		PyErr_Format(rc == ERANGE ? PyExc_IndexError : PyExc_ValueError,
			     rc == ERANGE ? "row %lld is not there" : "row %lld is damaged", (long long)number);
		return -1;
	}
	PyObject *url = url_of(roots, &row);
	if (!url || PyList_SetItem(urls, place, url))
		return -1;
	PyObject *size = PyLong_FromLongLong(row.size);
	return size ? PyList_SetItem(sizes, place, size) : -1;
}

/* GIL: held. The number of a row: a plain int. -1: an exception is set. */
static int64_t number_of(PyObject *rows, Py_ssize_t at)
{
	PyObject *number = PyList_GetItem(rows, at);
	int overflow = 0;
	int64_t row = -1;
	if (number && PyLong_CheckExact(number))
		row = PyLong_AsLongLongAndOverflow(number, &overflow);
	else if (number)
		PyErr_SetString(PyExc_TypeError, "a row is no plain int");
	if ((row < 0 || overflow) && !PyErr_Occurred())
		PyErr_Format(PyExc_IndexError, "row %S is not there", number);
	return overflow ? -1 : row;
}

/* GIL: held. */
static int put_rows(const struct dpx_index *index, PyObject *roots, PyObject *rows, PyObject *urls, PyObject *sizes)
{
	Py_ssize_t count = PyList_Size(urls);
	for (Py_ssize_t i = 0; i < count; i++) {
		int64_t row = number_of(rows, i);
		if (row < 0 || put_row(index, roots, row, i, urls, sizes))
			return -1;
	}
	return 0;
}

/* GIL: held. */
PyObject *dpx_py_index_rows(PyObject *module, PyObject *args)
{
	(void)module;
	Py_buffer mapped, blocks;
	PyObject *roots, *rows, *result = NULL;
	if (!PyArg_ParseTuple(args, "y*y*O!O!:index_rows", &mapped, &blocks, &PyTuple_Type, &roots, &PyList_Type, &rows))
		return NULL;
	struct dpx_index index = {
		.bytes = mapped.buf,
		.length = (size_t)mapped.len,
		.blocks = blocks.buf,
		.block_count = (size_t)blocks.len / sizeof(struct dpx_index_block),
	};
	PyObject *urls = PyList_New(PyList_Size(rows)), *sizes = PyList_New(PyList_Size(rows));
	if ((uintptr_t)blocks.buf % sizeof(int64_t) || PyTuple_Size(roots) != (Py_ssize_t)index.block_count)
		PyErr_SetString(PyExc_ValueError, "blocks are not aligned, or not as many as roots");
	else if (urls && sizes && put_rows(&index, roots, rows, urls, sizes) == 0)
		result = PyTuple_Pack(2, urls, sizes);
	Py_XDECREF(urls);
	Py_XDECREF(sizes);
	PyBuffer_Release(&blocks);
	PyBuffer_Release(&mapped);
	return result;
}
