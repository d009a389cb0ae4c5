"""What every room needs: errors, atomic files, run folders, parameters, progress, text folding, pages.

A run folder also knows its champion. Nothing here knows contracts, models or notebooks. For example, the first cell of
every notebook reads

    core.check_parameters(globals())

which stops at a misspelt name before anything is computed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "files": ["read_jsonl", "write_json", "write_jsonl", "write_text"],
        "params": ["check_parameters"],
        "runs": [
            "CONSTANTS",
            "Iteration",
            "NOT_TRAINED",
            "PROGRAMS",
            "overruled_by_hand",
            "incoming_champion",
            "record_decision",
            "resolve_path",
        ],
    },
)
