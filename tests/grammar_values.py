"""Values of every kind in the grammar, and how a test reads one."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from kdsweep.config.values import Value

adapter: TypeAdapter[Any] = TypeAdapter(Value)

HEAT = {
    "any_of": [
        {"low": 1.0, "high": 10.0},
        {"shape": "linear", "start": {"low": 4.0, "high": 10.0}, "end": 1.0},
    ]
}
ALPHA = {
    "any_of": [
        {"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2},
        {"shape": "linear", "start": {"low": 0.0, "high": 0.5}, "end": {"low": 0.5, "high": 1.0}},
        {"shape": "linear", "start": {"low": 0.5, "high": 1.0}, "end": {"low": 0.0, "high": 0.5}},
    ]
}
NESTED = {"any_of": [0.5, {"any_of": [0.1, {"low": 0.2, "high": 0.9}]}]}
STEPS = {
    "shape": "step",
    "values": [0.0, {"choices": [0.5, 0.6]}, 1.0],
    "at": [{"low": 0.2, "high": 0.4}, 0.5],
}

EVERY_KIND: dict[str, Any] = {
    "constant": 5.0,
    "text": "linear",
    "nothing": None,
    "range": {"low": 1.0, "high": 10.0},
    "log": {"low": 1e-5, "high": 1e-4, "log": True},
    "stepped": {"low": 0.0, "high": 1.0, "step": 0.25},
    "choices": {"choices": [16, 32, 64]},
    "words": {"choices": ["linear", "cosine", None]},
    "heat": HEAT,
    "alpha": ALPHA,
    "nested": NESTED,
    "steps": STEPS,
    "two ranges": {"any_of": [{"low": 0.0, "high": 0.2}, {"low": 0.8, "high": 1.0}]},
    "two lines": {
        "any_of": [{"shape": "linear", "start": {"low": 0.0, "high": 0.1}, "end": 1.0}] * 2
    },
    "deep": {
        "any_of": [
            {
                "shape": "cosine",
                "start": {"any_of": [0.9, {"low": 0.5, "high": 0.6}]},
                "end": NESTED,
            },
            NESTED,
            HEAT,
        ]
    },
    "constants": {"any_of": [0.1, 0.2, {"choices": [0.3, 0.4]}]},
    "look-alikes": {"any_of": ["x_1", "x", "x"]},
}


def read(value: Any) -> Any:
    return adapter.validate_python(value)
