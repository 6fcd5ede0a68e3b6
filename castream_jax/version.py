"""The package's version, and those of others."""

__version__ = "0.1.0"


def installed_version(package: str) -> str | None:
    """That of an installed distribution; None if there is none of this name, as where it runs from a checkout."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
