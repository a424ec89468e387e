"""Which of a model's weights its files have: what is missing, and what is there and not used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from kdsweep.errors import ModelError, first_few

MOST_NAMES = 4
# What weights are stored as, in the words of safetensors.
FLOATING = {"F64", "F32", "F16", "BF16"}
# Parts on top of a body that are trained anew for a task. A model with code of its own may have no
# body that is told apart from its head.
HEADS = {
    "classifier",
    "score",
    "classification_head",
    "head",
    "out_proj",
    "pooler",
    "pre_classifier",
}


@dataclass(frozen=True)
class LoadedWeights:
    """Modules and weights: `new` ones start from random numbers, `unused` ones are in the files but
    not in the model.
    """

    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def check_weights(
    model: PreTrainedModel, found: Mapping[str, Any], source: str, *, is_complete: bool
) -> LoadedWeights:
    """What of the model's weights is new. Raises ModelError if more than a head (and pooler) is.

    found: what transformers says about loading. is_complete: the model is fine-tuned already, so
    nothing may be new. A model whose config says so can have a head for other labels, but not none.
    """
    missing = {name for name, _ in model.named_parameters()} & set(found["missing_keys"])
    changed = {str(entry[0]) for entry in found["mismatched_keys"]}
    unused = tuple(_without_numbers(found["unexpected_keys"]))
    body = {name for name in missing | changed if not _is_of_head(name, model)}
    if body:
        raise ModelError(
            f"model: {source} holds other weights than its config says: "
            f"{_lacks(model, body & missing, body & changed)} "
            f"would start from random numbers{_also_there(unused)}; use the weights of this model"
        )
    of_head = missing | changed if is_complete else missing
    names_head = type(model).__name__ in (model.config.architectures or [])
    if of_head and (is_complete or names_head):
        raise ModelError(
            f"model: {source} should have the head of a fine-tuned model, but "
            f"{_lacks(model, of_head & missing, of_head & changed)} "
            f"would start from random numbers{_also_there(unused)}; use complete weights"
        )
    return LoadedWeights(tuple(_modules(model, missing | changed)), unused)


def check_not_quantized(model: PreTrainedModel, folder: Path, source: str) -> None:
    """Raise ModelError if the folder holds weights that mean something only with their scales.

    transformers would take the integers for the weights.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return
    own = {name for name, _ in model.named_parameters()}
    # The file of a body alone has names without the body's own.
    own |= {name.removeprefix(f"{model.base_model_prefix}.") for name in own}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in sorted(own.intersection(weights.keys())):
                if (stored := weights.get_slice(name).get_dtype()) not in FLOATING:
                    raise ModelError(
                        f"model: {source} holds {name} as {stored}: its weights are quantized, and "
                        "their scales aren't known; use the weights from before that"
                    )


def _is_of_head(name: str, model: PreTrainedModel) -> bool:
    parts = name.split(".")
    if "pooler" in parts:
        return True
    if model.base_model is model:
        return bool(HEADS & set(parts))
    return parts[0] != model.base_model_prefix


def _lacks(model: PreTrainedModel, missing: Collection[str], changed: Collection[str]) -> str:
    """`its weights lack a.b.* (3.1% of the parameters), which`"""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    share = sum(sizes.get(name, 0) for name in {*missing, *changed}) / sum(sizes.values())
    parts = []
    if missing:
        parts.append(f"its weights lack {first_few(_modules(model, missing), MOST_NAMES)}")
    if changed:
        names = first_few(sorted(changed), MOST_NAMES)
        have = "have" if len(changed) > 1 else "has"
        parts.append(f"{names} {have} another shape")
    return f"{' and '.join(parts)} ({100 * share:.2g}% of the parameters), which"


def _also_there(unused: Collection[str]) -> str:
    return f" (its weights also hold {first_few(unused, MOST_NAMES)})" if unused else ""


def _modules(model: PreTrainedModel, names: Collection[str]) -> list[str]:
    """These weights; those of a whole module in one: `encoder.layer.5.*`."""
    found: list[str] = []
    left = set(names)
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{name}" for name, _ in module.named_parameters()}
        if prefix and len(own) > 1 and own <= left:
            found.append(f"{prefix}.*")
            left -= own
    return sorted([*found, *left])


def _without_numbers(names: Collection[str]) -> list[str]:
    """The first two parts of these names, each once: there is no module to ask what is whole."""
    parts = (name.split(".") for name in names)
    return sorted({".".join(one) if len(one) <= 2 else f"{one[0]}.{one[1]}.*" for one in parts})
