"""CA-Stream in JAX: attention-based pooling beside a frozen CNN, and exact interpretability metrics.

The public names are those of `__init__.pyi`. Each is imported when it is first used: `castream --help` and a shell's
completion do not wait for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
