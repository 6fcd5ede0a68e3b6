"""How the state of a training lies in a checkpoint: what the model is apart from what only its training needs."""

from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp

# What a model consists of is an item of its own: it is restored without the rest of the training's state.
_MODEL = ("params", "stats")
# Where a moving average is kept, it is the model, and the parameters are part of the training under this name.
_TRAINED = "trained_params"
# The first layout had one item for both.
OLD_ITEM = "state"


def checkpoint_items(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A state as the items of a checkpoint: its model and, unless that is all, its training."""
    if "average" in state:
        renamed = {"average": "params", "params": _TRAINED}
        state = {renamed.get(name, name): tree for name, tree in state.items()}
    model = {name: tree for name, tree in state.items() if name in _MODEL}
    training = {name: tree for name, tree in state.items() if name not in _MODEL}
    return {"model": model, "training": training} if training else {"model": model}


def state_of(trees: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `checkpoint_items`, these taken together."""
    if _TRAINED not in trees:
        return dict(trees)
    renamed = {"params": "average", _TRAINED: "params"}
    return {renamed.get(name, name): tree for name, tree in trees.items()}


def old_arguments(abstract: Mapping[str, Any]) -> Any:
    """How `abstract` is read of the one item of an old checkpoint, which may hold more than is wanted."""
    if len(checkpoint_items(abstract)) > 1:
        return ocp.args.StandardRestore(abstract)
    arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
    return ocp.args.PyTreeRestore(abstract, restore_args=arguments, partial_restore=True)
