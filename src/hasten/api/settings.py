"""What may be asked for. Values that mean nothing are refused here, before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hasten.engines import ENGINES
from hasten.errors import SettingsError
from hasten.native.schedule import SCHEDULES
from hasten.native.vectors import MATH
from hasten.tune.choose import OBJECTIVES
from hasten.tune.plan import Bounds, Limits
from hasten.verify import METRICS, Tolerance

__all__ = ["PRECISIONS", "Settings"]

PRECISIONS = ("float32", "float16", "bfloat16", "int11-weights", "int8-weights", "int8-dynamic", "int8")


@dataclass(frozen=True)
class Settings:
    """How to optimise. Every field has a sensible default; ``dataclasses.replace`` changes some.

    Units:   max_latency_ns: nanoseconds; max_memory_bytes: bytes; budget_s: seconds for trying all candidates
    Raises:  SettingsError: a value is not one of those allowed

    Example:
        >>> Settings(batch=(1, 8), objective="p50").batch
        (1, 8)
        >>> Settings(seed=-1)
        Traceback (most recent call last):
        hasten.errors.SettingsError: seed: expected a whole number of at least 0, received -1
    """

    batch: tuple[int, ...] = (1,)
    """Batch sizes to compile for; the first one is what the play-off is about."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Input name → every dimension, where more than the batch is free."""
    precision: str = "float32"
    """float32, one lower precision by name, or ``auto``: all of them, under ``tolerance`` or ``data``."""
    math: str = "default"
    """How exact exp, tanh … are in native code: ``default`` within 6 ULP, ``strict`` 2 ULP, ``fast`` 5e-4."""
    schedule: str | None = None
    """How native code is cut into register tiles: by a ``model`` of the machine; as ``kept`` from earlier timing, else
    by the model; ``timed``, which tries a handful for every heavy step and keeps what it finds. None: ``timed`` in a
    search that is not quick, else ``kept``."""
    threads: tuple[int, ...] = ()
    """Thread counts to try; empty: one, and every physical core."""
    objective: str = "p99"
    max_latency_ns: float | None = None
    max_memory_bytes: int | None = None
    tolerance: float | None = None
    """Absolute and relative error allowed; None: what float32 in another order needs."""
    data: Path | None = None
    """``.npz`` of labelled rows: the inputs by name (or ``x``) and ``y``."""
    metric: str = "accuracy"
    max_drop: float = 0.005
    engines: tuple[str, ...] = ()
    """Engines to try; empty: all."""
    trust: bool = False
    """Open model files that can run code."""
    quick: bool = False
    """A smaller search: under 20 s."""
    fresh: bool = False
    """Do not take up what an earlier run measured."""
    seed: int = 0
    budget_s: float | None = None
    cache: Path | None = None
    """Where trials are kept; None: the user's cache folder."""

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "engines"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, (int, str)) else tuple(value))
        if self.data is not None:
            object.__setattr__(self, "data", Path(self.data))
        _whole_numbers("batch", self.batch, least_many=1)
        _whole_numbers("threads", self.threads)
        _one_of("objective", self.objective, OBJECTIVES)
        _one_of("precision", self.precision, (*PRECISIONS, "auto"))
        _one_of("math", self.math, MATH)
        if self.schedule is not None:
            _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("metric", self.metric, tuple(METRICS))
        for engine in self.engines:
            _one_of("engine", engine, tuple(ENGINES))
        for name, dims in self.shapes.items():
            _whole_numbers(f"shape of '{name}'", tuple(dims))
        for name in ("max_latency_ns", "max_memory_bytes", "budget_s", "tolerance"):
            _positive(name, getattr(self, name))
        if not isinstance(self.max_drop, (int, float)) or not 0 <= self.max_drop < float("inf"):
            raise SettingsError(f"max_drop: expected a number of at least 0, received {self.max_drop!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise SettingsError(f"seed: expected a whole number of at least 0, received {self.seed!r}")
        if self.precision == "auto" and self.tolerance is None and self.data is None:
            raise SettingsError(
                "precision 'auto': expected a bound on what it may cost, received none; add tolerance=1e-2 or "
                "data=labelled.npz"
            )

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions to try; float32 is always among them."""
        if self.precision == "auto":
            return PRECISIONS
        return tuple(dict.fromkeys(("float32", self.precision)))

    @property
    def allowed(self) -> Tolerance | None:
        """The tolerance asked for: by number, or by naming a precision or fast mathematics; None: the default."""
        if self.tolerance is not None:
            return Tolerance.uniform(self.tolerance)
        if self.data is not None:
            return None
        if self.precision in ("float32", "auto"):
            return Tolerance.named("float16") if self.math == "fast" else None
        return Tolerance.named(self.rounding)

    @property
    def rounding(self) -> str:
        """The precision whose rounding no answer needs to keep apart, by the names of ``Tolerance.named``."""
        if self.precision == "auto" or self.data is not None:
            return "float32"
        return self.precision.removesuffix("-dynamic").removesuffix("-weights")

    @property
    def bounds(self) -> Bounds:
        """What the winner may cost at most."""
        return Bounds(self.max_latency_ns, self.max_memory_bytes)

    @property
    def limits(self) -> Limits:
        """How long and how large the search may get."""
        limits = Limits.quick() if self.quick else Limits()
        return limits if self.budget_s is None else limits.within(float(self.budget_s))

    def to_json(self) -> dict[str, Any]:
        """What differs from the default, JSON-ready: for the report and the bundle."""
        default = Settings()
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in found.items()
            if value != getattr(default, name)
        }


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{name}: expected one of {', '.join(allowed)}, received {value!r}")


def _whole_numbers(name: str, values: tuple[Any, ...], least_many: int = 0) -> None:
    good = all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)
    if not good or len(values) < least_many or (len(set(values)) != len(values) and not name.startswith("shape")):
        raise SettingsError(f"{name}: expected whole numbers of at least 1, none twice, received {list(values)}")


def _positive(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
        raise SettingsError(f"{name}: expected a number above 0, received {value!r}")
