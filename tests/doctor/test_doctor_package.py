"""What the files beside one say of it: who runs its models under `no_grad`, who puts them in eval mode."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from doctor_runs import rules_in, write

SCORER = """
import torch
import torchvision

class Scorer:
    def __init__(self):
        self.net = torchvision.models.resnet18()
        self.net.load_state_dict(torch.load("w.pt", weights_only=True))

    def score(self, x):
        return self.answers(x).max(1)

    def answers(self, x):
        return self.net(x)
"""
RUNS_IT = """
import torch
from shop.scoring import Scorer
scorer = Scorer()
scorer.net.eval()
with torch.no_grad():
    print(scorer.score(x))
"""

DRAWER = """
class Drawer(torch.nn.Module):
    @torch.no_grad()
    def forward(self, x):
        return x
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write(tmp_path, "shop/__init__.py", "")
    write(tmp_path, "shop/deep/__init__.py", "")
    write(tmp_path, "shop/scoring.py", SCORER)
    return tmp_path / "shop"


def test_a_method_that_no_file_covers_is_found(package: Path) -> None:
    write(package, "deep/runs.py", "from shop.scoring import Scorer\nprint(Scorer().score(x))\n")
    assert rules_in(package / "scoring.py") == [("H201", 14), ("H202", 14)]


def test_a_method_run_under_no_grad_by_another_file_of_the_package_is_not_found(package: Path) -> None:
    write(package, "deep/runs.py", RUNS_IT)
    assert rules_in(package / "scoring.py") == []


def test_the_mark_alone_says_nothing_of_another_class(package: Path) -> None:
    write(package, "deep/runs.py", RUNS_IT.replace("Scorer", "Grader").replace("shop.scoring", "shop.grading"))
    assert rules_in(package / "scoring.py") == [("H201", 14), ("H202", 14)]


def test_detach_says_that_gradients_come_along(package: Path) -> None:
    write(package, "deep/runs.py", RUNS_IT)
    write(package, "scoring.py", SCORER.replace("self.net(x)", "self.net(x).detach()"))
    assert rules_in(package / "scoring.py") == [("H202", 14)]


def test_what_the_file_itself_runs_is_judged_by_the_file(package: Path) -> None:
    write(package, "deep/runs.py", RUNS_IT)
    write(package, "scoring.py", SCORER + "\nprint(Scorer().score(x))\n")
    assert rules_in(package / "scoring.py") == [("H201", 14), ("H202", 14)]


def test_scripts_of_one_folder_are_read_and_those_beneath_it_are_not(tmp_path: Path) -> None:
    write(tmp_path, "scoring.py", SCORER)
    write(tmp_path, "old/runs.py", RUNS_IT)
    assert rules_in(tmp_path / "scoring.py") == [("H201", 14), ("H202", 14)]
    write(tmp_path, "runs.py", RUNS_IT)
    assert rules_in(tmp_path / "scoring.py") == []


def test_an_edited_file_is_read_again(package: Path) -> None:
    write(package, "runs.py", RUNS_IT)
    assert rules_in(package / "scoring.py") == []
    (package / "runs.py").unlink()
    assert rules_in(package / "scoring.py") == [("H201", 14), ("H202", 14)]


OPENED = """
import torch
from shop.networks import Net

def answer(path, x):
    net = Net()
    net.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        return net(x).argmax(1)
"""


@pytest.mark.parametrize(("name", "found"), [("shop/open.py", []), ("open.py", [("H201", 9)])])
def test_of_a_model_of_another_file_a_package_says_nothing(package: Path, name: str, found: list[object]) -> None:
    assert rules_in(write(package.parent, name, OPENED)) == found


def test_a_class_whose_own_file_switches_gradients_off_is_not_found(package: Path) -> None:
    drawer = f"import torch\n{DRAWER}"
    draws = """
import torch
from shop.drawer import Drawer

def main(text):
    net = Drawer()
    net.load_state_dict(torch.load("w.pt", weights_only=True))
    net.eval()
    save(net(text))

main("a cat")
"""
    write(package, "cli.py", draws)
    write(package, "drawer.py", drawer.replace("    @torch.no_grad()\n", ""))
    assert rules_in(package / "cli.py") == [("H202", 9)]
    write(package, "drawer.py", drawer)
    assert rules_in(package / "cli.py") == []


def test_a_method_of_a_package_whose_class_loads_no_weights_is_not_found(package: Path) -> None:
    loaded = SCORER + "\ndef restore(scorer):\n    return torch.load('w.pt', weights_only=True)\n"
    write(
        package, "scoring.py", loaded.replace('self.net.load_state_dict(torch.load("w.pt", weights_only=True))', "pass")
    )
    write(package, "deep/runs.py", "from shop.scoring import Scorer\nprint(Scorer().answers(x))\n")
    assert [rule for rule, _ in rules_in(package / "scoring.py")] == ["H202"]  # `score` calls `answers` without it


def test_a_function_of_a_package_may_be_called_once(package: Path) -> None:
    text = "import torch\n\ndef predict(image):\n    net = torch.jit.load('m.pt')\n    return net(image)\n"
    write(package, "once.py", text)
    write(package.parent, "loose.py", text)
    assert "H110" not in [rule for rule, _ in rules_in(package / "once.py")]
    assert ("H110", 4) in rules_in(package.parent / "loose.py")


def test_picture_transforms_are_no_layers_that_care(package: Path) -> None:
    text = """
    import torch
    from torchvision import transforms
    from shop.layers import Generator

    class Painter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Generator()
            self.prepare = transforms.Compose([transforms.ToTensor()])

        def forward(self, x):
            return self.net(x)

    class Shop:
        def __init__(self):
            self.painter = Painter()
            self.painter.load_state_dict(torch.load("w.pt", weights_only=True))

        @torch.no_grad()
        def paint(self, x):
            return self.painter(x).numpy()
    """
    write(package, "painting.py", textwrap.dedent(text))
    assert rules_in(package / "painting.py") == []


def test_a_step_whose_base_is_of_another_file_may_be_put_in_eval_mode_there(package: Path) -> None:
    text = SCORER.replace("class Scorer:", "from shop.steps import Step\n\nclass Scorer(Step):")
    write(package, "scoring.py", text)
    assert [rule for rule, _ in rules_in(package / "scoring.py")] == ["H202"]


def test_a_folder_says_what_its_files_make(package: Path) -> None:
    text = "import torch\n\ndef write(model, path):\n    torch.jit.save(torch.jit.script(model), path)\n"
    write(package, "torch_jit/write.py", text)
    write(package, "files/write.py", text)
    assert rules_in(package / "torch_jit/write.py") == []
    assert rules_in(package / "files/write.py") == [("H206", 4)]


def test_of_many_installed_packages_none_speaks_for_a_file(tmp_path: Path) -> None:
    for name in ("other", "pack"):
        write(tmp_path, f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nRequires-Dist: torch>=2.6\n")
    write(tmp_path, "pack/read.py", 'import torch\na = torch.load("a.pt")\n')
    assert rules_in(tmp_path / "pack/read.py") == [("H501", 2)]


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("pyproject.toml", 'dependencies = ["numpy", "torch>=2.6"]', 0),
        ("pyproject.toml", 'torch = "^2.7.1"', 0),
        ("requirements.txt", "torch==2.8.0\ntorchvision", 0),
        ("setup.py", "setup(install_requires=['torch>=2.5'])", 1),
        ("pack-1.0.dist-info/METADATA", "Name: pack\nRequires-Dist: torch==2.7.1\n", 0),
        ("pack-1.0.dist-info/METADATA", "Name: pack\nRequires-Dist: torch>=2.1\n", 1),
        ("pack-1.0.dist-info/METADATA", "Name: pack\n\nWas torch>=2.6 once.\n", 1),
        ("requirements.txt", "torchvision>=2.6\ntorch", 1),
        ("pyproject.toml", '[project]\nname = "torch"\nrequires-python = ">=3.10"\n', 0),
        ("pyproject.toml", '[project]\nname = "torch-scatter"\ndependencies = ["torch"]\n', 1),
        ("requirements.txt", "torch>=2.6\ntorch>=1.13; python_version < '3.9'", 1),
    ],
)
def test_an_unsafe_default_is_no_finding_where_the_project_asks_for_a_safe_torch(
    tmp_path: Path, name: str, line: str, found: int
) -> None:
    write(tmp_path, name, line)
    write(
        tmp_path,
        "src/pack/read.py",
        'import torch\na = torch.load("a.pt")\nb = torch.load("b.pt", weights_only=False)\n',
    )
    assert rules_in(tmp_path / "src/pack/read.py") == [("H501", 2)] * found + [("H501", 3)]


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("requirements.txt", "torch==1.7.1\ntorchvision==0.8.2", 0),
        ("requirements.txt", "torch>=1.4,<1.10", 0),
        ("environment.yml", "dependencies:\n  - pytorch=1.9\n", 0),
        ("pyproject.toml", 'torch = "~1.8"', 0),
        ("setup.py", "setup(install_requires=['torch<2.4'])", 2),
        ("requirements.txt", "torch>=1.7", 3),
        ("requirements.txt", "torch~=2.1", 3),
        ("requirements.txt", "torchvision==0.8.2\npytorch-lightning==1.2", 0),
        ("setup.py", "setup(install_requires=['torch>=1.5.0,<2.0.0', 'torchvision>=0.6.0,<0.7.0'])", 0),
        ("requirements.txt", "torchvision==0.15.1", 2),
        ("requirements.txt", "torch<3\ntorchvision<0.20", 3),
        ("requirements.txt", "torchvision>=0.8", 3),
        ("requirements.txt", "torch==1.7.1; python_version < '3.8'\ntorch==2.6.0", 3),
    ],
)
def test_a_name_that_the_projects_torch_does_not_have_yet_is_no_advice(
    tmp_path: Path, name: str, line: str, found: int
) -> None:
    write(tmp_path, name, line)
    old = "import torch.quantization\nimport torchvision\nnet = torchvision.models.resnet18(pretrained=True)\n"
    write(tmp_path, "src/pack/run.py", f"{old}scaler = torch.cuda.amp.GradScaler()\n")
    every = [("H204", 1), ("H207", 3), ("H205", 4)]
    assert rules_in(tmp_path / "src/pack/run.py") == every[:found]


STANDS_ALONE = """
import torch
from net import Net

def predict(path, rows):
    model = Net()
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    return [model(row).argmax() for row in rows]
"""
PREDICTS_TOO = """
import torch
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return x

with torch.no_grad():
    predict(Net(), rows)
"""


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ("", [("H202", 9)]),
        ("from alone import predict\n", []),
        ("import alone as a\n", []),
        ("from tools import (\n    load,\n    predict,\n)\n", []),
        ("from alonely import predictor\n", [("H202", 9)]),
    ],
)
def test_files_of_a_folder_are_strangers_until_one_imports_the_other(tmp_path: Path, beside: str, found: list) -> None:
    path = write(tmp_path, "alone.py", STANDS_ALONE)
    write(tmp_path, "other.py", beside + PREDICTS_TOO)
    assert rules_in(path) == found


def test_the_file_that_defines_the_network_may_see_to_gradients(tmp_path: Path) -> None:
    path = write(tmp_path, "alone.py", STANDS_ALONE)
    write(tmp_path, "net.py", PREDICTS_TOO)
    assert rules_in(path) == []


def test_a_copy_of_torch_keeps_what_its_own_version_has(tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", '[project]\nname = "other"\n')
    write(tmp_path, "torch/nn/functional.py", "")
    write(tmp_path, "torch/testing/run.py", "import torch\nscaler = torch.cuda.amp.GradScaler()\n")
    write(tmp_path, "tools/run.py", "import torch\nscaler = torch.cuda.amp.GradScaler()\n")
    assert rules_in(tmp_path / "torch/testing/run.py") == []
    write(
        tmp_path, "torch/cond.py", "import torch\ndef cond(f, *x):\n    return torch.compile(f, fullgraph=True)(*x)\n"
    )
    assert rules_in(tmp_path / "torch/cond.py") == []
    assert rules_in(tmp_path / "tools/run.py") == [("H205", 2)]
