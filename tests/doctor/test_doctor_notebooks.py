"""The doctor in notebooks: where findings are said to be, and what a fix leaves as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from doctor_runs import BAD, notebook, run, write

from hasten.doctor.check import Job, check_bytes
from hasten.doctor.notebook import read_notebook
from hasten.doctor.settings import Settings

NOTEBOOK_SOURCES = {
    "lines": (["import torch\n", "x = 'é'\n", "s = torch.load('w')"], {"indent": 1, "ensure_ascii": False}),
    "escaped": (["import torch\n", "x = 'é'\n", "s = torch.load('w')"], {"indent": 2}),
    "one string": ("import torch\ns = torch.load('w')", {"indent": 1}),
    "one line": (["import torch\n", "s = torch.load('w')"], {}),
}


@pytest.mark.parametrize("form", NOTEBOOK_SOURCES)
def test_a_cells_line_is_found_in_the_notebooks_file(form: str) -> None:
    source, options = NOTEBOOK_SOURCES[form]
    shown = {"output_type": "stream", "name": "stdout", "text": ['"source": ["s = torch.load(\'w\')"]']}
    cells = [
        {"cell_type": "code", "metadata": {}, "outputs": [shown], "source": ["1"]},
        {"cell_type": "markdown", "metadata": {}, "source": source},
        {"cell_type": "code", "metadata": {}, "outputs": [shown], "source": source},
    ]
    raw = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, **options)
    result = check_bytes(raw.encode(), Job(Path("n.ipynb"), "n.ipynb", Settings()))
    [finding] = result.findings
    holding = [n for n, line in enumerate(raw.splitlines(), 1) if "s = torch.load" in line]
    assert result.file_lines[finding] == holding[-1]  # the last cell's own, after its output of the same words


def test_github_annotations_name_the_cell_of_a_notebook(tmp_path: Path) -> None:
    path = write(tmp_path, "n.ipynb", notebook("import torch", "\ns = torch.load('w')"))
    [line] = run(str(path), "--format", "github").output.splitlines()
    number = re.search(r",line=(\d+),title", line)
    assert number is not None and "torch.load('w')" in path.read_text().splitlines()[int(number[1]) - 1]
    assert "::cell 3, line 2: `torch.load`" in line


def test_notebook_findings_name_cell_and_line_across_cells() -> None:
    text = notebook("%matplotlib inline\nimport torch", "!ls\nx = !pwd\nstate = torch.load('w')  # why?")
    result = check_bytes(text.encode(), Job(Path("n.ipynb"), "n.ipynb", Settings()))
    [finding] = result.findings
    assert (finding.path, finding.line, finding.rule) == ("n.ipynb:cell 3", 3, "H501")


def test_a_broken_cell_costs_that_cell_alone() -> None:
    text = notebook(
        "import torch", "def f(:", "%%bash\nls -l", "await run()\ntorch.load('w')", "torch?\ntorch.load('v')"
    )
    result = check_bytes(text.encode(), Job(Path("n.ipynb"), "n.ipynb", Settings()))
    found = [(f.path, f.rule, f.line) for f in result.findings]
    assert found == [("n.ipynb:cell 3", "H000", 1), ("n.ipynb:cell 5", "H501", 2), ("n.ipynb:cell 6", "H501", 2)]


def test_a_cell_of_newer_python_is_read_and_left_as_it_is() -> None:
    text = notebook("import torch\n%time f(x)", """y = f"{d["a"]}"; torch.load('w')""")
    result = check_bytes(text.encode(), Job(Path("n.ipynb"), "n.ipynb", Settings(), "unsafe"))
    assert {(f.path, f.rule, f.line) for f in result.findings} <= {("n.ipynb:cell 3", "H501", 1)}
    assert result.findings or result.fixed is not None  # a Python that knows it mends it
    after = (result.fixed or text.encode()).decode()
    assert "".join(json.loads(after)["cells"][2]["source"]).startswith('y = f"{d["a"]}"; torch.load')


def test_magics_of_every_kind_stand_aside() -> None:
    cells = [
        "%load_ext autoreload\n!pip install torch\nimport torch\nfiles = !ls *.pt\nif files:\n    !echo some\n",
        "!python train.py \\\n  --epochs 3 \\\n  --rate 0.1\ns = torch.load('a')",
        "%%writefile net.py\nimport torch\ntorch.load('b')",
        "? torch.load\n??torch\n# what is this?\ntorch.load('c')",
    ]
    text = notebook(*cells)
    result = check_bytes(text.encode(), Job(Path("n.ipynb"), "n.ipynb", Settings()))
    assert [(f.path, f.line) for f in result.findings] == [("n.ipynb:cell 3", 4), ("n.ipynb:cell 5", 4)]
    mended = check_bytes(text.encode(), Job(Path("n.ipynb"), "n.ipynb", Settings(), "unsafe"))
    after = [c["source"] for c in json.loads(mended.fixed or b"{}")["cells"][1:]]
    assert ["".join(s) for s in after] == [
        c.replace("load('a')", "load('a', weights_only=True)").replace("load('c')", "load('c', weights_only=True)")
        for c in cells
    ]


@pytest.mark.parametrize("metadata", [None, [], {"language_info": None}, {"language_info": "python"}])
def test_a_notebook_without_metadata_is_read(metadata: object) -> None:
    data = {"cells": [3, None, {"cell_type": "code", "source": BAD}], "metadata": metadata}
    result = check_bytes(json.dumps(data).encode(), Job(Path("n.ipynb"), "n.ipynb", Settings()))
    assert [(f.path, f.rule, f.line) for f in result.findings] == [("n.ipynb:cell 3", "H501", 2)]


def test_a_fixed_notebook_is_the_same_but_for_the_line() -> None:
    cells = [
        "%time import torch\nimport torch\n!ls",
        "%%html\n<b>",
        "for x in xs:\n    s = torch.tensor([1.0])\n    print(x * s)",
    ]
    text = notebook(*cells)
    result = check_bytes(text.encode(), Job(Path("n.ipynb"), "n.ipynb", Settings(), "safe"))
    assert result.fixed is not None and result.fixes == 1
    before, after = json.loads(text), json.loads(result.fixed)
    changed = "".join(after["cells"][3]["source"])
    assert changed == "s = torch.tensor([1.0])\nfor x in xs:\n    print(x * s)"
    after["cells"][3]["source"] = before["cells"][3]["source"]
    assert after == before
    assert result.fixed.decode().splitlines()[:3] == text.splitlines()[:3] and result.fixed.endswith(b"\n")
    nbformat.validate(nbformat.reads(result.fixed.decode(), 4))


def test_an_untouched_notebook_is_rebuilt_to_the_letter() -> None:
    text = notebook("%cd ..\nx = 1", "y = %time f()")
    found = read_notebook(text)
    assert found.rebuilt(found.text) == text
