"""A model's own names of its inputs and outputs enter; names that C takes for arguments leave."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["argument_names", "as_comment"]

# Names that frameworks and converters give by themselves say no more than a position.
_GENERATED = re.compile(
    r"keras_tensor(_\d+)?|(input|output|out|arg|args|var|val|tensor|identity)_?\d*(_\d+)?|inputs|outputs"
    r"|statefulpartitionedcall.*|serving_default.*|partitionedcall.*|.*::.*",
    re.IGNORECASE,
)
_LONGEST = 40
# Keywords of C and C++, what the header itself uses, and what common headers and compilers define as macros.
_WORDS = """
alignas alignof and and_eq arena asm auto bitand bitor bool break case catch char class co_await co_return co_yield
compl concept const const_cast consteval constexpr constinit continue decltype default delete do double dynamic_cast
else enum explicit export extern false far final float for friend goto huge if import inline int interface long
module mutable namespace near new noexcept not not_eq nullptr operator or or_eq override private protected public
register reinterpret_cast requires restrict return short signed sizeof small static static_assert static_cast struct
switch template this thread_local throw true try typedef typeid typename typeof union unsigned using virtual void
volatile wchar_t while xor xor_eq assert complex errno imaginary linux noreturn offsetof setjmp stderr stdin stdout
unix I IN OUT NULL EOF NAN INFINITY TRUE FALSE BUFSIZ RAND_MAX HUGE_VAL HUGE_VALF HUGE_VALL
"""
_TAKEN = frozenset(_WORDS.split())


def argument_names(inputs: Sequence[str], outputs: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A C identifier for each input and output, all unlike: its own name, or ``input0`` where that says nothing.

    Example:
        >>> argument_names(["obs/pose", "keras_tensor_24"], ["obs/pose", "float"])
        (('obs_pose', 'input1'), ('obs_pose_output', 'float_output'))
    """
    taken: set[str] = set()
    made = [
        tuple(_one(name, word, index, taken) for index, name in enumerate(names))
        for word, names in (("input", inputs), ("output", outputs))
    ]
    return made[0], made[1]


def _one(name: str, word: str, index: int, taken: set[str]) -> str:
    bare = re.sub(r":\d+$", "", name)
    own = re.sub(r"_+", "_", re.sub(r"\W", "_", bare, flags=re.ASCII)).strip("_")
    if len(own) > _LONGEST or not re.match("[A-Za-z]", own) or any(map(_GENERATED.fullmatch, (bare, own))):
        return f"{word}{index}"  # no other is called so: what reads like it counts as generated
    for found in (own, f"{own}_{word}"):
        # What ends in _t or _SIZE may be a type or a macro of the header.
        if found not in _TAKEN and found not in taken and not re.search(r"_(t|SIZE|BYTES|H)$", found):
            taken.add(found)
            return found
    return f"{word}{index}"


def as_comment(name: str) -> str:
    """A name as a comment of C may hold it: printable, on one line, ending nothing."""
    text = name.encode("ascii", "backslashreplace").decode()
    return re.sub(r"[^ -~]", "?", text).replace("*/", "* /").replace("/*", "/ *").replace("??/", "? ?/")
