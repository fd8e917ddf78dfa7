#include <Python.h>
PyMODINIT_FUNC PyInit__call(void){ static struct PyModuleDef d={PyModuleDef_HEAD_INIT,"hasten._call",0,-1,0,0,0,0,0}; return PyModule_Create(&d);}
