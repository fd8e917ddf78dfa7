"""Tables of what makes what: which call gives a model, a tensor, an array, a session. Data for ``kinds``."""

from __future__ import annotations

import ast
import re

from hasten.doctor.words import words

__all__ = [
    "ANNOTATIONS",
    "CALL_RESULTS",
    "CLASS_MAKERS",
    "ELEMENTS",
    "METHOD_RESULTS",
    "NOT_TENSORS",
    "OPENED_BY_METHOD",
    "SAME_KIND",
    "TENSORS",
    "WRAPPERS",
    "base_kind",
    "kind_by_use",
    "made_by",
    "made_by_class",
]

KERAS_MODEL = "keras model"
KERAS_LAYER = "keras layer"
TORCH_MODULE = "torch module"
TORCH_TENSOR = "torch tensor"
TORCH_DATASET = "torch dataset"
TORCH_LOADER = "torch loader"
TF_TENSOR = "tf tensor"
TF_DATASET = "tf dataset"
TF_FUNCTION = "tf function"
NUMPY = "numpy array"
NUMPY_GENERATOR = "numpy generator"
NUMBER = "number"
ORT_SESSION = "onnxruntime session"
TFLITE = "tflite interpreter"
OPENVINO = "openvino model"
OPENVINO_CORE = "openvino core"
WEB_APP = "web app"
OBJECT = "object"

TENSORS = (TORCH_TENSOR, TF_TENSOR, NUMPY)

_FOR_TASK = re.compile("For[A-Z]")  # BertForMaskedLM, but no Mask2Former
_BESIDE_MODELS = ("Config", "Output", "Processor", "Tokenizer", "TokenizerFast", "Extractor")

_EXACT = {
    "keras.Sequential": KERAS_MODEL,
    "keras.Model": KERAS_MODEL,
    "keras.models.Sequential": KERAS_MODEL,
    "keras.models.Model": KERAS_MODEL,
    "keras.engine.training.Model": KERAS_MODEL,
    "keras.engine.sequential.Sequential": KERAS_MODEL,
    "keras.models.load_model": KERAS_MODEL,
    "keras.saving.load_model": KERAS_MODEL,
    "keras.models.model_from_json": KERAS_MODEL,
    "keras.models.model_from_yaml": KERAS_MODEL,
    "keras.models.model_from_config": KERAS_MODEL,
    "keras.models.clone_model": KERAS_MODEL,
    "keras.Model.from_config": KERAS_MODEL,
    "keras.Input": TF_TENSOR + " symbolic",
    "keras.layers.Input": TF_TENSOR + " symbolic",
    "torch.nn.DataParallel": TORCH_MODULE,
    "torch.hub.load": TORCH_MODULE,
    "torch.jit.load": TORCH_MODULE,
    "torch.jit.script": TORCH_MODULE,
    "torch.jit.trace": TORCH_MODULE,
    "timm.create_model": TORCH_MODULE,
    "timm.models.create_model": TORCH_MODULE,
    "torch.utils.data.DataLoader": TORCH_LOADER,
    "torch.utils.data.TensorDataset": TORCH_DATASET,
    "onnxruntime.InferenceSession": ORT_SESSION,
    "tensorflow.lite.Interpreter": TFLITE,
    "tensorflow.lite.python.interpreter.Interpreter": TFLITE,
    "tflite_runtime.interpreter.Interpreter": TFLITE,
    "ai_edge_litert.interpreter.Interpreter": TFLITE,
    "openvino.compile_model": OPENVINO,
    "openvino.Core": OPENVINO_CORE,
    "openvino.runtime.Core": OPENVINO_CORE,
    "aiohttp.web.RouteTableDef": WEB_APP,
    "celery.Celery": WEB_APP,
    "flask.Flask": WEB_APP,
    "flask.Blueprint": WEB_APP,
    "fastapi.FastAPI": WEB_APP,
    "fastapi.APIRouter": WEB_APP,
    "starlette.applications.Starlette": WEB_APP,
    "sanic.Sanic": WEB_APP,
    "quart.Quart": WEB_APP,
    "bottle.Bottle": WEB_APP,
    "litserve.LitServer": WEB_APP,
    "robyn.Robyn": WEB_APP,
    "bentoml.Service": WEB_APP,
    "flask_socketio.SocketIO": WEB_APP,
    "socketio.Server": WEB_APP,
    "socketio.AsyncServer": WEB_APP,
    "keras.utils.image_dataset_from_directory": TF_DATASET,
    "keras.preprocessing.image_dataset_from_directory": TF_DATASET,
    "keras.utils.text_dataset_from_directory": TF_DATASET,
    "keras.utils.to_categorical": NUMPY,
    "keras.preprocessing.image.img_to_array": NUMPY,
    "keras.utils.img_to_array": NUMPY,
    "keras.preprocessing.sequence.pad_sequences": NUMPY,
    "keras.utils.pad_sequences": NUMPY,
    "numpy.random.default_rng": NUMPY_GENERATOR,
    "numpy.random.RandomState": NUMPY_GENERATOR,
    "cv2.imread": NUMPY,
    "cv2.resize": NUMPY,
    "cv2.cvtColor": NUMPY,
    "float": NUMBER,
    "int": NUMBER,
}

# Functions of torch.* that give a tensor: the rest (save, load, manual_seed, device …) do not.
_TORCH_FUNCTIONS = words(
    "tensor as_tensor from_numpy zeros ones rand randn empty full arange linspace eye cat stack softmax log_softmax "
    "argmax argmin max min sum mean matmul mm bmm exp log sqrt abs sigmoid tanh relu zeros_like ones_like randn_like "
    "rand_like randint where squeeze unsqueeze transpose permute reshape flatten clamp normal einsum topk sort "
    "gather concat hstack vstack floor ceil round pow sub add mul div FloatTensor LongTensor Tensor"
)
_NOT_TF = words("function device name_scope Variable Graph Session Module py_function GradientTape distribute")
_NUMPY_FUNCTIONS = words(
    "array asarray zeros ones empty full arange linspace expand_dims reshape stack concatenate vstack hstack load "
    "random.rand random.randn random.normal random.random random.uniform random.randint random.standard_normal "
    "float32 float64 zeros_like ones_like squeeze transpose ascontiguousarray argmax mean std sum where clip tile "
    "repeat newaxis eye copy genfromtxt loadtxt fromfile frombuffer abs exp log sqrt pad split roll append delete "
    "insert flip moveaxis swapaxes ravel atleast_1d atleast_2d atleast_3d column_stack dstack full_like maximum "
    "minimum diff cumsum tanh interp nan_to_num fromiter rot90"
)
_ANNOTATION_ROOTS = {
    "torch.Tensor": TORCH_TENSOR,
    "torch.FloatTensor": TORCH_TENSOR,
    "torch.nn.Module": TORCH_MODULE,
    "tensorflow.Tensor": TF_TENSOR,
    "numpy.ndarray": NUMPY,
    "numpy.typing.NDArray": NUMPY,
    "keras.Model": KERAS_MODEL,
    "keras.models.Model": KERAS_MODEL,
    "keras.Sequential": KERAS_MODEL,
    "keras.models.Sequential": KERAS_MODEL,
    "tensorflow.data.Dataset": TF_DATASET,
    "torch.utils.data.DataLoader": TORCH_LOADER,
    "torch.utils.data.Dataset": TORCH_DATASET,
    "onnxruntime.InferenceSession": ORT_SESSION,
}
ANNOTATIONS = _ANNOTATION_ROOTS

# Calls whose result is what they are given: the default where that is unknown ('' : unknown).
WRAPPERS = {
    "torch.compile": "",
    "torch.nn.parallel.DistributedDataParallel": TORCH_MODULE,
    "torch.nn.DataParallel": TORCH_MODULE,
    "torch.jit.freeze": TORCH_MODULE,
    "torch.jit.optimize_for_inference": TORCH_MODULE,
    "torch_tensorrt.compile": TORCH_MODULE,
    "torch2trt.torch2trt": TORCH_MODULE,
    "torch.quantization.quantize_dynamic": TORCH_MODULE,
    "torch.ao.quantization.quantize_dynamic": TORCH_MODULE,
    "torch.quantization.convert": TORCH_MODULE,
    "torch.ao.quantization.convert": TORCH_MODULE,
    "torch.quantization.prepare": TORCH_MODULE,
    "torch.ao.quantization.prepare": TORCH_MODULE,
    "tensorflow.function": TF_FUNCTION,
    "copy.deepcopy": "",
    "copy.copy": "",
    "functools.partial": "",
}

CLASS_MAKERS = ("from_pretrained", "load_from_checkpoint", "from_config")

CALL_RESULTS = {
    TORCH_MODULE: TORCH_TENSOR,
    KERAS_MODEL: TF_TENSOR,
    TF_FUNCTION: TF_TENSOR,
}

ELEMENTS = {
    TORCH_LOADER: TORCH_TENSOR,
    TF_DATASET: TF_TENSOR,
    TORCH_TENSOR: TORCH_TENSOR,
    TF_TENSOR: TF_TENSOR,
    NUMPY: NUMPY,
}

SAME_KIND: dict[str, frozenset[str]] = {
    TORCH_MODULE: words(
        "to cuda cpu xpu eval train half float double bfloat16 requires_grad_ apply share_memory type to_empty"
    ),
    TF_DATASET: words(
        "map batch shuffle prefetch cache repeat take skip filter unbatch padded_batch shard interleave concatenate "
        "with_options enumerate flat_map rebatch ragged_batch apply ignore_errors"
    ),
}

METHOD_RESULTS = {
    (KERAS_MODEL, "predict"): NUMPY,
    (KERAS_MODEL, "predict_on_batch"): NUMPY,
    (TORCH_TENSOR, "numpy"): NUMPY,
    (TF_TENSOR, "numpy"): NUMPY,
    (TORCH_TENSOR, "item"): NUMBER,
    (NUMPY, "item"): NUMBER,
    (TORCH_MODULE, "forward"): TORCH_TENSOR,
    (TORCH_MODULE, "generate"): TORCH_TENSOR,
    (TORCH_MODULE, "encode"): "",
    (OPENVINO_CORE, "compile_model"): OPENVINO,
    (KERAS_MODEL, "call"): TF_TENSOR,
    **{
        (NUMPY_GENERATOR, name): NUMPY
        for name in ("normal", "standard_normal", "random", "uniform", "integers", "rand")
    },
}

OPENED_BY_METHOD = (OPENVINO,)

NOT_TENSORS = words(
    "item tolist numpy size dim numel backward is_cuda get_device data_ptr tobytes dump save tofile ndimension stride "
    "storage set_shape register_hook nelement element_size type"
)


def made_by(name: str) -> str:
    """The kind that calling this qualified name gives; '' where unknown."""
    if name in _EXACT and name not in WRAPPERS:
        return _EXACT[name]
    head, _, last = name.rpartition(".")
    if last in CLASS_MAKERS:
        return made_by_class(head)
    if name.startswith("torch."):
        return _made_by_torch(name, head, last)
    if name.startswith("tensorflow."):
        return _made_by_tensorflow(name, head, last)
    if name.startswith("keras."):
        return _made_by_keras(name, last)
    if name.startswith("numpy."):
        return NUMPY if name[6:] in _NUMPY_FUNCTIONS else ""
    if name.startswith("torchvision.models."):
        return TORCH_MODULE if last[:1].islower() and last not in ("list_models", "get_weight") else ""
    return made_by_class(name) if last[:1].isupper() else ""


def _made_by_torch(name: str, head: str, last: str) -> str:
    if head == "torch" and last in _TORCH_FUNCTIONS:
        return TORCH_TENSOR
    if head == "torch.nn.functional":
        return TORCH_TENSOR
    if (
        head == "torch.nn"
        and last[:1].isupper()
        and last not in ("Parameter", "ParameterList", "DataParallel", "Module")
    ):
        return TORCH_MODULE
    return ""


def _made_by_tensorflow(name: str, head: str, last: str) -> str:
    if name.startswith("tensorflow.data."):
        return TF_DATASET if "Dataset" in name else ""
    if head in (
        "tensorflow",
        "tensorflow.nn",
        "tensorflow.math",
        "tensorflow.random",
        "tensorflow.image",
        "tensorflow.io",
    ):
        return TF_TENSOR if last[:1].islower() and last not in _NOT_TF else ""
    return ""


def _made_by_keras(name: str, last: str) -> str:
    if name.startswith("keras.applications.") and last[:1].isupper():
        return KERAS_MODEL
    if name.startswith("keras.layers.") and last[:1].isupper():
        return KERAS_LAYER
    if name.startswith("keras.ops."):
        return TF_TENSOR
    return ""


def made_by_class(name: str) -> str:
    """The kind of an instance of this class; '' where unknown."""
    last = name.rsplit(".", 1)[-1]
    if name.startswith("transformers."):
        model = ("Model" in last or _FOR_TASK.search(last) is not None) and not last.endswith(_BESIDE_MODELS)
        if not model or last.startswith("Flax"):
            return ""
        return KERAS_MODEL if last.startswith("TF") else TORCH_MODULE
    if name.startswith(("segmentation_models_pytorch.", "efficientnet_pytorch.")) and last[:1].isupper():
        return TORCH_MODULE
    if name.startswith("torch.nn.") or name in _ANNOTATION_ROOTS or name in ("keras.Model", "keras.Sequential"):
        return base_kind(name)
    return ""


def kind_by_use(call: ast.Call, roots: set[str]) -> str:
    """What a method call says of its receiver, where only one kind of thing has that method; '' otherwise."""
    assert isinstance(call.func, ast.Attribute)
    name, given = call.func.attr, {k.arg for k in call.keywords}
    if "torch" in roots and name in ("parameters", "named_parameters", "named_modules", "load_state_dict", "eval"):
        if name == "load_state_dict":  # optimizers and schedulers have one too
            written = ast.unparse(call.func.value).lower()
            return (
                "" if any(w in written for w in ("opt", "sched", "scaler", "sampler", "ema", "loss")) else TORCH_MODULE
            )
        bare = not call.args and not call.keywords and "tensorflow" not in roots
        return TORCH_MODULE if bare or name != "eval" else ""
    if roots & {"keras", "tensorflow", "tf_keras"}:
        if name == "compile" and given & {"loss", "optimizer", "metrics"}:
            return KERAS_MODEL
        plain = not roots & {"torch", "statsmodels"}
        if plain and (name == "load_weights" or (name == "summary" and not call.args)):
            return KERAS_MODEL
        if name in ("fit", "evaluate", "predict") and given & {
            "validation_data",
            "validation_split",
            "steps_per_epoch",
        }:
            return KERAS_MODEL
    return ""


def base_kind(name: str) -> str:
    """The kind of an instance of a class that derives from this one; '' where unknown."""
    last = name.rsplit(".", 1)[-1]
    if name in _ANNOTATION_ROOTS:
        return _ANNOTATION_ROOTS[name]
    if name.startswith("torch.nn.") and last[:1].isupper():
        return TORCH_MODULE if last != "Parameter" else ""
    if last in ("LightningModule",) or (name.startswith("transformers.") and last.endswith("PreTrainedModel")):
        return TORCH_MODULE
    if name.startswith("torch.utils.data.") and last.endswith("Dataset"):
        return TORCH_DATASET
    if name.startswith("keras.layers.") and last[:1].isupper():
        return KERAS_LAYER
    if name.startswith("torchvision.datasets."):
        return TORCH_DATASET
    return KERAS_MODEL if name.startswith("keras.") and last in ("Model", "Sequential", "Functional") else ""
