/* An extension module for the tests of the loader. PHASES is 1 or 2; the other macros make it slow or unable to load. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <unistd.h>

#define JOINED_(a, b) a##b
#define JOINED(a, b) JOINED_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

static int loads;

#ifdef UNDEFINED
extern int no_library_has_this(void);
#endif

static PyObject *answer(PyObject *self, PyObject *none) {
#ifdef UNDEFINED
    return PyLong_FromLong(no_library_has_this());
#else
    return PyUnicode_FromString(ANSWER);
#endif
}

static PyObject *times_loaded(PyObject *self, PyObject *none) { return PyLong_FromLong(loads); }

static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {"times_loaded", times_loaded, METH_NOARGS, ""}, {0}};

static int start(PyObject *module) {
    if (getenv("TINY_FAILS")) {
        PyErr_SetString(PyExc_RuntimeError, "asked to fail");
        return -1;
    }
#ifdef SLOW
    Py_BEGIN_ALLOW_THREADS
    usleep(300000);
    Py_END_ALLOW_THREADS
#endif
    loads++;
    return 0;
}

#if PHASES == 2
static PyModuleDef_Slot slots[] = {{Py_mod_exec, start}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, TEXT(NAME), "", 0, methods, slots};
PyMODINIT_FUNC JOINED(PyInit_, NAME)(void) { return PyModuleDef_Init(&definition); }
#else
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, TEXT(NAME), "", -1, methods};
PyMODINIT_FUNC JOINED(PyInit_, NAME)(void) {
    PyObject *module = PyModule_Create(&definition);
    return module && start(module) == 0 ? module : NULL;
}
#endif
