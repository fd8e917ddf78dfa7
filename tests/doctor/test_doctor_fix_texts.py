"""How ``--fix`` writes: comments, commas and line ends stay where a person would leave them, and unsafe fixes wait."""

from __future__ import annotations

import pytest
from doctor_runs import fixed

TEXTS = {
    "argument is added where it belongs": (
        "import torch\nfrom torch.utils.data import DataLoader\nnet.cuda()\n"
        "a = DataLoader(\n    data,\n    num_workers=4,  # four\n)\n",
        "H402",
        "a = DataLoader(\n    data,\n    num_workers=4,\n    pin_memory=True,  # four\n)\n",
    ),
    "argument is removed with its comma": (
        "from torchvision import models\nnet = models.resnet18(pretrained=True, progress=False)\n",
        "H207",
        'net = models.resnet18(progress=False, weights="IMAGENET1K_V1")\n',
    ),
    "comments above a moved line's loop stay above": (
        "import torch\n# all of them\nfor x in xs:\n    s = torch.tensor([1.0, 2.0])\n    show(x * s)  # seen\n",
        "H005",
        "# all of them\ns = torch.tensor([1.0, 2.0])\nfor x in xs:\n    show(x * s)  # seen\n",
    ),
    "names beyond ASCII do not shift columns": (
        "import torch\nкот = 1; имя = 'я'\nq = [имя, torch.quantization.default_qconfig]\n",
        "H204",
        "q = [имя, torch.ao.quantization.default_qconfig]\n",
    ),
    "synchronize before both readings": (
        "import time, torch, torchvision\nnet = torchvision.models.resnet18().cuda()\n"
        "t = time.time()\nnet(x)\nprint(time.time() - t)\n",
        "H303",
        "torch.cuda.synchronize()\nt = time.time()\nnet(x)\ntorch.cuda.synchronize()\nprint(time.time() - t)\n",
    ),
    "verbose": (
        "import keras, flask\napp = flask.Flask(__name__)\nm = keras.models.load_model('m')\n"
        "@app.route('/')\ndef f():\n    return m.predict(x, verbose=1)\n",
        "H009",
        "    return m.predict(x, verbose=0)\n",
    ),
    "line ends of other systems are kept": (
        "import torch\r\nq = torch.quantization.default_qconfig\r\n",
        "H204",
        "import torch\r\nq = torch.ao.quantization.default_qconfig\r\n",
    ),
    "a decorator goes nearest the function": (
        "import torch\nnet = torch.hub.load('pytorch/a', 'b').eval()\n@log\ndef f(x):\n    return net(x).tolist()\n",
        "H202",
        "@log\n@torch.no_grad()\ndef f(x):\n",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_rewritten_as_a_person_would(name: str) -> None:
    before, code, expected = TEXTS[name]
    assert expected in fixed(before, select=code)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import torch\nx = torch.load('a')\n", "H501"),
        ("import numpy as np\nx = np.load('a', allow_pickle=True)\n", "H502"),
        ("import keras\nm = keras.Sequential()\nm.compile('adam', run_eagerly=True)\n", "H008"),
    ],
)
def test_unsafe_fixes_wait_to_be_asked_for(text: str, code: str) -> None:
    assert fixed(text, select=code) == text
    after = fixed(text, select=code, unsafe=True)
    assert after != text
    compile(after, "a.py", "exec")


def test_a_fix_that_would_change_an_earlier_value_is_not_offered() -> None:
    text = "import torch\ns = None\nfor x in xs:\n    s = torch.tensor([1.0, 2.0])\n    show(x * s)\nprint(s)\n"
    assert fixed(text, select="H005") == text
