"""Jinja environment of all pages."""

import jinja2


def html_environment(package: str) -> jinja2.Environment:
    """Templates that lie beside the modules of `package`, in an installed wheel too.

    Everything is escaped unless it is `Markup`, and a name that is not given is an error.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
