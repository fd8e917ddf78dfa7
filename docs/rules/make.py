"""Writes the page of every rule of the doctor, from the rule's own docstring and its measured cost.

``python docs/rules/make.py`` after a rule, its docstring or ``benchmarks/habits/costs.json`` changed; a test holds the
pages against what this writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hasten.doctor.rules import GROUPS, code_rules, documentation, graph_rules, rule_names

HERE = Path(__file__).resolve().parent
COSTS = HERE.parents[1] / "benchmarks" / "habits" / "costs.json"


def pages() -> dict[str, str]:
    """File name → content, of the index and of every rule's page."""
    table = json.loads(COSTS.read_text()) if COSTS.is_file() else {"costs": [], "conditions": {}}
    costs: dict[str, list[dict[str, Any]]] = {}
    for cost in table["costs"]:
        costs.setdefault(cost["rule"], []).append({"conditions": table["conditions"], **cost})
    found = {f"{code}.md": _page(code, costs.get(code, [])) for code in rule_names()}
    return {"index.md": _index(costs), **found}


def main() -> None:
    """Writes the pages, and removes those of rules that are gone."""
    made = pages()
    for old in HERE.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (HERE / name).write_text(text, encoding="utf-8")


# Nothing on a processor shows what these cost; ``benchmarks/habits/with_cuda.py`` measures them where a GPU is.
_GPU_ALONE = ("H203", "H303", "H402", "H408")
_ON_A_GPU = (
    "Needs a GPU, and the machine that the other costs were measured on has none: not measured yet. Where a CUDA "
    "device is, `python -m benchmarks.habits with_cuda` measures it."
)
# Rules whose point is not the time of a call: the index shows the other figure.
_NO_TIME = ("H009", "H107", "H201", "H210", "H501", "H602", "H606", "H608")
_UNMEASURED = {"H207": "Needs torchvision and its data sets: not measured."}


def _page(code: str, costs: list[dict[str, Any]]) -> str:
    name = rule_names()[code]
    title, _, body = documentation(code).strip().partition("\n")
    body = body.replace("\n## Example\n", f"\n{_measured(code, costs)}\n\n## Example\n", 1)
    return f"# {code} {name}\n\n{title}\n\n*Group: {GROUPS[code[:2]]} · {_fixed_by(body)}*\n{body}\n"


def _fixed_by(body: str) -> str:
    """The option that rewrites what the rule finds, as its own section on safety has it."""
    safety = body.rpartition("## Fix safety\n")[2].lower()
    if safety.startswith("no fix"):
        return "no fix"
    if safety.startswith("unsafe"):
        return "fixed by `--fix --unsafe-fixes`"
    return "fixed by `--fix`, in part only with `--unsafe-fixes`" if "unsafe" in safety else "fixed by `--fix`"


def _measured(code: str, costs: list[dict[str, Any]]) -> str:
    if not costs:
        return _ON_A_GPU if code in _GPU_ALONE else _UNMEASURED[code]
    lines = ["| measured for | as found | as advised | ratio |", "|---|---|---|---|"]
    for cost in costs:
        sides = " | ".join(_amount(cost[side], cost["unit"]) for side in ("before", "after"))
        lines.append(f"| {cost['per']} | {sides} | {_ratio(cost)} |")
    said: list[str] = []
    for cost in costs:
        conditions = _conditions(cost)
        said += [conditions] if conditions not in said else []
    return "\n".join([*lines, "", *said])


def _conditions(cost: dict[str, Any]) -> str:
    conditions = cost["conditions"]
    libraries = ", ".join(f"{k} {v}" for k, v in conditions["libraries"].items())
    taken = f"Median of {cost['rounds']} rounds in turns, small model" if "rounds" in cost else "Counted once"
    return (
        f"{taken}; {conditions['cpu']}, {conditions['cores']} cores, load {conditions['load']}, {conditions['date']}, "
        f"{libraries}. Repeat with `{conditions['command']}`."
    )


def _ratio(cost: dict[str, Any]) -> str:
    return f"{cost['before'] / cost['after']:.3g}×" if cost["after"] else ""


def _amount(value: float, unit: str) -> str:
    """A number with its unit, scaled as people write it."""
    if unit == "us":
        scales = ((1e6, "s"), (1e3, "ms"), (0, "µs"))
    elif unit == "bytes":
        scales = ((2**20, "MiB"), (2**10, "KiB"), (0, "B"))
    else:
        named = unit.removesuffix("s") if value == 1 else unit
        return f"{value:,g}{'' if unit == '%' else ' '}{named}".rstrip()
    size, name = next((s, n) for s, n in scales if value >= s)
    return f"{value / (size or 1):.3g} {name}"


PRECISION = """
## How often it is right

Counted by hand: each finding was read with the lines around it, and called false where the advice would be wrong or of
no use there. From the third line on every set holds only code that was not counted before, judged at first sight;
what misfired was mended before the next set and became a case of the tests (`tests/doctor/cases`). So each line is a
measure of the doctor as it was then, and none of it as it is now.

| round | findings | false | right |
|---|---|---|---|
| 25,992 installed files and 28 packages, not at first sight | 218 | 7 | 96.8 % |
| 32 packages, without safety rules | 26 | 8 | 69.2 % |
| 158 packages and 111 scripts (the scripts alone: 99, 1 false), without safety rules | 322 | 27 | 91.6 % |
| 33 large packages, without safety rules | 335 | 51 | 84.8 % |
| 125 packages and 15 scripts, without safety rules | 167 | 31 | 81.4 % |
| newest, set 1: 38 packages, all rules | 253 | 35 | 86.2 % |
| newest, set 2: 36 packages, all rules | 172 | 26 | 84.9 % |
| newest, set 3: 27 packages, all rules | 90 | 6 | 93.3 % |
| newest, set 4: 29 packages, all rules | 115 | 6 | 94.8 % |
| newest, set 5: 29 packages, all rules | 130 | 10 | 92.3 % |
| newest, set 6: 10 packages and 12 short scripts, all rules | 43 | 0 | 100 % |
| newest, set 7: 20 packages, all rules | 41 | 4 | 90.2 % |
| newest, set 8: 39 packages, all rules | 122 | 13 | 89.3 % |
| newest, set 9: 51 packages, all rules | 283 | 18 | 93.6 % |
| newest, set 10: 45 packages and 20 short scripts, all rules | 186 | 15 | 91.9 % |
| newest, set 11: 40 packages, all rules | 145 | 2 | 98.6 % |
| newest, set 12: 40 packages, all rules | 84 | 9 | 89.3 % |
| newest, set 13: 10 packages, all rules | 104 | 2 | 98.1 % |
| newest, all thirteen | 1768 | 146 | 91.7 % |
| newest, without safety and retired calls (H204, H205, H207, H501, H502): sets 1 and 2 | 82 | 58 | 29.3 % |
| the same, sets 3 to 7 | 107 | 23 | 78.5 % |
| the same, sets 8 to 13 | 174 | 42 | 75.9 % |
| H3xx, H4xx, H5xx alone, set 14: 56 packages | 65 | 18 | 72.3 % |
| the same, set 15: 67 packages | 118 | 4 | 96.6 % |
| the same, set 16: 61 packages | 50 | 9 | 82.0 % |
| the same, set 17: 59 packages | 63 | 0 | 100 % |
| the same, sets 14 to 17 | 296 | 31 | 89.5 % |
| the same, without safety (H501, H502) | 37 | 9 | 75.7 % |
| set 18: 129 packages, at most 10 findings of each, all rules by halves | 407 | 32 | 92.1 % |
| the same, without safety and retired calls | 64 | 22 | 65.6 % |
| H3xx, H4xx, H5xx alone, set 19: 55 short scripts and 34 packages | 101 | 11 | 89.1 % |
| the same, set 20: 35 short scripts | 50 | 10 | 80.0 % |
| the same, sets 21 to 23: 75 short scripts | 67 | 5 | 92.5 % |
| set 19, without safety | 68 | 11 | 83.8 % |
| set 20, without safety | 47 | 10 | 78.7 % |
| sets 21 to 23, without safety | 49 | 2 | 95.9 % |
| H3xx, H4xx, H5xx alone, set 24: 52 scripts and 45 packages, at most 6 findings of each | 126 | 14 | 88.9 % |
| the same, set 25: 36 scripts and 39 packages | 58 | 6 | 89.7 % |
| the same, set 26: 27 scripts and 15 packages | 53 | 2 | 96.2 % |
| sets 24 to 26, without safety | 127 | 10 | 92.1 % |
| H0xx, H1xx, H2xx without retired calls, set 27: 125 scripts, 74 packages, at most 6 of each | 99 | 11 | 88.9 % |
| the same, set 28: 67 scripts and 45 packages | 44 | 5 | 88.6 % |
| the same, set 29: 67 scripts and 36 packages | 37 | 4 | 89.2 % |
| the same, set 30: 23 scripts | 17 | 2 | 88.2 % |
| H1xx, H3xx, H4xx, H5xx, set 31: 26 scripts and 30 packages, at most 4 findings of each | 100 | 14 | 86.0 % |
| set 31, without safety | 27 | 3 | 88.9 % |
| the same rules, set 32: 8 scripts and 13 packages | 48 | 3 | 93.8 % |
| set 32, without safety | 17 | 2 | 88.2 % |
| H0xx and H2xx, set 33: 51 scripts and 15 packages, at most 4 of each, some scripts shortened | 48 | 3 | 93.8 % |
| set 33 without retired calls | 30 | 3 | 90.0 % |
| H0xx and H2xx, set 34: 43 scripts, the same way | 22 | 2 | 90.9 % |
| set 34 without retired calls | 13 | 2 | 84.6 % |
| H3xx, H4xx, H5xx, set 35: 43 whole packages, n to z | 183 | 6 | 96.7 % |
| the same, set 36: 15 whole packages | 48 | 2 | 95.8 % |
| the same, set 37: 12 whole packages | 25 | 2 | 92.0 % |
| H0xx to H2xx, set 38: 23 whole packages, a to m; one that can be argued counts as false | 31 | 1 | 96.8 % |
| set 38 without retired calls | 3 | 1 | 66.7 % |
| sets 35 to 37, without safety | 13 | 3 | 76.9 % |
| H3xx, H4xx, H5xx, set 39: 41 whole packages | 134 | 6 | 95.5 % |
| all rules, set 40: 44 whole packages | 199 | 4 | 98.0 % |
| sets 39 and 40, without safety and retired calls | 19 | 0 | 100 % |
| all rules, set 41: 1,391 packages drawn at random, 15 to 40 findings a rule at most | 297 | 46 | 84.5 % |
| the same, each rule weighted by how often it fires there | 918 | 97 | 89.5 % |
| set 41, without safety and retired calls | 208 | 37 | 82.2 % |

What a user of a large package sees is mostly unsafe loads and retired calls (1405 of the newest 1768), and of those 23
were false: files that the same run has just written, and the branch for a torch too old for the safe reader. The rest
is rare there, one or two findings a package, and it is the inside of libraries that misfires, mostly by one cause in
one package at a time: training steps that are timed (18), pinning for batches that another file puts together (16),
workers for data already at hand (15), the mode of models that other files set (11), losses gathered where a mask waits
anyway (6), records read one by one (6). Scripts and applications misfire least: of the 30 findings in the newest short
scripts none did.

In sets 14 to 17 the false unsafe loads (22 of 259) were torch_geometric's own graphs (9), projects that ask for a torch
whose default is safe (8) and files that the same program wrote (5); the first two are mended since, of the third the
plain cases. The other false ones were workers and pinning for data that another file holds or puts on the device (4),
clocks around a model that waits by itself or runs on the processor (3), and pipelines with nothing to share out (2).

In set 18 each half of the rules (H0xx to H2xx, H3xx to H5xx) was counted on packages that only the other half had been
counted on; retired calls on both. A package under all rules at once has them in another proportion: 89.9 %. Forks and
second packages of one author were left out. Eight findings that can be argued either way count as false: one image
predicted once in a script (4), weights that lie in the package itself (3), a chat that waits for its user (1); without
them 94.1 % and 73.4 %. Of the 24 plainly false 15 are mended since, by nine causes.

The scripts of sets 19 to 23 were drawn for the timing and data rules, which fire rarely elsewhere: parts of public
files, their heads put together again where they were cut. False there were means that are no means (5), maps and
prefetching for elements that are only looked at or cast (7), clocks around a whole job or set, or a model that had run
already (7), data at hand that workers would not help (3), a model on the processor (1), and in 21 to 23 weights that
the same run had written (3). All but one are mended since.

Of the 22 false ones in sets 24 to 26, 12 were unsafe loads: wheels whose metadata asks for a safe torch (4), branches
that a flag beside them has switched off (3), weights of the same run (3), a package's own file and a fallback that
warns (1 each). The other ten were pipelines and loaders of which one element is drawn (4), cheap steps behind a map on
several cores (2), a loader for the processor, one that is only measured, one whose data set may fill the GPU by itself
and a class that is a cache by its name. All are mended since.

Of the 22 false ones in sets 27 to 30, nine were loops that look at a few answers, shapes or one picked row, are timed,
end with the first success or hand over batches already (H001, H002). The others were switches to eager with a reason
that can be seen (3), networks that are part of others or come out of a registry (3), steps of one batch beside pictures
(2), fitting on inputs of unlike lengths or in whole sets (2), a loop that draws, a handler that puts a model in place
and a loss that is shown as the wrong one (1 each). All but one switch are mended since.

Before sets 33 and 34 the rules on calling and PyTorch were turned round: several that fired where nothing spoke against
it now ask for signs in the file. The five false ones were the best few of many read one by one (2, one file), a script
of one addition as a deployed model, and two loaded models that only double their input. The first two causes are
mended; what a file holds that is only loaded can't be seen.

In sets 35 to 37 whole packages were read, their examples and scripts too where the source distribution has them; which
packages the earlier sets held isn't written down, so some may have been among those. Of 256 findings 243 were unsafe
loads, as large packages have little else, and of those seven were false: weights of the same run (4), and what a
function makes itself where it is not there yet (3, mended since). The other three were pinning for rows of a table at
hand, and two clocks around an answer that is made word by word (mended since). What was missed weighed more: loaders
that a trainer of another file is handed, or whose batches go to a device that the object was told (17 in eleven files,
found since).

In sets 39 and 40, of packages whose authors nobody here had read before, the ten that count as false were all unsafe
loads: weights that lie in the package itself (3), of the same run (2), caches and statistics that the program keeps for
itself (4), and a file whose checksum had just been compared. Of the 19 others eleven were loaders without pinning in
one package.

In set 41 what can be argued counts as false (10 of the 46); without it 87.9 % of the sample are right. Conversions in
each round misfired most (11 of 40): answers for each pixel that leave the device to free it, numbers that an `if` picks
out, rounds that wait for a test by name. The others were copies of torch itself (3), pipelines that are looked at or in
a mapped function (4), data at hand and lists of numbers that workers or pinning would not help (4), a script
that asks once (2), times of a first call (2), files of the same run (2) and single cases, two of them lines rightly
found whose fix would have broken them. All but six of the plainly false are mended since.

How much is found is held by 57 whole files in many styles (`tests/doctor/whole`), each rule in at least five.
"""


def _index(costs: dict[str, list[dict[str, Any]]]) -> str:
    names = rule_names()
    remedies = {rule.code: rule.remedy for rule in (*code_rules(), *graph_rules())}
    lines = [
        "# The doctor's rules",
        "",
        "`hasten doctor src/` reads Python files, folders, notebooks and standard input, and names the lines that make",
        "a model slow; `hasten doctor model.keras` reads a model. It never imports or runs what it reads.",
        "",
        "```bash",
        "hasten doctor src/                     # exit code 1 if anything is found",
        "hasten doctor src/ --fix               # rewrite what can be rewritten safely",
        "hasten doctor src/ --fix --unsafe-fixes --diff",
        "hasten doctor notebook.ipynb --format github     # or json, sarif",
        "hasten doctor --explain H001",
        "```",
        "",
        "A line is left alone after `# hasten: ignore[H001]` (or `# hasten: ignore`), a file after",
        "`# hasten: ignore-file`; an unsafe load also after `# nosec` or `# noqa: S301`. Settings are found upwards in",
        "`pyproject.toml`:",
        "",
        "```toml",
        "[tool.hasten.doctor]",
        'select = ["H"]',
        'ignore = ["H304"]',
        'extend-exclude = ["third_party"]',
        "max-file-kb = 1024        # larger files are reported as skipped",
        "[tool.hasten.doctor.per-file-ignores]",
        '"scripts/*" = ["H3"]',
        "```",
        "",
        "As a [pre-commit](https://pre-commit.com) hook: `hasten-doctor`, or `hasten-doctor-fix`.",
        *PRECISION.splitlines(),
        "",
    ]
    for group, title in GROUPS.items():
        lines += [f"## {title}", "", "| rule | measured cost | what to do |", "|---|---|---|"]
        for code, name in names.items():
            if code.startswith(group):
                lines.append(f"| [{code} {name}]({code}.md) | {_shortly(code, costs)} | {remedies[code]} |")
        lines.append("")
    return "\n".join(lines)


def _shortly(code: str, costs: dict[str, list[dict[str, Any]]]) -> str:
    """The ratios of the times, or both sides of what is no time."""
    if code not in costs:
        return "needs a GPU" if code in _GPU_ALONE else "not measured"
    timed = [_ratio(c) for c in costs[code] if "rounds" in c]
    other = next((c for c in costs[code] if "rounds" not in c), None)
    if other is None or (timed and code not in _NO_TIME):
        return ", ".join(timed)
    return " → ".join(_amount(other[side], other["unit"]) for side in ("before", "after"))


if __name__ == "__main__":
    main()
