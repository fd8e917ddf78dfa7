"""What a name means: imports by every road, and things whose class is seen being built, loaded or declared."""

from __future__ import annotations

import ast

import pytest

from hasten.doctor import makers
from hasten.doctor.code import Code

IMPORTS = {
    "alias": ("import numpy as anything\nHERE(anything.load)", "numpy.load"),
    "from with alias": ("from tensorflow import keras as k\nHERE(k.models.load_model)", "keras.models.load_model"),
    "a deep module": ("import torch.nn.functional as F\nHERE(F.softmax)", "torch.nn.functional.softmax"),
    "the dotted name itself": ("import tensorflow.keras.models\nHERE(tensorflow.keras.Model)", "keras.Model"),
    "another name for a function": ("import torch\nload = torch.load\nHERE(load)", "torch.load"),
    "a name for a module": ("import tensorflow as tf\nL = tf.keras.layers\nHERE(L.Dense)", "keras.layers.Dense"),
    "a chain of names": ("import torch as t\na = t\nb = a.nn\nHERE(b.Linear)", "torch.nn.Linear"),
    "the old private road": ("from tensorflow.python.keras.models import Model\nHERE(Model)", "keras.models.Model"),
    "version one": ("import tensorflow.compat.v1 as tf\nHERE(tf.constant)", "tensorflow.constant"),
    "tf_keras": ("import tf_keras as keras\nHERE(keras.Model)", "keras.Model"),
    "keras.src": ("from keras.src.models import Model\nHERE(Model)", "keras.models.Model"),
    "try, else another": (
        "try:\n    from tflite_runtime.interpreter import Interpreter\nexcept ImportError:\n"
        "    from tensorflow.lite.python.interpreter import Interpreter\nHERE(Interpreter)",
        "tflite_runtime.interpreter.Interpreter",
    ),
    "try, else None": ("try:\n    import torch\nexcept ImportError:\n    torch = None\nHERE(torch.load)", "torch.load"),
    "for type checkers alone": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nHERE(torch.Tensor)",
        "torch.Tensor",
    ),
    "inside the function": ("def f():\n    import torch\n    HERE(torch.load)", "torch.load"),
    "in the class body": ("class A:\n    import torch\n    HERE(torch.load)", "torch.load"),
    "import_module": (
        "import importlib\ntorch = importlib.import_module('torch')\nHERE(torch.load)",
        "torch.load",
    ),
    "star": ("from torch.nn import *\nHERE(Linear)", "torch.nn.Linear"),
    "several stars": (
        "from keras.models import *\nfrom keras.layers import *\nHERE(load_model)",
        "keras.models.load_model",
    ),
    "a star hides no builtin": ("from torch import *\nHERE(len)", ""),
    "bound again": ("import torch\ntorch = fake()\nHERE(torch.load)", ""),
    "a parameter of that name": ("import torch\ndef f(torch):\n    HERE(torch.load)", ""),
    "a class body is no outer scope": ("class A:\n    import torch\n    def f(self):\n        HERE(torch.load)", ""),
    "a comprehension's own name": ("import torch\n[HERE(torch.load) for torch in xs]", ""),
    "somebody's module of that name": ("from . import keras\nHERE(keras.Model)", ".keras.Model"),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_names_lead_to_what_was_imported(case: str) -> None:
    text, expected = IMPORTS[case]
    code, node = here(text)
    assert code.qualified(node) == expected


K = "import keras\nimport numpy as np\nload = keras.models.load_model\n"
T = "import torch\nfrom torch import nn\n"
F = "    def f(self):\n        HERE(self.m)"
KERAS, TORCH = makers.KERAS_MODEL, makers.TORCH_MODULE
KINDS = {
    "assigned": (K + "m = load('a')\nHERE(m)", KERAS),
    "assigned in an outer scope": (K + "m = load('a')\ndef f():\n    HERE(m)", KERAS),
    "a tuple": (K + "m, n = load('a'), 3\nHERE(m)", KERAS),
    "a nested tuple": (K + "(a, (m, b)) = 1, (load('a'), 2)\nHERE(m)", KERAS),
    "chained": (K + "a = b = load('a')\nHERE(b)", KERAS),
    "a walrus": (K + "if (m := load('a')):\n    HERE(m)", KERAS),
    "either arm": (K + "m = load('a') if x else load('b')\nHERE(m)", KERAS),
    "either branch": (K + "if x:\n    m = load('a')\nelse:\n    m = keras.Sequential()\nHERE(m)", KERAS),
    "branches that differ": (K + "if x:\n    m = load('a')\nelse:\n    m = other()\nHERE(m)", None),
    "assigned again": (K + "m = other()\nm = load('a')\nHERE(m)", KERAS),
    "assigned something else": (K + "m = load('a')\nm = other()\nHERE(m)", None),
    "used before it changes": (K + "m = load('a')\nHERE(m)\nm = other()", KERAS),
    "None until loaded": (K + "m = None\ndef f():\n    global m\n    m = load('a')\ndef g():\n    HERE(m)", KERAS),
    "returned": (K + "def get():\n    return load('a')\nHERE(get())", KERAS),
    "returned among others": (K + "def get():\n    return load('a'), 1\nm, n = get()\nHERE(m)", KERAS),
    "returned from a cached function": (
        K + "import functools\n@functools.cache\ndef get():\n    return load('a')\nHERE(get())",
        KERAS,
    ),
    "declared as returned": (K + "def get() -> keras.Model:\n    return make()\nHERE(get())", KERAS),
    "self": (
        K + "class A:\n    def __init__(self):\n        self.m = load('a')\n" + F,
        KERAS,
    ),
    "self, set by another method": (
        K + "class A:\n    def f(self):\n        HERE(self.m)\n"
        "    def setup(self):\n        self.m, self.n = load('a'), 1",
        KERAS,
    ),
    "self, of the base class": (
        K + "class A:\n    def __init__(self):\n        self.m = load('a')\nclass B(A):\n" + F,
        KERAS,
    ),
    "another object's attribute": (
        K + "class A:\n    def __init__(self):\n        self.m = load('a')\na = A()\nHERE(a.m)",
        KERAS,
    ),
    "a class attribute": (K + "class A:\n    m = load('a')\n" + F, KERAS),
    "cls": (
        K + "class A:\n    @classmethod\n    def start(cls):\n        cls.m = load('a')\n" + F,
        KERAS,
    ),
    "by the class' name": (K + "class A:\n    m = load('a')\nHERE(A.m)", KERAS),
    "a property": (
        K + "class A:\n    @property\n    def m(self):\n        return load('a')\n" + F,
        KERAS,
    ),
    "a dataclass field": (
        K + "from dataclasses import dataclass\n@dataclass\nclass A:\n    m: keras.Model\n" + F,
        KERAS,
    ),
    "declared on self": (
        K + "class A:\n    def __init__(self, m):\n        self.m: keras.Model = m\n" + F,
        KERAS,
    ),
    "the application's state": (K + "def start(app):\n    app.state.m = load('a')\n    HERE(app.state.m)", KERAS),
    "kept on the application": (K + "app = App()\napp.m = load('a')\ndef f():\n    HERE(app.m)", KERAS),
    "another variable's attribute": (K + "app.m = load('a')\ndef f(app):\n    HERE(app.m)", None),
    "under a key": (K + "ms = {}\ndef start():\n    ms['a'] = load('a')\ndef f():\n    HERE(ms['a'])", KERAS),
    "in a written dictionary": (K + "ms = {'a': load('a'), 'b': load('b')}\nHERE(ms[name])", KERAS),
    "in a mixed dictionary": (K + "ms = {'a': load('a'), 'b': 3}\nHERE(ms[name])", None),
    "in a list": (K + "ms = [load(p) for p in ps]\nHERE(ms[0])", KERAS),
    "appended to a list": (K + "ms = []\nfor p in ps:\n    ms.append(load(p))\nfor m in ms:\n    HERE(m)", KERAS),
    "looped over": (K + "for m in (load('a'), load('b')):\n    HERE(m)", KERAS),
    "looped over items": (K + "ms = {'a': load('a')}\nfor name, m in ms.items():\n    HERE(m)", KERAS),
    "the keys are no models": (K + "ms = {'a': load('a')}\nfor m in ms:\n    HERE(m)", None),
    "zipped": (K + "ms = [load('a')]\nfor m, x in zip(ms, xs):\n    HERE(m)", KERAS),
    "a parameter, declared": (K + "def f(m: keras.Model):\n    HERE(m)", KERAS),
    "in quotes": (K + "def f(m: 'keras.Model'):\n    HERE(m)", KERAS),
    "optional": (T + "from typing import Optional\ndef f(m: Optional[nn.Module] = None):\n    HERE(m)", TORCH),
    "or None": (T + "def f(m: nn.Module | None):\n    HERE(m)", TORCH),
    "a union of one kind": (
        T + "from typing import Union\ndef f(m: Union[nn.Module, nn.Sequential]):\n    HERE(m)",
        TORCH,
    ),
    "a union of two": (T + "from typing import Union\ndef f(m: Union[nn.Module, str]):\n    HERE(m)", None),
    "passed by the file": (K + "def f(m):\n    HERE(m)\nf(load('a'))", KERAS),
    "passed by name, kept in self": (
        K + "class A:\n    def __init__(self, m):\n        self.m = m\n" + F + "\nA(m=load('a'))",
        KERAS,
    ),
    "passed something else as well": (K + "def f(m):\n    HERE(m)\nf(load('a'))\nf(other())", None),
    "with": (
        "import onnxruntime as ort\nwith ort.InferenceSession('a') as s:\n    HERE(s)",
        makers.ORT_SESSION,
    ),
    "a local subclass": (T + "class Net(nn.Module):\n    pass\nHERE(Net())", TORCH),
    "a subclass of a subclass": (T + "class A(nn.Module):\n    pass\nclass B(A):\n    pass\nHERE(B())", TORCH),
    "declared as a local class": (T + "class Net(nn.Module):\n    pass\ndef f(m: Net):\n    HERE(m)", TORCH),
    "moved about": (T + "m = nn.Sequential().to('cpu').eval()\nHERE(m)", TORCH),
    "compiled": (T + "m = torch.compile(nn.Linear(1, 2))\nHERE(m)", TORCH),
    "a LightningModule": ("import lightning as L\nclass A(L.LightningModule):\n    pass\nHERE(A())", TORCH),
    "known by its use": (T + "from net import Net\nm = Net()\nm.load_state_dict(torch.load('a'))\nHERE(m)", TORCH),
    "weights loaded into it": ("import keras\nfrom net import build\nm = build()\nm.load_weights('a')\nHERE(m)", KERAS),
    "summed up by statsmodels": (
        "import tensorflow\nimport statsmodels.api as sm\nm = f()\nm.summary()\nHERE(m)",
        None,
    ),
    "openvino's core": ("import openvino as ov\nm = ov.Core().compile_model('a')\nHERE(m)", makers.OPENVINO),
    "what the model gives": (T + "m = nn.Linear(1, 2)\ny = m(x)\nHERE(y[0])", makers.TORCH_TENSOR),
    "caught by match": (K + "match x:\n    case [m]:\n        HERE(m)\nm = load('a')", None),
}


@pytest.mark.parametrize("case", KINDS)
def test_things_are_what_the_file_makes_them(case: str) -> None:
    text, expected = KINDS[case]
    code, node = here(text)
    kind = code.kind(node)
    assert (kind.name if kind is not None else None) == expected


def here(text: str) -> tuple[Code, ast.expr]:
    code = Code(text)
    [call] = [c for c in code.calls if isinstance(c.func, ast.Name) and c.func.id == "HERE"]
    return code, call.args[0]
