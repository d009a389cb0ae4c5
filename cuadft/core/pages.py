"""Web pages that hold all that they need: templates in which every text is escaped, with one plain style.

A page has no script and loads nothing. What it shows is data: each text is escaped, and the head of the page forbids
the browser to run or fetch anything. For example:

    page_template("cuadft.review", "two.html").render(one=review, other=other)

A template lies beside the code that fills it. It includes "head.html" of this room, which brings "page.css"; one that
is filled with `images=True` may hold pictures, as data in its own text.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any

# characters that no HTML document may hold
_PLANES = "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
_UNSHOWN = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef{_PLANES}]")


@cache
def page_template(package: str, name: str) -> Any:
    """Return the Jinja template of this name in a package; its includes lie there or in this room.

    A name that the template uses and is not given raises jinja2.UndefinedError, so that no page lacks a part unseen.
    """
    import jinja2

    def read(file: str) -> str | None:
        places = [resources.files(room).joinpath(file) for room in (package, "cuadft.core")]
        return next((place.read_text("utf-8") for place in places if place.is_file()), None)

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.finalize = _shown
    made.filters |= {"percent": percent, "time": time_text}
    return made.get_template(name)


def _shown(value: Any) -> Any:
    """Return a value without characters that no page may hold; what is markup already, such as a macro's, stays."""
    return _UNSHOWN.sub("\ufffd", value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def percent(p: float | None) -> str:
    """Return a probability for readers: "87 %"; certainty is never claimed."""
    if p is None:
        return "not calibrated"
    return "below 1 %" if p < 0.01 else "above 99 %" if p > 0.99 else f"{p:.0%}".replace("%", " %")


def time_text(time: str) -> str:
    """Return a time that a run has noted (ISO 8601, UTC) for readers: "2026-01-31 09:05 UTC"."""
    return f"{time[:16].replace('T', ' ')} UTC" if time else ""
