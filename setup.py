"""The one compiled part: the call path. Optional, so that an install without a C compiler still works (slower)."""

import numpy
from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "hasten._call",
            ["src/hasten/_call.c"],
            depends=[f"src/hasten/_{part}.h" for part in ("bound", "choice", "native", "specs", "team")],
            include_dirs=[numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            extra_compile_args=["-O3", "-fvisibility=hidden", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
