/* The call path: an object whose call goes from numpy arrays to the engine with nothing in between.

   Call    calling it with exactly matching arrays jumps to a target: a Python callable (any engine), or the run function
           of a compiled model. Anything else goes to `slow`, a Python callable that converts or explains.
   Bound   a compiled model tied to fixed input and output arrays: a call allocates nothing. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <numpy/arrayobject.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* in this order: each builds on those before it */
#include "_specs.h"
#include "_native.h"
#include "_bound.h"

typedef struct {
    PyObject_HEAD vectorcallfunc vectorcall;
    int inputs, outputs;
    Spec *input, *output;
    PyObject *target, *slow;
    Native *native;
} Call;

static PyObject *run_native(Call *self, PyObject *const *args) {
    Native *native = self->native; /* held during the call: another thread may set another target meanwhile */
    const void *in[MAX_TENSORS];
    void *out[MAX_TENSORS];
    PyObject *made[MAX_TENSORS];
    int count = self->outputs;
    for (int i = 0; i < self->inputs; i++) in[i] = PyArray_DATA((PyArrayObject *)args[i]);
    for (int i = 0; i < count; i++) {
        const Spec *spec = &self->output[i];
        made[i] = PyArray_New(&PyArray_Type, spec->rank, spec->shape, spec->type, NULL, NULL, 0, 0, NULL);
        if (!made[i]) {
            while (i--) Py_DECREF(made[i]);
            return NULL;
        }
        out[i] = PyArray_DATA((PyArrayObject *)made[i]);
    }
    int arena = 0;
    if (native->release_gil) {
        arena = take(native);
        if (arena < 0) {
            while (count--) Py_DECREF(made[count]);
            return NULL;
        }
        native->refs++;
        compute(native, native->arena[arena], in, out, 1);
        native->busy[arena] = 0;
        drop_native(native);
    } else {
        compute(native, native->arena[0], in, out, 0);
    }
    if (count == 1) return made[0];
    PyObject *result = PyTuple_New(count);
    for (int i = 0; i < count; i++) {
        if (result)
            PyTuple_SET_ITEM(result, i, made[i]);
        else
            Py_DECREF(made[i]);
    }
    return result;
}

/* Held during the call: another thread may set another target meanwhile. */
static PyObject *hand_over(PyObject *target, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    Py_INCREF(target);
    PyObject *result = PyObject_Vectorcall(target, args, (size_t)count, names);
    Py_DECREF(target);
    return result;
}

static PyObject *call(PyObject *object, PyObject *const *args, size_t flags, PyObject *names) {
    Call *self = (Call *)object;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (count == self->inputs && !names) {
        int good = 1;
        for (int i = 0; good && i < self->inputs; i++) good = matches(args[i], &self->input[i]);
        if (good && self->native) return run_native(self, args);
        if (good && self->target) return hand_over(self->target, args, count, NULL);
    }
    if (!self->slow) {
        PyErr_SetString(PyExc_TypeError, "the arguments do not match and there is no slow path");
        return NULL;
    }
    return hand_over(self->slow, args, count, names);
}

static PyObject *Call_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)args;
    (void)kwargs;
    Call *self = (Call *)type->tp_alloc(type, 0);
    if (self) self->vectorcall = call;
    return (PyObject *)self;
}

static int Call_traverse(PyObject *object, visitproc visit, void *arg) {
    Call *self = (Call *)object;
    Py_VISIT(self->target);
    Py_VISIT(self->slow);
    if (self->native && self->native->refs == 1) Py_VISIT(self->native->owner);
    return 0;
}

static int Call_clear(PyObject *object) {
    Call *self = (Call *)object;
    Py_CLEAR(self->target);
    Py_CLEAR(self->slow);
    return 0;
}

static void Call_dealloc(PyObject *object) {
    Call *self = (Call *)object;
    PyObject_GC_UnTrack(self);
    Call_clear(object);
    drop_native(self->native);
    PyMem_Free(self->input);
    PyMem_Free(self->output);
    Py_TYPE(self)->tp_free(object); /* a Python subclass drops its own reference to its class */
}

static PyObject *Call_set_target(PyObject *object, PyObject *args) {
    Call *self = (Call *)object;
    PyObject *target, *specs, *slow;
    if (!PyArg_ParseTuple(args, "OOO", &target, &specs, &slow)) return NULL;
    int count;
    Spec *input = read_specs(specs, &count);
    if (!input) return NULL;
    PyMem_Free(self->input);
    self->input = input;
    self->inputs = count;
    Py_INCREF(target);
    Py_XSETREF(self->target, target);
    Py_INCREF(slow);
    Py_XSETREF(self->slow, slow);
    drop_native(self->native);
    self->native = NULL;
    Py_RETURN_NONE;
}

static PyObject *Call_set_native(PyObject *object, PyObject *args) {
    Call *self = (Call *)object;
    unsigned long long run, weights, part;
    Py_ssize_t arena_bytes;
    int release_gil, threads;
    PyObject *in, *out, *slow, *owner;
    if (!PyArg_ParseTuple(args, "KKnpKiOOOO", &run, &weights, &arena_bytes, &release_gil, &part, &threads, &in, &out, &slow,
                          &owner))
        return NULL;
    int inputs, outputs;
    Spec *input = read_specs(in, &inputs), *output = input ? read_specs(out, &outputs) : NULL;
    Native *native = output ? PyMem_Calloc(1, sizeof(Native)) : NULL;
    if (!native) {
        PyMem_Free(input);
        PyMem_Free(output);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    native->refs = 1;
    native->run = (run_function)(uintptr_t)run;
    native->weights = (const unsigned char *)(uintptr_t)weights;
    native->arena_bytes = (size_t)arena_bytes;
    native->release_gil = release_gil;
    Py_INCREF(owner);
    native->owner = owner;
    int first = take(native);
    if (first < 0) {
        PyMem_Free(input);
        PyMem_Free(output);
        drop_native(native);
        return NULL;
    }
    native->busy[first] = 0;
    if (threads > 1 && part)
        native->team = team_new((part_function)(uintptr_t)part, native->weights, threads, inputs, outputs);
    drop_native(self->native);
    PyMem_Free(self->input);
    PyMem_Free(self->output);
    self->native = native;
    self->input = input;
    self->output = output;
    self->inputs = inputs;
    self->outputs = outputs;
    Py_INCREF(slow);
    Py_XSETREF(self->slow, slow);
    Py_CLEAR(self->target);
    Py_RETURN_NONE;
}

static PyObject *Call_rows(PyObject *object, PyObject *args) {
    Call *self = (Call *)object;
    PyObject *in_arrays, *out_arrays;
    Py_ssize_t rows;
    if (!PyArg_ParseTuple(args, "OOn", &in_arrays, &out_arrays, &rows)) return NULL;
    Native *native = self->native;
    if (!native) {
        PyErr_SetString(PyExc_TypeError, "not a compiled model");
        return NULL;
    }
    void *in[MAX_TENSORS], *out[MAX_TENSORS];
    if (pointers(in_arrays, self->input, self->inputs, rows, 0, in) ||
        pointers(out_arrays, self->output, self->outputs, rows, 1, out))
        return NULL;
    int arena = take(native);
    if (arena < 0) return NULL;
    Team *team = native->team && !native->team->busy ? native->team : NULL;
    if (team) team->busy = 1;
    native->refs++;
    PyThreadState *state = PyEval_SaveThread();
    for (Py_ssize_t r = 0; r < rows; r++) {
        compute_once(native, team, native->arena[arena], (const void *const *)in, out);
        for (int i = 0; i < self->inputs; i++) in[i] = (char *)in[i] + self->input[i].bytes;
        for (int i = 0; i < self->outputs; i++) out[i] = (char *)out[i] + self->output[i].bytes;
    }
    PyEval_RestoreThread(state);
    native->busy[arena] = 0;
    if (team) team->busy = 0;
    drop_native(native);
    Py_RETURN_NONE;
}

static PyObject *Call_bind(PyObject *object, PyObject *args) {
    Call *self = (Call *)object;
    PyObject *in_arrays, *out_arrays;
    if (!PyArg_ParseTuple(args, "OO", &in_arrays, &out_arrays)) return NULL;
    if (!self->native) {
        PyErr_SetString(PyExc_TypeError, "not a compiled model");
        return NULL;
    }
    Bound *bound = PyObject_GC_New(Bound, &Bound_type);
    if (!bound) return NULL;
    bound->vectorcall = bound_call;
    bound->native = NULL;
    bound->kept = NULL;
    bound->arena = NULL;
    if (pointers(in_arrays, self->input, self->inputs, 1, 0, (void **)bound->in) ||
        pointers(out_arrays, self->output, self->outputs, 1, 1, bound->out) || !(bound->arena = new_arena(self->native)) ||
        !(bound->kept = PyTuple_Pack(2, in_arrays, out_arrays))) {
        PyObject_GC_Track(bound);
        Py_DECREF(bound);
        return NULL;
    }
    self->native->refs++;
    bound->native = self->native;
    PyObject_GC_Track(bound);
    return (PyObject *)bound;
}

static PyMethodDef Call_methods[] = {
    {"_set_target", Call_set_target, METH_VARARGS, "(target, input specs, slow): calls go to a Python callable."},
    {"_set_native", Call_set_native, METH_VARARGS,
     "(run address, weights address, arena bytes, release GIL, part address, threads, input specs, output specs, slow, owner): calls go to a "
     "compiled model; owner is kept alive."},
    {"_rows", Call_rows, METH_VARARGS, "(input arrays, output arrays, rows): runs the compiled model row by row."},
    {"_bind", Call_bind, METH_VARARGS, "(input arrays, output arrays): a Bound that computes the outputs in place."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject Call_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "hasten._call.Call",
    .tp_basicsize = sizeof(Call),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Call, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_new = Call_new,
    .tp_dealloc = Call_dealloc,
    .tp_traverse = Call_traverse,
    .tp_clear = Call_clear,
    .tp_methods = Call_methods,
    .tp_doc = "A callable that jumps from matching numpy arrays straight to an engine.",
};

/* Python subclasses do not inherit the fast call protocol before Python 3.12; this turns it on for one that keeps
   Call's own __call__. */
static PyObject *fast(PyObject *module, PyObject *object) {
    (void)module;
    PyTypeObject *type = (PyTypeObject *)object;
    if (!PyType_Check(object) || !PyType_IsSubtype(type, &Call_type) || type->tp_call != PyVectorcall_Call) {
        PyErr_SetString(PyExc_TypeError, "expected a subclass of Call that keeps its __call__");
        return NULL;
    }
    type->tp_vectorcall_offset = offsetof(Call, vectorcall);
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
    PyType_Modified(type);
    Py_INCREF(object);
    return object;
}

static PyMethodDef functions[] = {
    {"fast", fast, METH_O, "Class decorator: calls of the subclass take the fast protocol too."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "hasten._call", "The compiled call path.", -1, functions, NULL, NULL,
                                    NULL, NULL};

PyMODINIT_FUNC PyInit__call(void) {
    import_array();
    if (PyType_Ready(&Call_type) < 0 || PyType_Ready(&Bound_type) < 0) return NULL;
    PyObject *self = PyModule_Create(&module);
    if (!self) return NULL;
    Py_INCREF(&Call_type);
    Py_INCREF(&Bound_type);
    if (PyModule_AddObject(self, "Call", (PyObject *)&Call_type) < 0 || PyModule_AddObject(self, "Bound", (PyObject *)&Bound_type) < 0)
        return NULL;
    return self;
}
