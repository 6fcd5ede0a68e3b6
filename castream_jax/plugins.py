"""Backbones, attribution methods and data sources of other distributions, found by their entry points.

An entry point of one of the groups below names a module, which registers what it adds when it is imported:

    [project.entry-points."castream_jax.methods"]
    brightness = "my_package.brightness"
"""

import functools
import importlib.metadata
import warnings

GROUPS = ("castream_jax.backbones", "castream_jax.methods", "castream_jax.sources")


@functools.cache
def load_plugins(group: str) -> None:
    """Imports the entry points of a group, once in a process.

    A registry calls it before it says that it does not know a name, or lists its names: nobody else waits for plugins.
    One that cannot be imported is warned of, by the name of its distribution, and the others are loaded all the same.
    """
    for entry in importlib.metadata.entry_points(group=group):
        try:
            entry.load()
        except Exception as error:  # whatever another distribution's code may raise
            distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
            reason = " ".join(str(error).split())
            warnings.warn(
                f"The plugin {entry.name!r} ({group}) of {distribution} cannot be used "
                f"({type(error).__name__}: {reason}): update or uninstall that distribution.",
                stacklevel=2,
            )
