/* The module: its types, functions and constants. */
#include "bind.h"

#include <stddef.h>

static const char module_doc[] = "Native engine: many opens, reads and listings in flight without the GIL.";

static const char tar_error_doc[] = "A tar archive is damaged, cut short, or not readable here: (reason, offset).";

/* Make a type and, unless it is only ever met as another object's inside, publish it. */
static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot, int publish)
{
	*slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
	if (!*slot)
		return -1;
	return publish ? PyModule_AddType(module, *slot) : 0;
}

static int module_exec(PyObject *module)
{
	struct module_state *state = PyModule_GetState(module);
	if (add_type(module, &dpx_session_spec, &state->session_type, 1) ||
	    add_type(module, &dpx_read_iterator_spec, &state->read_iterator_type, 1) ||
	    add_type(module, &dpx_list_iterator_spec, &state->list_iterator_type, 1) ||
	    add_type(module, &dpx_write_file_spec, &state->write_file_type, 1) ||
	    add_type(module, &dpx_tar_stream_spec, &state->tar_stream_type, 1) ||
	    add_type(module, &dpx_handles_spec, &state->handles_type, 1) ||
	    add_type(module, &dpx_spool_spec, &state->spool_type, 1) ||
	    add_type(module, &dpx_buffer_spec, &state->buffer_type, 0))
		return -1;
	state->tar_error = PyErr_NewExceptionWithDoc("datapipes._dfs.TarError", tar_error_doc, PyExc_ValueError, NULL);
	if (!state->tar_error || PyModule_AddObjectRef(module, "TarError", state->tar_error))
		return -1;
	return PyModule_AddStringConstant(module, "build_type", DPX_DEBUG ? "debug" : "release");
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct module_state *state = PyModule_GetState(module);
	Py_VISIT(state->session_type);
	Py_VISIT(state->read_iterator_type);
	Py_VISIT(state->list_iterator_type);
	Py_VISIT(state->write_file_type);
	Py_VISIT(state->buffer_type);
	Py_VISIT(state->tar_stream_type);
	Py_VISIT(state->handles_type);
	Py_VISIT(state->spool_type);
	Py_VISIT(state->tar_error);
	return 0;
}

static int module_clear(PyObject *module)
{
	struct module_state *state = PyModule_GetState(module);
	Py_CLEAR(state->session_type);
	Py_CLEAR(state->read_iterator_type);
	Py_CLEAR(state->list_iterator_type);
	Py_CLEAR(state->write_file_type);
	Py_CLEAR(state->buffer_type);
	Py_CLEAR(state->tar_stream_type);
	Py_CLEAR(state->handles_type);
	Py_CLEAR(state->spool_type);
	Py_CLEAR(state->tar_error);
	return 0;
}

static void module_free(void *module)
{
	module_clear(module);
}

static PyMethodDef module_methods[] = {
	{"add_shared", dpx_py_add_shared, METH_VARARGS, NULL},
	{"call_log", dpx_py_call_log, METH_O, NULL},
	{"index_rows", dpx_py_index_rows, METH_VARARGS, NULL},
	{"tar_members", (PyCFunction)(void (*)(void))dpx_py_tar_members, METH_VARARGS | METH_KEYWORDS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, module_exec},
	{0, NULL},
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "datapipes._dfs",
	.m_doc = module_doc,
	.m_size = sizeof(struct module_state),
	.m_methods = module_methods,
	.m_slots = module_slots,
	.m_traverse = module_traverse,
	.m_clear = module_clear,
	.m_free = module_free,
};

PyMODINIT_FUNC PyInit__dfs(void);

PyMODINIT_FUNC PyInit__dfs(void)
{
	return PyModuleDef_Init(&module_def);
}

struct module_state *dpx_py_state(PyObject *self)
{
	return PyType_GetModuleState(Py_TYPE(self));
}
