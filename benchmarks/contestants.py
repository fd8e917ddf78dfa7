"""Model files enter; for each engine that reads one, a call without arguments at that engine's best setting leaves.

Batch 1, numpy in, numpy out. Every engine is called as a careful user of it would: the session made once, inputs set
once where the engine keeps them, the answer copied out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["ENDINGS", "Contestants", "gather"]

Call = Callable[[], Any]
Feeds = dict[str, np.ndarray]
# Peers by the file they read, in the order in which the first one names the inputs.
ENDINGS = (".onnx", ".tflite", ".keras", ".h5")
_ONNX_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int8)": np.int8,
                "tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}  # fmt: skip


@dataclass
class Contestants:
    """What takes turns.

    Shapes:  inputs: one array per input of the model, batch 1
    """

    calls: dict[str, Call] = field(default_factory=dict)
    inputs: tuple[np.ndarray, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    """Engine or file → why it does not take part."""


def gather(files: list[Path], seed: int, *, keras: bool = True) -> Contestants:
    """Every peer that reads one of the files and answers once; the first file that opens names the inputs."""
    found, feeds, rng = Contestants(), Feeds(), np.random.default_rng(seed)
    readers = {".onnx": (_onnxruntime, _openvino), ".tflite": (_litert,), ".keras": (_keras,), ".h5": (_keras,)}
    for path in sorted(files, key=lambda p: ENDINGS.index(p.suffix)):
        if path.suffix in (".keras", ".h5") and not keras:
            continue
        for reader in readers[path.suffix]:
            try:
                for label, call in reader(path, feeds, rng):
                    call()
                    found.calls[label] = call
            except Exception as error:  # an engine that cannot run the model is left out, with its own words
                text = " ".join(str(error).split())[:200]
                found.left_out[f"{reader.__name__[1:]} on {path.name}"] = f"{type(error).__name__}: {text}"
    found.inputs = tuple(feeds.values())
    return found


def _sample(shape: Any, dtype: Any, rng: np.random.Generator) -> np.ndarray:
    dims = [int(d) if isinstance(d, (int, np.integer)) and d > 0 else 1 for d in shape]
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(dims).astype(kind)
    low, high = (-100, 100) if kind == np.int8 else (0, 100)
    return rng.integers(low, high, dims).astype(kind)


def _onnxruntime(path: Path, feeds: Feeds, rng: np.random.Generator) -> Iterator[tuple[str, Call]]:
    import onnxruntime as ort

    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if not feeds:
            feeds.update({i.name: _sample(i.shape, _ONNX_DTYPES[i.type], rng) for i in session.get_inputs()})
        given = dict(zip([i.name for i in session.get_inputs()], feeds.values(), strict=True))
        yield f"onnxruntime {threads}t", lambda s=session, g=given: s.run(None, g)
        if threads == 1:
            binding = session.io_binding()
            for name, value in given.items():
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
            for output in session.get_outputs():
                binding.bind_output(output.name)
            yield "onnxruntime 1t bound", lambda s=session, b=binding: _bound_answer(s, b)


def _bound_answer(session: Any, binding: Any) -> Any:
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()


def _openvino(path: Path, feeds: Feeds, rng: np.random.Generator) -> Iterator[tuple[str, Call]]:
    import openvino as ov

    core = ov.Core()
    for threads in (1, 2):
        model = core.read_model(str(path))
        names = [i.get_any_name() for i in model.inputs]
        model.reshape({n: list(v.shape) for n, v in zip(names, feeds.values(), strict=True)})
        settings = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32",
        }  # fmt: skip
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        for index, value in enumerate(feeds.values()):
            request.set_input_tensor(index, ov.Tensor(value, shared_memory=True))
        answers = [request.get_output_tensor(k) for k in range(len(request.model_outputs))]

        def run(request: Any = request, answers: Any = answers) -> Any:
            request.infer()
            return [a.data.copy() for a in answers]

        if len(answers) == 1:

            def run(request: Any = request, data: Any = answers[0].data) -> Any:
                request.infer()
                return data.copy()

        yield f"openvino {threads}t", run


def _litert(path: Path, feeds: Feeds, rng: np.random.Generator) -> Iterator[tuple[str, Call]]:
    from ai_edge_litert.interpreter import Interpreter

    for threads in (1, 2):
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if not feeds:
            feeds.update({i["name"]: _sample(i["shape"], i["dtype"], rng) for i in inputs})
        for i, value in zip(inputs, feeds.values(), strict=True):
            if list(i["shape"]) != list(value.shape):
                interpreter.resize_tensor_input(i["index"], value.shape)
        interpreter.allocate_tensors()
        outs = tuple(o["index"] for o in outputs)
        pairs = [(i["index"], value) for i, value in zip(inputs, feeds.values(), strict=True)]

        def run(it: Any = interpreter, pairs: Any = pairs, outs: Any = outs) -> Any:
            for index, value in pairs:
                it.set_tensor(index, value)
            it.invoke()
            return [it.get_tensor(o) for o in outs]

        if len(inputs) == len(outputs) == 1:

            def run(
                it: Any = interpreter, i: Any = pairs[0][0], x: Any = pairs[0][1], o: Any = outputs[0]["index"]
            ) -> Any:
                it.set_tensor(i, x)
                it.invoke()
                return it.get_tensor(o)

        yield f"litert {threads}t", run


def _keras(path: Path, feeds: Feeds, rng: np.random.Generator) -> Iterator[tuple[str, Call]]:
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(path, compile=False)
    if not feeds:
        feeds.update({i.name: _sample(i.shape, i.dtype, rng) for i in model.inputs})
    arrays = list(feeds.values())
    tensors = [tf.convert_to_tensor(a) for a in arrays]
    array, tensor = (arrays[0], tensors[0]) if len(arrays) == 1 else (arrays, tensors)
    yield "keras predict", lambda: _as_numpy(model.predict(array, verbose=0))
    yield "keras model(x)", lambda: _as_numpy(model(tensor, training=False))
    specs = [tf.TensorSpec(a.shape, a.dtype) for a in arrays]
    for label, xla in (("tf.function", False), ("tf.function XLA", True)):
        function = tf.function(lambda *a: model(a[0] if len(a) == 1 else list(a), training=False), jit_compile=xla)
        concrete = function.get_concrete_function(*specs)
        yield label, lambda f=concrete: _as_numpy(f(*tensors))


def _as_numpy(y: Any) -> list[np.ndarray]:
    return [np.asarray(v) for v in (y if isinstance(y, (list, tuple)) else [y])]
