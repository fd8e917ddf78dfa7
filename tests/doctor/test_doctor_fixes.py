"""What ``--fix`` writes runs, and gives the same results as what it replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctor_runs import executed, fixed, same

from hasten.doctor.check import Job, check_text
from hasten.doctor.settings import Settings

TORCH = "import torch\ntorch.manual_seed(0)\nnet = torch.nn.Sequential(torch.nn.Linear(4, 3)).eval()\n"
TORCH_CASES = {
    "H005": """
out = []
for i in range(4):
    # the mean of each channel
    scale = torch.tensor([0.5, 2.0, 1.0])
    out.append((net(torch.ones(1, 4) * i) * scale).sum().item())
result = out
""",
    "H006": """
scores = torch.linspace(0, 1, 50) * 3
result = [scores[i].item() for i in range(len(scores))]
""",
    "H105": """
out = []
for x in torch.eye(4):
    traced = torch.jit.trace(net, torch.ones(1, 4))
    out.append(traced(x[None]).sum().item())
result = out
""",
    "H202": """
net.load_state_dict(net.state_dict())
def score(x):
    return net(x).argmax(1).tolist()
result = score(torch.eye(4))
""",
    "H204": """
q = torch.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8)
result = q(torch.eye(4)).tolist()
""",
    "H205": """
with torch.cpu.amp.autocast(enabled=False):
    result = net(torch.eye(4)).tolist()
""",
    "H408": """
device = torch.device("cpu")
scale = torch.tensor([1.0, 2.0, 3.0])
out = []
for x in torch.eye(4):
    s = scale.to(device)
    out.append((net(x) * s).sum().item())
result = out
""",
}


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", TORCH_CASES)
def test_torch_code_gives_the_same_after_safe_fixes(code: str) -> None:
    before = TORCH + TORCH_CASES[code]
    after = fixed(before, select=code)
    assert after != before
    assert not check_text(after, Job(Path("a.py"), "a.py", Settings(select=(code,))))
    assert same(executed(before)["result"], executed(after)["result"])


KERAS = """
import numpy as np
import keras
from keras.layers import LSTM, Dense, TimeDistributed
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), Dense(3, activation="tanh")])
rows = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
"""
KERAS_CASES = {
    "H001": "result = [model.predict(row[None], verbose=0)[0] for row in rows]\n",
    "H002": "result = model.predict(rows[:1], verbose=0)\n",
    "H106": """
deep = keras.Sequential([keras.Input((5, 4)), LSTM(6, return_sequences=True), TimeDistributed(Dense(2))])
deep.set_weights([np.full(w.shape, 0.1 + i / 9, w.dtype) for i, w in enumerate(deep.get_weights())][:])
result = deep(rows.reshape(1, 8, 4)[:, :5]).numpy()
""".replace("deep.set_weights", "deep.set_weights"),
}


@pytest.mark.frameworks
@pytest.mark.parametrize("code", KERAS_CASES)
def test_keras_code_gives_the_same_after_fixes(code: str) -> None:
    pytest.importorskip("keras")
    before = KERAS + KERAS_CASES[code]
    after = fixed(before, select=code, unsafe=code == "H106")
    assert after != before
    assert not check_text(after, Job(Path("a.py"), "a.py", Settings(select=(code,))))
    assert same(executed(before)["result"], executed(after)["result"])


@pytest.mark.frameworks
def test_tf_function_moved_out_of_a_loop_gives_the_same() -> None:
    tf = pytest.importorskip("tensorflow")
    before = """
import tensorflow as tf
def square(x):
    return x * x
out = []
for i in [tf.constant(1.0), tf.constant(2.0), tf.constant(3.0)] * 4:
    fast = tf.function(square)
    out.append(float(fast(i)))
data = tf.data.Dataset.range(6).map(lambda x: tf.square(x), num_parallel_calls=2).batch(2)
for batch in data:
    out.extend(batch.numpy().tolist())
result = out
"""
    after = fixed(before)
    assert after.index("fast = tf.function(square)") < after.index("for i in")
    assert ".batch(2).prefetch(tf.data.AUTOTUNE)" in after
    assert same(executed(before)["result"], executed(after)["result"])
    assert tf is not None


FILES = """
import os, tempfile
import numpy as np
import torch
folder = tempfile.mkdtemp()
path = os.path.join(folder, "w.pt")
torch.manual_seed(0)
torch.save(torch.nn.Linear(4, 3).state_dict(), path)
np.save(os.path.join(folder, "x.npy"), np.arange(6.0))
device = "cuda" if torch.cuda.is_available() else "cpu"
"""
FILE_CASES = {
    "H501": "result = torch.load(path)['bias'].tolist()\n",
    "H502": "result = np.load(os.path.join(folder, 'x.npy'), allow_pickle=True)\n",
    "H201": """
net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.0))
net[0].load_state_dict(torch.load(path, weights_only=True))
result = net(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist()
""",
    "H402": """
from torch.utils.data import DataLoader
class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return float(i * i)
workers = 0
loader = DataLoader(Squares(), batch_size=2, num_workers=workers)
result = [batch.to("cpu").tolist() for batch in loader]
""",
    "H303": """
import time
net = torch.nn.Sequential(torch.nn.Linear(4, 3))
torch.cuda.synchronize = lambda: None  # no device here
net.load_state_dict({"0." + k: v for k, v in torch.load(path, weights_only=True).items()})
start = time.perf_counter()
y = net(torch.ones(1, 4))
print(time.perf_counter() - start)
result = y.tolist()
""",
}


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", FILE_CASES)
def test_files_and_loaders_give_the_same_after_fixes(code: str) -> None:
    before = FILES + FILE_CASES[code]
    after = fixed(before, select=code, unsafe=True)
    assert after != before
    assert not check_text(after, Job(Path("a.py"), "a.py", Settings(select=(code,))))
    assert same(executed(before)["result"], executed(after)["result"])


UNSAFE_CASES = {
    "H008": """
model.compile("sgd", "mse", run_eagerly=True)
result = model.evaluate(rows, np.zeros((8, 3)), verbose=0)
""",
    "H101": """
import tensorflow as tf
@tf.function
def scaled(x, n):
    return tf.reduce_sum(x) * tf.cast(n, tf.float32)
x = tf.constant(rows)
result = []
for n in range(5):
    result.append(float(scaled(x, n)))
""",
    "H110": """
import os, tempfile
path = os.path.join(tempfile.mkdtemp(), "m.keras")
model.save(path)
result = []
for row in rows:
    loaded = keras.models.load_model(path)
    result.append(float(loaded(row[None])[0, 0]))
""",
    "H406": """
import tensorflow as tf
data = tf.data.Dataset.range(6).map(lambda x: tf.strings.length(tf.strings.as_string(x)))
result = [int(x) for x in data]
""",
}


@pytest.mark.frameworks
@pytest.mark.parametrize("code", UNSAFE_CASES)
def test_keras_code_gives_the_same_after_unsafe_fixes(code: str) -> None:
    pytest.importorskip("tensorflow")
    before = KERAS + UNSAFE_CASES[code]
    after = fixed(before, select=code, unsafe=True)
    assert after != before
    assert not check_text(after, Job(Path("a.py"), "a.py", Settings(select=(code,))))
    assert same(executed(before)["result"], executed(after)["result"])


WORKERS = """
import os
import torch
from torch.utils.data import DataLoader
device = "cuda" if torch.cuda.is_available() else "cpu"
class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        return float(i * i), os.getpid()
loader = DataLoader(Squares(), batch_size=2, num_workers=2)
result, workers = [], set()
for epoch in range(4):
    for values, who in loader:
        result += values.to(device).tolist()
        workers |= set(who.tolist())
"""


@pytest.mark.frameworks
def test_workers_that_persist_give_the_same_and_start_once() -> None:
    after = fixed(WORKERS, select="H403")
    first, second = executed(WORKERS), executed(after)
    assert same(first["result"], second["result"])
    assert [len(names["workers"]) for names in (first, second)] == [8, 2]  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("loop", ["t.item() for t in scores", "scores[i].item() for i in range(len(scores))"])
def test_numbers_are_taken_out_flat(shape: tuple[int, ...], loop: str) -> None:
    text = f"import torch\nscores = torch.linspace(0, 1, 6).reshape({shape})\nresult = [{loop}]\n"
    after = fixed(text, select="H006")
    assert "tolist" in after and executed(after)["result"] == executed(text)["result"]


@pytest.mark.parametrize(
    "use",
    [
        "ages, names = model.predict(x)",
        "both = model.predict(x)\n    ages, names = both",
        'ages = model.predict(x)["ages"]',
    ],
)
def test_several_answers_have_no_numpy(use: str) -> None:
    head = "import keras\nimport numpy as np\nmodel = keras.models.load_model('m')\n"
    text = f"{head}def answer(row):\n    x = np.asarray(row)[None]\n    {{}}\n    return ages\n"
    assert fixed(text.format(use), select="H002") == text.format(use)
    assert ".numpy()" in fixed(text.format("ages = model.predict(x)"), select="H002")
