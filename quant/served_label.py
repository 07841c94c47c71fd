"""The label that a bundle was trained for, made again from the bundle alone: the service has no other config."""

from functools import partial

from quant.bundle import Bundle
from quant.labels import Label, label_of
from quant.program import Program


def served_label(bundle: Bundle) -> Label:
    """What the bundle predicts. ExpressionError where it reads an attribute that the bundle does not carry."""
    recipe, told = bundle.recipe, bundle.manifest["label"]
    declared = bundle.manifest["config"].get("label") or {
        "kind": "expression",
        "name": told["name"],
        "expr": told["text"],
    }
    names = (*recipe.columns, *recipe.attributes)
    return label_of(declared, partial(Program.compile, inputs=names, derived=recipe.derived), f"bundle {bundle.id}")
