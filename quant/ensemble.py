"""The mean of several LightGBM models as one model: their trees side by side, every leaf divided by their number."""

from collections.abc import Sequence
from itertools import count

END = "\nend of trees"
SCALED = ("leaf_value", "internal_value")


def average(texts: Sequence[str]) -> str:
    """Model text whose raw score is the mean of the raw scores of these models.

    texts: LightGBM model texts of the same columns and objective. What follows a raw score (the logistic of objective
    binary) is applied to the mean: averaged are log-odds there, predictions everywhere else. One text is returned as
    it is. ValueError for texts that differ in anything but their trees.
    """
    if len(texts) == 1:
        return texts[0]
    heads = []
    trees: list[str] = []
    number = count()
    for text in texts:
        head, *blocks = text.partition(END)[0].split("\nTree=")
        heads.append([line for line in head.split("\n") if not line.startswith(("tree_sizes=", "feature_infos="))])
        trees += [_scaled(block, len(texts), next(number)) for block in blocks]
    if any(head != heads[0] for head in heads):
        raise ValueError("the models differ in their columns or objective: only models of one table can be averaged")
    first, _, rest = texts[0].partition(END)
    head = first.split("\nTree=")[0].rstrip("\n")
    sizes = f"tree_sizes={' '.join(str(len(tree.encode())) for tree in trees)}"
    lines = [sizes if line.startswith("tree_sizes=") else line for line in head.split("\n")]
    return "\n".join(lines) + "\n\n" + "".join(trees) + END.lstrip("\n") + rest


def _scaled(block: str, models: int, number: int) -> str:
    """A tree with its own number, its values divided; as LightGBM writes it, two empty lines at its end."""
    lines = block.strip("\n").split("\n")[1:]
    made = [f"Tree={number}"]
    for line in lines:
        key, equals, values = line.partition("=")
        if key in SCALED:
            values = " ".join(repr(float(value) / models) for value in values.split())
        made.append(key + equals + values)
    return "\n".join(made) + "\n\n\n"
